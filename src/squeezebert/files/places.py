"""The name of a file that a command is to write in; what would keep it from being written, out, before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile

from squeezebert.files.errors import OptionError


def check_place(
    name: str,
    option: str = "--output",
    *,
    overwrite: bool = True,
    others: Iterable[str | None] = (),
    at_once: bool = True,
) -> None:
    """Raise `OptionError` where a file cannot be written, is not to be replaced, or is one that is read or kept.

    `others` are the other files of the command, whether they are there or not, or folders whose files it reads: a file
    in one of those would be read as one of them. - is a stream and no file. Whether the file can be made is not tried
    where it need not be (`at_once` is false): a device, or a place that was tried before.
    """
    path = Path(name)
    for other in others:
        if other in (None, "-"):
            continue
        if _same(str(other), name):
            raise OptionError(f"{option} {name}: a file that this command reads or keeps; name another")
        if _holds(str(other), name):
            raise OptionError(f"{option} {name}: lies in {other}, a folder that is read; name another place")
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        raise OptionError(f"{option} {name}: a folder; name a file")
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise OptionError(f"{option} {name}: there is no folder {path.parent}: make it, or name another")
    if not overwrite and os.path.isfile(path):  # noqa: PTH113
        raise OptionError(f"{option} {name}: is there already: choose another name, or --overwrite it")
    if not at_once:
        return
    try:
        # Under a name of its own: what another run has begun to write there stays
        with NamedTemporaryFile(dir=path.parent, prefix=part_of(path).name):
            pass
    except OSError as error:
        raise OptionError(f"{option} {name}: cannot be written: {error.strerror}") from error


def place_of(name: str | Path) -> Path:
    """Return where a file lies: behind a symbolic link, which stays."""
    path = Path(name)
    return path.resolve() if path.is_symlink() else path


def part_of(path: Path) -> Path:
    """Return where a file is written before it takes its name."""
    return path.with_name(f".{path.name}.part")


def _same(one: str, other: str) -> bool:
    """Whether two names are of one file; a text that somebody typed in a file's place is of none."""
    try:
        first, second = Path(one), Path(other)
        if first.exists() and second.exists():
            return first.samefile(second)
        return first.resolve() == second.resolve()
    except (OSError, ValueError):
        return False


def _holds(folder: str, name: str) -> bool:
    """Whether a name is of something in a folder, at any depth."""
    try:
        return os.path.isdir(folder) and Path(name).resolve().is_relative_to(Path(folder).resolve())  # noqa: PTH112
    except (OSError, ValueError):
        return False
