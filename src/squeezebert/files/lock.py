"""An output folder in; the right to be the only run on this machine that writes it, out. Serves what takes long."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from squeezebert.files.errors import FolderError

LOCK = ".lock"
"""Name of the lock's file, where it lies in the output."""


@contextmanager
def only_run(
    output: str | Path, *, inside: bool = False, option: str = "--output", launched: bool = True
) -> Iterator[None]:
    """Run a block as the only one that writes `output`; the system ends the right with the process, killed or not.

    The lock lies with the temporary files, so that an output stays empty until there is something to write; `inside`
    it lies in `output`, a folder that is there, where processes whose temporary files lie elsewhere find it too. Of
    the processes of one launch, the first takes it for all, unless a process is always a run of its own (`launched`
    is false). Raises `FolderError` when another run has it; `option` is what named it.
    """
    if launched and os.environ.get("RANK", "0") != "0":
        yield
        return
    user = os.getuid() if hasattr(os, "getuid") else 0
    place = hashlib.sha256(os.fsencode(Path(output).resolve())).hexdigest()[:24]
    outside = Path(tempfile.gettempdir()) / f"squeezebert-{user}-{place}.lock"
    lock = FileLock(Path(output) / LOCK if inside else outside, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise FolderError(
            f"{output}: another run is writing it: wait until that has ended, or choose another {option}"
        ) from error
    try:
        yield
    finally:
        lock.release()
