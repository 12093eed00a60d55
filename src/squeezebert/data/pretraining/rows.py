"""Tokenised shards in, rows of whole sentences out: where each starts and how long it is. Serves `batches.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from squeezebert.data.corpus import tokenizer_hash
from squeezebert.data.pretraining.building import MANIFEST, TOKENIZER
from squeezebert.data.pretraining.shards import file_digest, read_shard
from squeezebert.files.errors import FolderError, OptionError

SHORTEST_ROW = 16
"""Tokens of the shortest row: what is left of a document below that is passed over."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Documents of one split, memory-mapped."""

    ids: np.ndarray
    """Their token ids, one after the other."""
    starts: np.ndarray
    """Where documents start in them, and the end, (documents + 1,)."""
    ends: np.ndarray
    """Where sentences end, counted from their document's first token, (sentences,)."""
    firsts: np.ndarray
    """Which of these is the first of each document, and their number, (documents + 1,)."""


@dataclass(frozen=True)
class PretrainingCorpus:
    """A folder that `build_corpus` completed."""

    folder: Path
    """Where it is; `tokenizer` in it is the tokenizer that made it."""
    manifest: dict[str, Any]
    """How it was made, and how much there is."""

    @classmethod
    def open(cls, folder: Path) -> PretrainingCorpus:
        """Open a folder. Raises `FolderError` when it is none, incomplete, or not as it was written, by sizes."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            files = [file for shard in manifest["shards"] for file in shard["files"]]
            manifest["splits"]
        except FileNotFoundError as error:
            begun = any(folder.glob("*.arrow")) if folder.is_dir() else False
            told = "a corpus that is not finished: repeat its command"
            raise FolderError(
                f"{folder}: {told if begun else 'no corpus there: make one with `squeezebert corpus`'}"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(
                f"{folder / MANIFEST}: damaged, or of another kind of corpus: repeat the `corpus` command ({error})"
            ) from error
        for file in files:
            path = folder / file["name"]
            size = path.stat().st_size if path.is_file() else None
            if size != file["bytes"]:
                there = "missing" if size is None else f"{size} bytes long instead of {file['bytes']}, cut short"
                raise FolderError(f"{path}: {there}: repeat the `corpus` command, which makes it anew")
        return cls(folder, manifest)

    def tokenizer(self) -> Any:
        """Load the tokenizer. Raises `FolderError` when it is not the one that made the shards."""
        place = self.folder / TOKENIZER
        try:
            found = AutoTokenizer.from_pretrained(place) if place.is_dir() else None
        except (OSError, ValueError):
            found = None
        if found is None or tokenizer_hash(found) != self.manifest["tokenizer"]:
            raise FolderError(f"{place}: not the tokenizer that made the corpus: repeat the `corpus` command")
        return found

    def split(self, name: str) -> list[Shard]:
        """Map the shards of a split. Raises `FolderError` for one that is damaged."""
        names = [file["name"] for shard in self.manifest["shards"] for file in shard["files"] if file["split"] == name]
        return [Shard(*read_shard(self.folder / one)[:4]) for one in names]

    def check_shards(self) -> None:
        """Raise `FolderError` for a shard that is not as it was written, by its checksum."""
        for shard in self.manifest["shards"]:
            for file in shard["files"]:
                path = self.folder / file["name"]
                if file_digest(path) != file["sha256"]:
                    raise FolderError(f"{path}: damaged: repeat the `corpus` command, which makes it anew")


@dataclass(frozen=True, eq=False)
class Rows:
    """Where rows lie in the shards of a split; a row is a stretch of one document."""

    shards: list[Shard]
    """The shards."""
    shard: np.ndarray
    """Number of each row's shard, (rows,)."""
    start: np.ndarray
    """First token of each row in its shard, (rows,)."""
    length: np.ndarray
    """Tokens of each row, (rows,)."""
    sentence: np.ndarray
    """First sentence of each row in its shard, (rows,)."""
    sentences: np.ndarray
    """How many whole sentences a row is made of, (rows,); 0 where it begins or ends inside one that no row holds."""

    @classmethod
    def cut(cls, shards: list[Shard], room: int) -> Rows:
        """Cut each document into rows of as many whole sentences as `room` tokens hold.

        A sentence that is longer is cut into pieces. What is left of a document or sentence below `SHORTEST_ROW`
        tokens is passed over.
        """
        if room < SHORTEST_ROW:
            raise OptionError(f"rows of {room} tokens are too short: raise --max-length")
        found: list[list[np.ndarray]] = [[] for _ in range(5)]
        for number, shard in enumerate(shards):
            for start, length, sentence, sentences in _cut(shard, room):
                kept = length >= SHORTEST_ROW
                parts = (np.full(int(kept.sum()), number), start[kept], length[kept], sentence[kept], sentences[kept])
                for column, part in zip(found, parts, strict=True):
                    column.append(part.astype(np.int32))
        if not sum(map(len, found[0])):
            raise OptionError(f"no document has a row of {SHORTEST_ROW} tokens: the corpus is too small")
        shard_of, starts, lengths, firsts, counts = (np.concatenate(column) for column in found)
        order = np.lexsort((starts, shard_of))
        return cls(shards, *(column[order] for column in (shard_of, starts, lengths, firsts, counts)))

    def __len__(self) -> int:
        return len(self.shard)

    @cached_property
    def total(self) -> int:
        """Tokens of all rows together, special ones not counted."""
        return int(self.length.sum(dtype=np.int64))

    def ids(self, row: int) -> np.ndarray:
        """Return a row's token ids, (length,)."""
        start = self.start[row]
        found: np.ndarray = self.shards[self.shard[row]].ids[start : start + self.length[row]]
        return found

    def boundaries(self, row: int, least: int) -> np.ndarray:
        """Return where sentences end inside a row, with at least so many tokens on both sides, from its start."""
        first, count = self.sentence[row], self.sentences[row]
        if count < 2:
            return np.empty(0, dtype=np.int64)
        ends = self.shards[self.shard[row]].ends[first : first + count].astype(np.int64)
        places = ends[:-1] - (ends[-1] - self.length[row])
        found: np.ndarray = places[(places >= least) & (places <= self.length[row] - least)]
        return found


