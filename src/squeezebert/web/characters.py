"""A BERT tokenizer in, what it makes of every character out, as a table that the page reads text with.

The tokenizers of browsers follow the browser's own Unicode tables and differ from ours on some ten thousand
characters. A table asked of ours leaves nothing to differ. Serves `site.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from squeezebert.files.errors import FolderError

_SURROGATES = range(0xD800, 0xE000)
# Planes 4 to 13, in which Unicode has nothing: every tokenizer leaves them as they are
_EMPTY = range(0x40000, 0xE0000)
# Hangul syllables come apart by a formula that every browser has: the table need not list them
_HANGUL = range(0xAC00, 0xD7A4)
# Characters that are asked about at a time: most blocks of so many hold nothing that changes
_MANY = 256
# Stays as it is and alone under every BERT tokenizer; answers about several characters are told apart by it
_MARK = "|"

Ranges = list[list[int]]


def character_table(path: Path) -> dict[str, Any] | None:
    """Return what the tokenizer at `path` makes of each character, or None where it is not BERT's kind.

    BERT's normaliser and splitter look at one character at a time, so that a table says all. Its fields, as lists of
    [first, last] code points: `dropped`, `blank` (a space instead), `apart` (spaces around), `decomposed` (Unicode's
    NFD), and of what the normaliser leaves, `gaps` between words and characters `alone`; `mapped` lists characters
    with what they become, all others stay. Raises `FolderError` for a file that cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        backend: Any = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare `Exception`
        raise FolderError(f"{path}: cannot be read as a tokenizer ({error})") from error
    normalizer, splitter = backend.normalizer, backend.pre_tokenizer
    if type(normalizer).__name__ != "BertNormalizer" or type(splitter).__name__ != "BertPreTokenizer":
        return None
    kinds: dict[str, list[int]] = {name: [] for name in ("dropped", "blank", "apart", "decomposed", "gaps", "alone")}
    mapped: list[list[str]] = []
    for character, normal in _normalised(normalizer):
        place = ord(character)
        if place in _HANGUL:
            kinds["decomposed"].append(place)
        elif normal in ("", " "):
            kinds["blank" if normal else "dropped"].append(place)
        elif normal == f" {character} ":
            kinds["apart"].append(place)
        else:
            mapped.append([character, normal])
    for character, pieces in _split(splitter):
        kinds["gaps" if pieces == 2 else "alone"].append(ord(character))
    return {name: _ranges(found) for name, found in kinds.items()} | {"mapped": mapped}


def _blocks() -> Iterator[list[str]]:
    """Every character but the mark, many at a time."""
    places = chain(
        range(_SURROGATES.start), range(_SURROGATES.stop, _EMPTY.start), range(_EMPTY.stop, sys.maxunicode + 1)
    )
    everything = [character for character in map(chr, places) if character != _MARK]
    for start in range(0, len(everything), _MANY):
        yield everything[start : start + _MANY]


def _normalised(normalizer: Any) -> Iterator[tuple[str, str]]:
    """Each character that changes, and what it becomes."""
    for block in _blocks():
        together = "".join(block)
        if normalizer.normalize_str(together) == together:
            continue
        # A letter on each side keeps marks from being put in another order across the joints
        answers = normalizer.normalize_str("".join(f"{_MARK}x{character}x" for character in block)).split(_MARK)
        for character, answer in zip(block, answers[1:], strict=True):
            if answer != f"x{character}x":
                yield character, answer[1:-1]


def _split(splitter: Any) -> Iterator[tuple[str, int]]:
    """Each character at which words end, and in how many pieces a word falls around it: 2 without it, 3 with it."""
    for block in _blocks():
        if len(splitter.pre_tokenize_str("".join(["x", *block, "x"]))) == 1:
            continue
        pieces = splitter.pre_tokenize_str("".join(f"{_MARK}x{character}x" for character in block))
        counts: list[int] = []
        for piece, _ in pieces:
            if piece == _MARK:
                counts.append(0)
            else:
                counts[-1] += 1
        yield from ((character, count) for character, count in zip(block, counts, strict=True) if count != 1)
    yield _MARK, 3


def _ranges(places: Iterable[int]) -> Ranges:
    """Code points in any order as runs [first, last]."""
    runs: Ranges = []
    for place in sorted(places):
        if runs and runs[-1][1] == place - 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return runs
