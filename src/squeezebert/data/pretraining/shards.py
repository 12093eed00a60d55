"""Cleaned documents and a tokenizer in, memory-mapped Arrow shards of token ids out. Serves `rows.py` and `corpus`.

Workers clean and tokenise stretches of documents; this process reads, drops copies, splits off held-out documents and
writes. What is written depends on the sources and options alone, and a run that was cut off goes on behind its last
finished shard. `corpus.json` comes last: a folder that has it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer

from squeezebert.data.corpus import content_hash, tokenizer_hash
from squeezebert.data.options import CorpusOptions
from squeezebert.data.packing import split_sentences
from squeezebert.data.pretraining.documents import (
    CleanDocument,
    RawDocument,
    clean,
    copy_notices,
    held_out,
    read_documents,
)
from squeezebert.data.pretraining.vocabulary import check_specials, train_vocabulary
from squeezebert.files.errors import FolderError, OptionError, TableError

MANIFEST = "corpus.json"
TOKENIZER = "tokenizer"
NOTICES = "notices"
SPLITS = ("train", "held_out")
_JOURNAL = "building.json"
_FORMAT = 1
_STRETCH = 1_000_000  # characters a worker is given at once
Report = Callable[[str], None]


@dataclass(frozen=True)
class Stretch:
    """What a worker made of some documents, in their order."""

    digests: np.ndarray
    """Of each document that was kept, (documents,) of uint64."""
    tokens: np.ndarray
    """How many tokens each has, (documents,) of int64."""
    sentences: np.ndarray
    """How many sentences each has, (documents,) of int64."""
    ids: np.ndarray
    """All token ids, one document after the other."""
    ends: np.ndarray
    """Where each sentence ends, counted from its document's first token, (sentences,) of int32."""
    short: int
    """Documents that were left out because they are too short."""


def build_corpus(
    sources: Sequence[str], folder: Path, options: CorpusOptions, report: Report = lambda line: None
) -> dict[str, Any]:
    """Tokenise sources into `folder` and return its manifest; what is there of the same build is not made again.

    The folder gets the tokenizer, shards of both splits, copies of attribution and licence files, and `corpus.json`.
    With another source, vocabulary or option than what the folder was begun with, it is refused.

    Raises:
        TableError: what `read_documents` raises; no document is long enough; or all documents fall on one side.
        OptionError: a vocabulary that lacks special tokens, or cannot be trained.
        FolderError: `folder` holds something else, another build, or cannot be written, as on a full disk.
    """
    began = time.monotonic()
    told = {name: value for name, value in asdict(options).items() if name not in ("workers", "overwrite")}
    wanted = json.loads(json.dumps({"format": _FORMAT, "content": [content_hash(one) for one in sources], **told}))
    there = _begin(folder, wanted, options.overwrite)
    try:
        finished = _checked(folder, there)
        if "splits" in there and len(finished) == len(there["shards"]):
            report(f"the corpus is there already: {folder}")
            return there
        (folder / MANIFEST).unlink(missing_ok=True)
        journal = {**wanted, "shards": finished}
        _write_json(folder / _JOURNAL, journal)
        tokenizer = _tokenizer(sources, folder, options, report)
        sizes = _write_shards(sources, folder, tokenizer, options, journal, report)
        manifest = {
            **journal,
            "sources": [Path(source).name or source for source in sources],
            "notices": copy_notices(sources, folder / NOTICES),
            "tokenizer": tokenizer_hash(tokenizer),
            "vocabulary_entries": len(tokenizer),
            "seconds": round(time.monotonic() - began, 1),
            **sizes,
        }
        _write_json(folder / MANIFEST, manifest)
        (folder / _JOURNAL).unlink()
        return manifest
    except OSError as error:
        for part in folder.glob(".*.part"):
            part.unlink(missing_ok=True)
        raise FolderError(
            f"{folder}: {error.strerror or error}: finished shards stay; repeat the command to go on behind them"
        ) from error