def _cut(shard: Shard, room: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield rows of a shard, one of every document at a time: start, length, first sentence, sentences.

    Every other document is cut from its end. The last sentence of a row is one that had room, and the first of the
    next one that had not: long ones come first. With all documents cut from their beginning, the longer of two
    segments would more often be the first.
    """
    # Sentence ends counted from the shard's first token rise over all documents
    counts = np.diff(shard.firsts)
    ends = shard.ends + np.repeat(shard.starts[:-1], counts)
    forward, backward = (np.arange(len(counts)) % 2 == side for side in (0, 1))
    yield from _cut_forward(
        ends, shard.starts[:-1][forward], shard.firsts[:-1][forward], shard.firsts[1:][forward], room
    )
    # From their ends: the same in a mirror, where tokens and sentences are counted from the shard's last one
    total, sentences = int(shard.starts[-1]), len(ends)
    begins = np.append(shard.starts[0], ends[:-1])
    mirrored = _cut_forward(
        (total - begins)[::-1],
        total - shard.starts[1:][backward],
        sentences - shard.firsts[1:][backward],
        sentences - shard.firsts[:-1][backward],
        room,
    )
    for start, length, sentence, number in mirrored:
        yield total - start - length, length, sentences - sentence - np.maximum(number, 1), number


def _cut_forward(
    ends: np.ndarray, position: np.ndarray, sentence: np.ndarray, last: np.ndarray, room: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The same for documents that begin at `position` with `sentence` and end before the sentence `last`."""
    position, sentence, last = (array.astype(np.int64) for array in (position, sentence, last))
    inside = np.zeros(len(position), dtype=bool)  # whether the next row begins inside a sentence
    while len(position):
        going = sentence < last
        position, sentence, last, inside = position[going], sentence[going], last[going], inside[going]
        # The first sentence that does not fit any more, but of this document
        stop = np.minimum(np.searchsorted(ends, position + room, side="right"), last)
        whole = stop > sentence
        if whole.any():
            first, behind = sentence[whole], stop[whole]
            end = ends[behind - 1]
            yield position[whole], end - position[whole], first, np.where(inside[whole], 0, behind - first)
            position[whole], sentence[whole], inside[whole] = end, behind, False
        if not whole.all():
            # No row holds the sentence: it gives pieces, up to its end
            end = np.minimum(position[~whole] + room, ends[sentence[~whole]])
            begin, at = position[~whole].copy(), sentence[~whole].copy()
            yield begin, end - begin, at, np.zeros(len(at), dtype=np.int64)
            position[~whole] = end
            sentence[~whole] = at + (end == ends[at])
            inside[~whole] = end != ends[at]
