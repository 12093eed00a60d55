"""Arguments that have to be whole numbers. Serves every room that takes some."""

from __future__ import annotations

from squeezebert.files.errors import OptionError


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Raise `OptionError`, naming the argument, unless a value is a whole number from `least`; True is none."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise OptionError(f"{name} {value!r}: give a whole number from {least}")
