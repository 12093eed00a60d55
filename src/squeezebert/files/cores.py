"""How many cores may be used, as options and arguments say it. Serves everything that takes `threads`."""

from __future__ import annotations

from squeezebert.files.errors import OptionError


def check_threads(threads: object) -> None:
    """Raise `OptionError` unless `threads` is None or a whole number from 1."""
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise OptionError(f"threads = {threads!r}: give a whole number from 1, or None for every core")
