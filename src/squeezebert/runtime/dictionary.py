"""Words with how often they occur, and those that are spelt like another. Serves `checking.py`. It needs no torch.

A dictionary's file has a line a word, the word in lower case, a tab and its count, the most frequent first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from squeezebert.files.errors import DependencyError, FolderError

DICTIONARY = "dictionary.tsv"
# No word is longer; what is, is looked for in no dictionary
_LONGEST = 40
# Nats that an edit costs against how often a word occurs: one of some hundred slips that can happen to a word. By
# `benchmarks/suggestions.py`, but no higher: the generator's errors are mostly of one edit, people's less often
COST_OF_EDIT = 7.0


class Dictionary:
    """Words in lower case with their counts. Safe to share between threads."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        """Take words and how often each occurs, 1 or more."""
        self.counts = dict(counts)
        self.total = sum(self.counts.values()) or 1
        self._by_length: dict[int, list[str]] = {}
        for word in self.counts:
            self._by_length.setdefault(len(word), []).append(word)

    def __len__(self) -> int:
        return len(self.counts)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and _plain(word) in self.counts

    @classmethod
    def open(cls, path: Path) -> Dictionary:
        """Read a dictionary's file. Raises `FolderError` for one that is not there or damaged.

        People edit it: words may have capitals, and lines may be empty.
        """
        counts: dict[str, int] = {}
        try:
            for line in path.read_text(encoding="utf-8-sig").splitlines():
                word, tab, count = line.partition("\t")
                if not line.strip():
                    continue
                if not tab or not word.strip() or not count.isascii() or not count.isdigit() or not int(count):
                    raise ValueError(f"{line[:40]!r} is no word with its count, from 1 on")
                counts[_plain(word)] = counts.get(_plain(word), 0) + int(count)
        except (OSError, ValueError) as error:
            raise FolderError(f"{path}: cannot be read as a dictionary ({error})") from error
        return cls(counts)

    def save(self, path: Path) -> None:
        """Write the dictionary's file."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        path.write_text("".join(f"{word}\t{count}\n" for word, count in ordered), encoding="utf-8")

    def near(self, word: str, edits: int = 2, count: int = 10) -> list[tuple[str, int]]:
        """Return the words that are likeliest to be meant, with how many edits each is away; `word` itself is not.

        An edit is a letter put in, left out or changed, or two neighbours exchanged (optimal string alignment). Words
        are ordered by the logarithm of their share of all words, less `COST_OF_EDIT` nats an edit. Raises
        `DependencyError` without rapidfuzz.
        """
        word = _plain(word)
        if not word or len(word) > _LONGEST:
            return []
        process, distance = _rapidfuzz()
        found = []
        for length in range(len(word) - edits, len(word) + edits + 1):
            choices = self._by_length.get(length, ())
            near = process.extract(word, choices, scorer=distance, score_cutoff=edits, limit=None)
            found += [(other, int(away)) for other, away, _ in near if away]
        found.sort(key=lambda one: (-self.log_share(one[0]) + COST_OF_EDIT * one[1], one[0]))
        return found[:count]

    def log_share(self, word: str) -> float:
        """Return the logarithm of a word's share of all words; of an unknown one, as if it occurred half a time."""
        return math.log(self.counts.get(_plain(word), 0.5) / self.total)


def count_words(words: Iterable[str], least: int, most: int) -> dict[str, int]:
    """Return the `most` frequent of words in lower case that occur `least` times or more, with their counts."""
    from collections import Counter

    counts = Counter(map(_plain, words))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {word: count for word, count in ordered[:most] if count >= least}


def edits_between(first: str, second: str) -> int:
    """Return how many edits two words are apart, in lower case. Raises `DependencyError` without rapidfuzz."""
    return int(_rapidfuzz()[1](_plain(first), _plain(second)))


def _plain(word: str) -> str:
    return word.lower().replace("\u2019", "'")


@functools.cache
def _rapidfuzz() -> tuple[Any, Callable[..., Any]]:
    try:
        from rapidfuzz import process
        from rapidfuzz.distance import OSA
    except ImportError as error:
        raise DependencyError(
            f"suggestions need rapidfuzz, which cannot be imported ({error}): pip install 'squeezebert[spelling]'"
        ) from error
    return process, OSA.distance