def read_shard(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the ids, where each document starts (documents + 1,), the sentence ends counted from the shard's first
    token, and the digests of a shard, as views of the file.

    Raises `FolderError` for a file that is not a whole shard.
    """
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        ids, ends = (batch.column(name) for name in ("ids", "ends"))
        starts = ids.offsets.to_numpy()
        of_ends = ends.offsets.to_numpy()
        absolute = ends.values.to_numpy() + np.repeat(starts[:-1], np.diff(of_ends))
        return ids.values.to_numpy(), starts, absolute, batch.column("digest").to_numpy()
    except FileNotFoundError as error:
        raise FolderError(f"{path}: missing: repeat the `corpus` command that made the folder") from error
    except (pa.ArrowException, OSError, KeyError, IndexError) as error:
        raise FolderError(
            f"{path}: cut short or damaged ({str(error).splitlines()[0][:120]}): repeat the `corpus` command that "
            "made the folder, which makes it anew"
        ) from error


# --- the folder -----------------------------------------------------------------------------------------


def _begin(folder: Path, wanted: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Return what is known of a build in `folder`: its manifest, its journal, or nothing yet."""
    if folder.is_file():
        raise FolderError(f"{folder} is a file; --output takes a folder")
    for name in (MANIFEST, _JOURNAL):
        try:
            there = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise FolderError(f"{folder / name}: damaged ({error}): delete the folder and begin again") from error
        differing = [key for key in wanted if there.get(key) != wanted[key]]
        if not differing:
            return dict(there)
        if not overwrite:
            names = ", ".join("the text" if key == "content" else f"--{key.replace('_', '-')}" for key in differing)
            raise FolderError(
                f"{folder} holds a corpus that was made with other options or sources ({names}): choose another "
                "--output, or --overwrite it"
            )
        shutil.rmtree(folder)
        break
    if folder.is_dir() and any(folder.iterdir()):
        raise FolderError(f"{folder} is not empty and holds no corpus: choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{folder}: cannot be made: {error.strerror}") from error
    return {}


def _checked(folder: Path, there: dict[str, Any]) -> list[dict[str, Any]]:
    """The shards of a build up to the first that is not as it was written."""
    whole = []
    for shard in there.get("shards", []):
        sizes = [
            (folder / file["name"]).stat().st_size if (folder / file["name"]).is_file() else -1
            for file in shard["files"]
        ]
        if sizes != [file["bytes"] for file in shard["files"]]:
            break
        whole.append(shard)
    return whole


def _write_json(path: Path, told: Any) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(told, indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def _tokenizer(sources: Sequence[str], folder: Path, options: CorpusOptions, report: Report) -> Any:
    """The tokenizer of the build: what is there, the one that was asked for, or one trained on the text."""
    place = folder / TOKENIZER
    if not place.is_dir():
        building = folder / f".{TOKENIZER}.part"
        shutil.rmtree(building, ignore_errors=True)
        if options.vocabulary is not None:
            try:
                made = AutoTokenizer.from_pretrained(options.vocabulary)
            except (OSError, ValueError) as error:
                raise OptionError(
                    f"--vocabulary {options.vocabulary}: no tokenizer there; it takes a folder with a tokenizer.json, "
                    "or an id of the Hugging Face Hub, which has to be reachable"
                ) from error
            check_specials(made, options.vocabulary)
        else:
            report(f"training a vocabulary of {options.vocabulary_size} entries")
            made = train_vocabulary(
                lambda: _sample(sources, options), options.vocabulary_size, lowercase=options.lowercase
            )
        made.save_pretrained(building)
        building.rename(place)
    return AutoTokenizer.from_pretrained(place)


def _sample(sources: Sequence[str], options: CorpusOptions) -> Iterator[CleanDocument]:
    """An even sample of the documents to train on, as large as a vocabulary needs."""
    sizes = [path.stat().st_size for source in sources for path in _files(Path(source))]
    share = min(1.0, options.vocabulary_megabytes * 1e6 / max(sum(sizes), 1))
    for raw in read_documents(sources, column=options.column, encoding=options.encoding):
        found = clean(raw, options.shortest)
        if found is None or held_out(found.digest, options.held_out, options.seed):
            continue
        if share == 1 or held_out(found.digest, share, options.seed + 1):
            yield found


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path] * path.is_file()


# --- tokenising -----------------------------------------------------------------------------------------

_WORKER: dict[str, Any] = {}


def _start_worker(place: str, shortest: int) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are the parallelism
    _WORKER.update(tokenizer=AutoTokenizer.from_pretrained(place), shortest=shortest)


def _tokenise(documents: list[RawDocument]) -> Stretch:
    """Clean and tokenise documents; called in a worker."""
    tokenizer = _WORKER["tokenizer"]
    cleaned = [clean(raw, _WORKER["shortest"]) for raw in documents]
    kept = [one for one in cleaned if one is not None]
    sentences = [[part for text in one.paragraphs for part in split_sentences(text)] for one in kept]
    flat = [part for parts in sentences for part in parts]
    plain = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    encoded = tokenizer(flat, verbose=False, **plain)["input_ids"] if flat else []
    lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
    counts = np.array([len(parts) for parts in sentences], dtype=np.int64)
    edges = np.concatenate([[0], counts.cumsum()])
    total = np.concatenate([[0], lengths.cumsum()])
    starts = total[edges[:-1]]
    kind = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    return Stretch(
        digests=np.array([one.digest for one in kept], dtype=np.uint64),
        tokens=total[edges[1:]] - starts,
        sentences=counts,
        ids=np.fromiter((token for ids in encoded for token in ids), dtype=kind, count=int(total[-1])),
        ends=(total[1:] - np.repeat(starts, counts)).astype(np.int32),
        short=len(cleaned) - len(kept),
    )


def _stretches(documents: Iterator[RawDocument]) -> Iterator[list[RawDocument]]:
    """Documents in lots of about as many characters."""
    lot: list[RawDocument] = []
    size = 0
    for document in documents:
        lot.append(document)
        size += len(document.text)
        if size >= _STRETCH:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot


def _in_order(lots: Iterator[list[RawDocument]], place: Path, options: CorpusOptions) -> Iterator[Stretch]:
    """What workers make of each lot, in the order of the lots; a few lots are under way at a time."""
    told = (str(place), options.shortest)
    if options.workers == 1:
        _start_worker(*told)
        yield from map(_tokenise, lots)
        return
    context = get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(options.workers, context, initializer=_start_worker, initargs=told) as pool:
        waiting: deque[Future[Stretch]] = deque(
            pool.submit(_tokenise, lot) for lot in islice(lots, 2 * options.workers)
        )
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(pool.submit(_tokenise, lot) for lot in islice(lots, 1))
                yield made
        except BrokenProcessPool as error:
            raise FolderError(
                "a worker was killed, most likely for want of memory: repeat the command with fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


class _Shard:
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
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        counts = {"documents": len(tokens), "sentences": int(sentences.sum()), "tokens": int(tokens.sum())}
        return {"name": path.name, **counts, "bytes": path.stat().st_size, "sha256": digest}


def _write_shards(
    sources: Sequence[str],
    folder: Path,
    tokenizer: Any,
    options: CorpusOptions,
    journal: dict[str, Any],
    report: Report,
) -> dict[str, Any]:
    """Write the shards that are not there yet, noting each in the journal; return the counts of the whole corpus."""
    shards: list[dict[str, Any]] = journal["shards"]
    done = shards[-1]["stretches"] if shards else 0
    counts = dict(shards[-1]["left_out"]) if shards else {"copies": 0, "too_short": 0}
    seen = {int(d) for shard in shards for file in shard["files"] for d in read_shard(folder / file["name"])[3]}
    raws = read_documents(sources, column=options.column, encoding=options.encoding)
    lots = islice(_stretches(raws), done, None)
    held = {split: _Shard() for split in SPLITS}
    if done:
        report(f"going on behind shard {len(shards)}")
    began = said = time.monotonic()
    tokens = 0

    def flush() -> None:
        files = []
        for split, shard in held.items():
            if shard.tokens:
                files.append({"split": split, **shard.write(folder / f"{split}-{len(shards):05d}.arrow")})
            held[split] = _Shard()
        if files:
            shards.append({"files": files, "stretches": done, "left_out": dict(counts)})
            _write_json(folder / _JOURNAL, journal)

    for made in _in_order(lots, folder / TOKENIZER, options):
        done += 1
        fresh = np.zeros(len(made.digests), dtype=bool)
        for place, digest in enumerate(made.digests.tolist()):
            fresh[place] = digest not in seen
            seen.add(digest)
        counts["copies"] += int((~fresh).sum())
        counts["too_short"] += made.short
        out = np.array([held_out(d, options.held_out, options.seed) for d in made.digests.tolist()], dtype=bool)
        held["train"].add(made, fresh & ~out)
        held["held_out"].add(made, fresh & out)
        tokens += len(made.ids)
        now = time.monotonic()
        if now - said > 10:
            said = now
            report(f"tokenised {tokens} tokens, {tokens / (now - began):.0f} a second")
        if sum(shard.tokens for shard in held.values()) >= options.shard_tokens:
            flush()
    flush()
    report(f"tokenised {tokens} tokens, {tokens / max(time.monotonic() - began, 1e-9):.0f} a second")
    sizes = {
        split: {
            kind: sum(file[kind] for shard in shards for file in shard["files"] if file["split"] == split)
            for kind in ("documents", "sentences", "tokens")
        }
        for split in SPLITS
    }
    _check_split(sizes, counts, options)
    return {"splits": sizes, "left_out": counts, "tokens_a_second": round(tokens / (time.monotonic() - began))}


def _check_split(sizes: dict[str, dict[str, int]], counts: dict[str, int], options: CorpusOptions) -> None:
    if not any(size["documents"] for size in sizes.values()):
        raise TableError(
            f"no document has {options.shortest} words or more ({counts['too_short']} are shorter): give more text, "
            "or lower --shortest"
        )
    for split, size in sizes.items():
        if not size["documents"]:
            total = sum(one["documents"] for one in sizes.values())
            raise TableError(
                f"all {total} documents fall on one side, none on the {split.replace('_', '-')} one: documents are "
                "separated by blank lines (a whole file without any is one document); give more documents, or another "
                "--held-out or --seed"
            )
