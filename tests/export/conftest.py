"""Exported folders, one of each task, made once for all tests of this directory."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from exported_folders import multi, regression, single

__all__ = ["multi", "regression", "single"]
