"""Fetch the source distribution of the installed transformers and run its shared model tests on our classes.

`make test-upstream` calls this; it needs a package index. The source is kept in build/ and used again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    name = f"transformers-{version('transformers')}"
    build = ROOT / "build" / "upstream"
    source = build / name
    if not source.is_dir():
        requirement = name.replace("-", "==")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "transformers", requirement]
        subprocess.run([*command, "--dest", str(build)], check=True)
        with tarfile.open(build / f"{name}.tar.gz") as archive:
            archive.extractall(build, filter="data")
    if find_spec("parameterized") is None:  # which nothing but their tests needs
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "parameterized"], check=True)
    (source / "tests" / "__init__.py").touch()
    shutil.copy(Path(__file__).parent / "common_model_tests.py", source / "tests" / "test_squeezebert_common.py")
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_squeezebert_common.py", *sys.argv[1:]]
    return subprocess.run(command, cwd=source, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
