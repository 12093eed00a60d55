"""Builds the corpus that pretraining reads: sources in, a tokenizer and shards of token ids out. Serves `corpus`.

Workers clean and tokenise stretches of documents; this process reads, drops copies, splits off held-out documents and
writes. What is written depends on the sources and options alone. A run that was cut off goes on behind its last
finished shard: what lies before is read again, but not cleaned and tokenised. `corpus.json` comes last: a folder that
has it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from squeezebert.data.corpus import content_hash, tokenizer_hash
from squeezebert.data.options import CorpusOptions
from squeezebert.data.pretraining.documents import copy_notices, held_out, read_documents, sampled, wrapped
from squeezebert.data.pretraining.shards import ShardWriter, file_digest, read_shard
from squeezebert.data.pretraining.vocabulary import check_specials, train_vocabulary
from squeezebert.data.pretraining.workers import clean_all, in_order, stretches, tokenise
from squeezebert.files.errors import FolderError, OptionError, TableError

MANIFEST = "corpus.json"
TOKENIZER = "tokenizer"
NOTICES = "notices"
SPLITS = ("train", "held_out")
_LOOKED_AT = 20  # documents that are looked at before anything is made of them
_JOURNAL = "building.json"
_FORMAT = 2  # 1 had other sentences
Report = Callable[[str], None]


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
    _check_places(sources, folder, options)
    # What is wrong is said at once
    some = [*islice(read_documents(sources, column=options.column, encoding=options.encoding), _LOOKED_AT)]
    if wrapped(some):
        report(
            "warning: most lines end inside a sentence, as if the text was wrapped. A line is read as a paragraph: "
            "put each paragraph on one line"
        )
    told = {name: value for name, value in asdict(options).items() if name not in ("workers", "overwrite")}
    wanted = json.loads(json.dumps({"format": _FORMAT, "content": [content_hash(one) for one in sources], **told}))
    there = _begin(folder, wanted, options.overwrite)
    try:
        finished = _checked(folder, there, report)
        if not there:
            _write_json(folder / _JOURNAL, {**wanted, "shards": []})  # whose the folder is, whatever happens next
        tokenizer = _tokenizer(sources, folder, options, there if finished else {}, report)
        if "splits" in there and len(finished) == len(there["shards"]):
            report(f"the corpus is there already: {folder}")
            return there
        (folder / MANIFEST).unlink(missing_ok=True)
        journal = {**wanted, "shards": finished, "tokenizer": tokenizer_hash(tokenizer)}
        _write_json(folder / _JOURNAL, journal)
        sizes = _write_shards(sources, folder, tokenizer, options, journal, report)
        manifest = {
            **journal,
            "sources": [Path(source).name or source for source in sources],
            "notices": copy_notices(sources, folder / NOTICES),
            "vocabulary_entries": len(tokenizer),
            "seconds": round(time.monotonic() - began, 1),
            **sizes,
        }
        _write_json(folder / MANIFEST, manifest)
        (folder / _JOURNAL).unlink()
        return manifest
    except OSError as error:
        for part in folder.glob(".*.part"):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
        raise FolderError(
            f"{folder}: {error.strerror or error}: finished shards stay; repeat the command to go on behind them"
        ) from error


def _check_places(sources: Sequence[str], folder: Path, options: CorpusOptions) -> None:
    """Raise `FolderError` for an output that holds what is read: replacing it would delete that."""
    output = folder.resolve()
    given = [("--text", source) for source in sources]
    given += [("--vocabulary", options.vocabulary)] if options.vocabulary is not None else []
    for option, name in given:
        place = Path(name).resolve()
        if Path(name).exists() and (place == output or output in place.parents):
            raise FolderError(f"--output {folder}: {option} {name} lies in it; choose another folder")


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
        if not isinstance(there, dict) or not isinstance(there.get("shards"), list) or "content" not in there:
            raise FolderError(f"{folder} holds a {name} that is not of this kind of corpus: choose another --output")
        differing = [key for key in wanted if there.get(key) != wanted[key]]
        if not differing:
            return dict(there)
        # A build that has no shard yet has nothing to lose, and binds nobody
        if there["shards"] and not overwrite:
            names = ", ".join("the text" if key == "content" else f"--{key.replace('_', '-')}" for key in differing)
            raise FolderError(
                f"{folder} holds a corpus that was made with other options or sources ({names}): choose another "
                "--output, or --overwrite it"
            )
        _clear(folder, there)
        break
    if folder.is_dir() and any(folder.iterdir()):
        raise FolderError(f"{folder} is not empty and holds no corpus: choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{folder}: cannot be made: {error.strerror}") from error
    return {}


def _clear(folder: Path, there: dict[str, Any]) -> None:
    """Delete what a build wrote, and nothing else. Raises `FolderError` when there is anything else."""
    own = {
        MANIFEST,
        _JOURNAL,
        TOKENIZER,
        NOTICES,
        *(file["name"] for shard in there["shards"] for file in shard["files"]),
    }
    names = [path.name for path in folder.iterdir()]
    other = [name for name in names if name not in own and not name.endswith((".part", ".arrow"))]
    if other:
        raise FolderError(
            f"{folder} holds {', '.join(sorted(other)[:3])} beside a corpus: move it away, or choose another --output"
        )
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _checked(folder: Path, there: dict[str, Any], report: Report) -> list[dict[str, Any]]:
    """The shards of a build up to the first that is not as it was written, by size and checksum."""
    whole: list[dict[str, Any]] = []
    for number, shard in enumerate(there.get("shards", [])):
        for file in shard["files"]:
            path = folder / file["name"]
            if not path.is_file() or path.stat().st_size != file["bytes"] or file_digest(path) != file["sha256"]:
                report(f"{path.name} is not as it was written: shards from number {number} on are made anew")
                return whole
        whole.append(shard)
    return whole


def _write_json(path: Path, told: Any) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(told, indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def _tokenizer(
    sources: Sequence[str], folder: Path, options: CorpusOptions, there: dict[str, Any], report: Report
) -> Any:
    """The tokenizer of the build: what is there, the one that was asked for, or one trained on the text.

    `there` says which one the finished shards were made with.
    """
    place = folder / TOKENIZER
    if place.is_dir():
        try:
            found = AutoTokenizer.from_pretrained(place)
            if not there or tokenizer_hash(found) == there.get("tokenizer"):
                return found
        except (OSError, ValueError):
            pass
        report("the tokenizer is not as it was written: it is made anew")
        shutil.rmtree(place)
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
        sample = folder / ".sample.part"
        _write_sample(sources, sample, folder, options, report)
        report(f"training a vocabulary of {options.vocabulary_size} entries on {sample.stat().st_size / 1e6:.1f} MB")
        made = train_vocabulary(lambda: _lines(sample), options.vocabulary_size, lowercase=options.lowercase)
        sample.unlink()
    made.save_pretrained(building)
    building.rename(place)
    found = AutoTokenizer.from_pretrained(place)
    if there and tokenizer_hash(found) != there.get("tokenizer"):
        raise FolderError(
            f"{place}: the tokenizer of the finished shards is gone and cannot be made again: --overwrite the corpus"
        )
    return found


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield line.rstrip("\n")


def _write_sample(sources: Sequence[str], path: Path, folder: Path, options: CorpusOptions, report: Report) -> None:
    """Write an even sample of the documents to train on, as large as a vocabulary needs, a paragraph a line."""
    wanted = options.vocabulary_megabytes * 1e6
    # Compressed text is about a quarter; a source that is no file has no size, and is read from its start
    sizes = [
        file.stat().st_size * (4 if file.suffix.lower() in (".bz2", ".gz") else 1)
        for source in sources
        for file in (Path(source).iterdir() if Path(source).is_dir() else [Path(source)])
        if file.is_file()
    ]
    share = min(1.0, 1.2 * wanted / max(sum(sizes), 1))
    raws = read_documents(sources, column=options.column, encoding=options.encoding)
    chosen = (raw for raw in raws if sampled(raw, share, options.seed))
    written, began = 0, time.monotonic()
    said = began
    with path.open("w", encoding="utf-8") as stream:
        for documents in in_order(clean_all, stretches(chosen), options.workers, (options.shortest,)):
            for document in documents:
                if written < wanted and not held_out(document.digest, options.held_out, options.seed):
                    text = "\n".join(document.paragraphs) + "\n"
                    written += len(text)
                    stream.write(text)
            if written >= wanted:
                break
            now = time.monotonic()
            if now - said > 10:
                said = now
                report(f"read {written / 1e6:.0f} MB for the vocabulary")


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
    counts = dict(shards[-1]["left_out"]) if shards else {"copies": 0, "too_short": 0, "unreadable": 0}
    seen = {int(d) for shard in shards for file in shard["files"] for d in read_shard(folder / file["name"])[-1]}
    raws = read_documents(sources, column=options.column, encoding=options.encoding)
    lots = islice(stretches(raws), done, None)
    held = {split: ShardWriter() for split in SPLITS}
    if done:
        report(f"going on behind shard {len(shards)}")
    began = said = time.monotonic()
    tokens = 0

    def flush() -> None:
        files = []
        for split, shard in held.items():
            if shard.tokens:
                files.append({"split": split, **shard.write(folder / f"{split}-{len(shards):05d}.arrow")})
            held[split] = ShardWriter()
        if files:
            shards.append({"files": files, "stretches": done, "left_out": dict(counts)})
            _write_json(folder / _JOURNAL, journal)

    setting = options.shortest, str(folder / TOKENIZER)
    for made in in_order(tokenise, lots, options.workers, setting):
        done += 1
        fresh = np.zeros(len(made.digests), dtype=bool)
        for place, digest in enumerate(made.digests.tolist()):
            fresh[place] = digest not in seen
            seen.add(digest)
        counts["copies"] += int((~fresh).sum())
        counts["too_short"] += made.short
        for name in made.unreadable:
            counts["unreadable"] += 1
            if counts["unreadable"] <= 5:
                report(f"left out, its markup cannot be taken apart: {name}")
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
    try:
        _check_split(sizes, counts, options)
    except TableError:
        _clear(folder, journal)  # or what is given instead would be refused as another text
        raise
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
