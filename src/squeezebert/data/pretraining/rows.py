"""Tokenised shards in, full rows of tokens out: where each starts and how long it is. Serves `batches.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from squeezebert.data.pretraining.shards import MANIFEST, TOKENIZER, read_shard
from squeezebert.files.errors import FolderError, OptionError

SHORTEST_ROW = 16
"""Tokens of the shortest row: what is left of a document below that is passed over."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """The documents of one split, in memory-mapped shards."""

    ids: list[np.ndarray]
    """Token ids of each shard's documents, one after the other."""
    starts: list[np.ndarray]
    """Of each shard, where documents start, and the end, (documents + 1,)."""
    ends: list[np.ndarray]
    """Of each shard, where sentences end, rising, (sentences,)."""


@dataclass(frozen=True)
class PretrainingCorpus:
    """A folder that `build_corpus` completed."""

    folder: Path
    """Where it is; `tokenizer` in it is the tokenizer that made it."""
    manifest: dict[str, Any]
    """How it was made, and how much there is."""

    @classmethod
    def open(cls, folder: Path) -> PretrainingCorpus:
        """Open a folder. Raises `FolderError` when it is none, incomplete, or a shard's size is not what it was."""
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
        except (OSError, ValueError, KeyError) as error:
            raise FolderError(f"{folder / MANIFEST}: damaged: repeat the `corpus` command: {error}") from error
        for file in files:
            path = folder / file["name"]
            size = path.stat().st_size if path.is_file() else None
            if size != file["bytes"]:
                there = "missing" if size is None else f"{size} bytes long instead of {file['bytes']}, cut short"
                raise FolderError(f"{path}: {there}: repeat the `corpus` command, which makes it anew")
        return cls(folder, manifest)

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer."""
        return self.folder / TOKENIZER

    def split(self, name: str) -> Tokens:
        """Map the shards of a split. Raises `FolderError` for one that is damaged."""
        names = [file["name"] for shard in self.manifest["shards"] for file in shard["files"] if file["split"] == name]
        read = [read_shard(self.folder / one) for one in names]
        return Tokens(*([shard[part] for shard in read] for part in range(3)))


@dataclass(frozen=True, eq=False)
class Rows:
    """Where rows lie in the shards of a split; a row is one stretch of one document."""

    tokens: Tokens
    """The shards."""
    shard: np.ndarray
    """Number of each row's shard, (rows,) of int32."""
    start: np.ndarray
    """First token of each row in its shard, (rows,) of int64."""
    length: np.ndarray
    """Tokens of each row, (rows,) of int32."""

    @classmethod
    def cut(cls, tokens: Tokens, room: int) -> Rows:
        """Cut each document into rows of `room` tokens and a rest; a rest below `SHORTEST_ROW` is passed over.

        A row runs over the ends of sentences and of paragraphs, so that it is full; it never leaves its document.
        """
        if room < SHORTEST_ROW:
            raise OptionError(f"rows of {room} tokens are too short: raise --max-length")
        found: list[Sequence[np.ndarray]] = []
        for number, starts in enumerate(tokens.starts):
            sizes = np.diff(starts)
            counts = sizes // room + (sizes % room >= SHORTEST_ROW)
            document = np.repeat(np.arange(len(sizes)), counts)
            place = np.arange(len(document)) - np.repeat(counts.cumsum() - counts, counts)
            start = starts[document] + place * room
            length = np.minimum(sizes[document] - place * room, room)
            found.append((np.full(len(start), number, np.int32), start.astype(np.int64), length.astype(np.int32)))
        if not sum(len(one[0]) for one in found):
            raise OptionError(f"no document has a row of {SHORTEST_ROW} tokens: the corpus is too small")
        shard, start, length = (np.concatenate(part) for part in zip(*found, strict=True))
        return cls(tokens, shard, start, length)

    def __len__(self) -> int:
        return len(self.shard)

    @cached_property
    def total(self) -> int:
        """Tokens of all rows together, special ones not counted."""
        return int(self.length.sum(dtype=np.int64))

    def ids(self, row: int) -> np.ndarray:
        """Return a row's token ids, (length,)."""
        start = self.start[row]
        found: np.ndarray = self.tokens.ids[self.shard[row]][start : start + self.length[row]]
        return found

    def boundaries(self, row: int, least: int) -> np.ndarray:
        """Return where sentences end inside a row, with at least so many tokens on both sides, from its start."""
        ends, start = self.tokens.ends[self.shard[row]], self.start[row]
        first = np.searchsorted(ends, start + least, side="left")
        last = np.searchsorted(ends, start + self.length[row] - least, side="right")
        found: np.ndarray = ends[first:last] - start
        return found
