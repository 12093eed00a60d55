"""Exported folders for the runtime: the fixtures of the export's tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))

from exported_folders import multi, regression, single

__all__ = ["multi", "regression", "single"]
