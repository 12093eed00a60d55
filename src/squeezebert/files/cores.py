"""How many cores may be used, as options and arguments say it. Serves everything that takes `threads`."""

from __future__ import annotations

import os

from squeezebert.files.errors import OptionError
from squeezebert.files.numbers import check_whole

# On a machine of few cores. More threads than cores only wait for one another, and each has memory of its own
_ALWAYS = 16
_A_CORE = 4


def check_threads(threads: int | None, name: str = "threads =") -> None:
    """Raise `OptionError` unless `threads` is None, for every core, or a whole number from 1 to what is bearable.

    That is 4 a core, and 16 at least: a hundred threads a core would take its memory and never answer.
    """
    if threads is None:
        return
    check_whole(name, threads)
    most = max(_ALWAYS, _A_CORE * (os.cpu_count() or 1))
    if threads > most:
        raise OptionError(f"{name} {threads}: this machine has {os.cpu_count()} cores; give {most} at most")


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
