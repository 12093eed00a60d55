"""How many cores may be used, as options and arguments say it. Serves everything that takes `threads`."""

from __future__ import annotations

import os

from squeezebert.files.errors import OptionError

# On a machine of few cores. More threads than cores only wait for one another, and each has memory of its own
_ALWAYS = 16
_A_CORE = 4


def check_threads(threads: object, name: str = "threads =") -> None:
    """Raise `OptionError` unless `threads` is None or a whole number from 1 to what the machine can bear.

    That is 4 a core, and 16 at least: a hundred threads a core would take its memory and never answer.
    """
    if threads is None:
        return
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise OptionError(f"{name} {threads!r}: give a whole number from 1, or none for every core")
    most = max(_ALWAYS, _A_CORE * (os.cpu_count() or 1))
    if threads > most:
        raise OptionError(f"{name} {threads}: this machine has {os.cpu_count()} cores; give {most} at most")


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
