"""A folder laid out as npm lays out the page's engine, with empty programs: for tests that run no browser."""

from __future__ import annotations

import json
from pathlib import Path

from squeezebert.web.engine import CPU_FILES, GPU_FILES, engine_versions


def stand_in_engine(folder: Path) -> Path:
    """Fill `folder` and return it."""
    for package, version in engine_versions().items():
        (folder / package).mkdir(parents=True)
        (folder / package / "package.json").write_text(json.dumps({"version": version, "license": "MIT"}))
        (folder / package / "LICENSE").write_text("a licence")
    for path in (*CPU_FILES, *GPU_FILES):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder
