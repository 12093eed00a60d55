"""A folder that appears whole or not at all: built beside its place, then renamed into it.

Serves whoever writes a folder that somebody else may be reading; leftovers of killed runs are settled first.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Where a process cannot be asked whether it lives, a leftover is one after this many seconds
_STALE_SECONDS = 24 * 3600


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside `place`; when the block ends without an exception it becomes `place`.

    A folder already at `place` stays readable until the new one is complete, and is removed after the exchange.
    A kill leaves at most hidden folders beside `place`; the next call removes them, and puts back an old folder
    that a kill caught between the two renames.
    """
    place = place.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    settle_leftovers(place)
    mark = f"{_this_process()}-{uuid.uuid4().hex[:8]}"
    building = place.with_name(f".{place.name}.new-{mark}")
    building.mkdir()
    try:
        yield building
        _flush(building)
        old = place.with_name(f".{place.name}.old-{mark}")
        replaces = place.exists()
        if replaces:
            place.rename(old)
        try:
            building.rename(place)
        except BaseException:
            if replaces:
                old.rename(place)
            raise
        _flush_entry(place.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def settle_leftovers(place: Path) -> None:
    """Remove what killed runs left beside `place`; put an old folder back if `place` itself is gone."""
    for leftover in sorted(place.parent.iterdir()):
        is_old = leftover.name.startswith(f".{place.name}.old-")
        if not (is_old or leftover.name.startswith(f".{place.name}.new-")) or not _is_stale(leftover):
            continue
        if is_old and not place.exists():
            leftover.rename(place)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def _this_process() -> str:
    return f"{socket.gethostname().replace('-', '_')}-{os.getpid()}"


def _is_stale(leftover: Path) -> bool:
    """Whether the process that made a hidden folder is gone."""
    parts = leftover.name.rsplit("-", 3)
    if len(parts) != 4:
        return False
    _, host, pid, _ = parts
    if os.name == "posix" and pid.isdigit() and host == _this_process().split("-")[0]:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    with suppress(OSError):
        return time.time() - leftover.stat().st_mtime > _STALE_SECONDS
    return False


def _flush(folder: Path) -> None:
    """Hand every file of `folder` to the disk, so that a power cut after the rename finds them whole."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())


def _flush_entry(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
