"""One shard of a pretraining corpus, an Arrow file of token ids. `building.py` writes it, `rows.py` reads it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from squeezebert.data.pretraining.workers import Stretch
from squeezebert.files.errors import FolderError


def read_shard(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a shard's arrays, as views of the file.

    Its ids; where each document starts in them (documents + 1,); where sentences end, counted from their document's
    first token; which of these is the first of each document (documents + 1,); and the documents' digests. Raises
    `FolderError` for a file that is not a whole shard.
    """
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        ids, ends = (batch.column(name) for name in ("ids", "ends"))
        found = ids.values, ids.offsets, ends.values, ends.offsets, batch.column("digest")
        arrays = tuple(one.to_numpy() for one in found)
    except FileNotFoundError as error:
        raise FolderError(f"{path}: missing: repeat the `corpus` command that made the folder") from error
    except (pa.ArrowException, OSError, KeyError, IndexError) as error:
        raise FolderError(
            f"{path}: cut short or damaged ({str(error).splitlines()[0][:120]}): repeat the `corpus` command that "
            "made the folder, which makes it anew"
        ) from error
    return arrays


class ShardWriter:
    """The documents of one split that wait to be written."""

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.tokens = 0

    def add(self, made: Stretch, kept: np.ndarray) -> None:
        """Take the documents of a stretch that `kept` (documents,) says."""
        of_ids, of_ends = np.repeat(kept, made.tokens), np.repeat(kept, made.sentences)
        self.parts.append(
            (made.ids[of_ids], made.tokens[kept], made.ends[of_ends], made.sentences[kept], made.digests[kept])
        )
        self.tokens += int(made.tokens[kept].sum())

    def write(self, path: Path) -> dict[str, Any]:
        """Write the file, whole or not at all; return its name and counts."""
        ids, tokens, ends, sentences, digests = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        offsets = [np.concatenate([[0], counts.cumsum()]) for counts in (tokens, sentences)]
        batch = pa.record_batch(
            {
                "ids": pa.LargeListArray.from_arrays(pa.array(offsets[0]), pa.array(ids)),
                "ends": pa.LargeListArray.from_arrays(pa.array(offsets[1]), pa.array(ends)),
                "digest": pa.array(digests),
            }
        )
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as stream:
            with pa.ipc.new_file(stream, batch.schema) as writer:
                writer.write_batch(batch)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        counts = {"documents": len(tokens), "sentences": int(sentences.sum()), "tokens": int(tokens.sum())}
        return {"name": path.name, **counts, "bytes": path.stat().st_size, "sha256": file_digest(path)}


def file_digest(path: Path) -> str:
    """The file's SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
