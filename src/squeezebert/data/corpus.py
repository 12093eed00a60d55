"""Unlabelled text in, token sequences out: tokenised once and kept as memory-mapped arrays.

Serves general distillation and calibration; `packing.py` makes the sequences. A folder that `tokenise_corpus` wrote is
complete or not there at all.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from squeezebert.data.options import DataOptions
from squeezebert.data.packing import SHORTEST, Packer, split_sentences
from squeezebert.data.reading import read_examples
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError, OptionError, TableError
from squeezebert.files.lines import Lines, open_bytes

MANIFEST = "corpus.json"
TOKENIZER = "tokenizer"
FORMAT = 1
_BATCH = 4096  # texts a call of the tokenizer
_ONE_TEXT = 100_000  # bytes of a .txt file that is no message or review, but running text

Report = Callable[[str], None]
Source = str | Path | Sequence[str | Path]


class CorpusText(NamedTuple):
    """One paragraph of running text, or one row of a table."""

    text: str
    """The text, not empty."""
    text_pair: str | None
    """The second text, where the table holds pairs."""
    document: int
    """Number of the document, from 0; each row of a table is its own."""
    running: bool
    """Whether it is a paragraph, that may be joined with its neighbours, and not a text of its own."""


def read_texts(source: Source, *, text: str | None = None, encoding: str = "utf-8") -> Iterator[CorpusText]:
    """Stream the texts of a corpus or of a table, or of several one after the other.

    A `.txt` file, or a folder with `.txt` files in it (`.txt.gz` too), is a corpus: one paragraph a line, a blank line
    between documents; a file named ATTRIBUTION and files of other kinds are not text. Anything else is a table that
    `files.tables.read_rows` reads, its columns found as for training, or `text` names the one; two columns that
    belong together give pairs. Empty texts are passed over.

    Raises:
        TableError: no such path, no text in it, sub-folders of running text, or a line that is not in `encoding`
            (names file and line).
        OptionError: there is no such encoding.
    """
    document = 0
    for one in _sources(source):
        found = False
        for item in _texts(one, text, encoding):
            found = True
            yield item._replace(document=document + item.document)
            last = document + item.document
        if not found:
            raise TableError(f"{one}: it holds no text")
        document = last + 1


def tokenise_corpus(
    source: Source,
    tokenizer: Any,
    folder: Path,
    *,
    max_length: int = 128,
    text: str | None = None,
    encoding: str = "utf-8",
    short_share: float = 1 / 3,
    seed: int = 0,
    vocab_size: int | None = None,
    leave_out: Collection[tuple[str, str | None]] = (),
    report: Report = lambda line: None,
) -> Corpus:
    """Return the token sequences of a corpus or table, from `folder` if they are there, else made and put there.

    Paragraphs of one document are joined sentence by sentence into sequences of at most `max_length` tokens with the
    tokenizer's special tokens; for `short_share` of them the length is drawn evenly from 8 to `max_length`, because
    tasks have short texts. No token is lost: a sentence that is too long is split. Rows of a table are a sequence
    each, cut to `max_length`. What is in `folder` is reused when source (by content), tokenizer and numbers are the
    same, and made anew otherwise. With `vocab_size`, the model's, a token beyond it is an error. Texts or pairs in
    `leave_out` are passed over, and counted in the manifest.

    Raises:
        TableError: what `read_texts` raises, and where nothing but texts to leave out is there.
        OptionError: tokenizer and model do not belong together, or a number that cannot be.
        FolderError: `folder` holds something else.
    """
    if max_length < SHORTEST:
        raise OptionError(f"--max-length {max_length}: expected {SHORTEST} or more for sequences of a corpus")
    if not 0 <= short_share <= 1:
        raise OptionError(f"short_share {short_share}: expected a number from 0 to 1")
    wanted = {
        "format": FORMAT,
        "content": content_hash(source),
        "tokenizer": tokenizer_hash(tokenizer),
        "max_length": max_length,
        "short_share": short_share,
        "text": text,
        "encoding": encoding,
        "seed": seed,
        "leave_out": hashlib.sha256(repr(sorted(map(repr, leave_out))).encode()).hexdigest() if leave_out else None,
    }
    for one in _sources(source):
        _tell_subfolders(Path(one), report)
    if folder.exists():
        if not (folder / MANIFEST).exists() and (folder.is_file() or any(folder.iterdir())):
            raise FolderError(f"{folder} holds something that is not a tokenised corpus: choose another folder")
        try:
            there = Corpus.open(folder)
        except FolderError:
            there = None
        if there is not None and {name: there.manifest.get(name) for name in wanted} == wanted:
            there.check_vocabulary(vocab_size)
            report(f"{len(there)} sequences of {there.tokens} tokens are there already: {folder}")
            return there
    gone, left_out = frozenset(leave_out), 0

    def kept() -> Iterator[CorpusText]:
        nonlocal left_out
        for item in read_texts(source, text=text, encoding=encoding):
            if (item.text, item.text_pair) in gone:
                left_out += 1
            else:
                yield item

    texts = kept()
    first = next(texts, None)  # what is wrong with a source is said before a folder is begun
    if first is None:
        names = ", ".join(map(str, _sources(source)))
        raise TableError(f"{names}: all {left_out} texts are rows that the model is evaluated on: give others")
    whole = chain([first], texts)
    with new_folder(folder) as building:
        sequences = _sequences(whole, tokenizer, max_length, short_share, seed)
        counts = _write(sequences, building, len(tokenizer), vocab_size, report)
        tokenizer.save_pretrained(building / TOKENIZER)
        pad = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        about = {"source": [str(one) for one in _sources(source)], **wanted, "pad": pad, **counts}
        about["left_out"] = left_out
        (building / MANIFEST).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Corpus.open(folder)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Token sequences in memory-mapped arrays."""

    folder: Path
    """Where they are; `tokenizer` in it is the tokenizer that made them."""
    manifest: dict[str, Any]
    """How they were made, and how many there are."""
    ids: np.ndarray
    """All token ids one after the other, (tokens,) of uint16 or uint32."""
    offsets: np.ndarray
    """Where each sequence starts, and the end, (sequences + 1,) of int64."""
    firsts: np.ndarray | None
    """Of pairs, how many tokens of each sequence have token type 0, (sequences,) of int32."""

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Open what `tokenise_corpus` wrote. Raises `FolderError` when it is not there or damaged."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            ids, offsets = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "offsets"))
            pairs = folder / "firsts.npy"
            firsts = np.load(pairs, mmap_mode="r") if pairs.exists() else None
            if len(offsets) != manifest["sequences"] + 1 or len(ids) != manifest["tokens"] or offsets[-1] != len(ids):
                raise ValueError("its arrays have other lengths than its manifest says")
        except FileNotFoundError as error:
            raise FolderError(f"{folder}: no tokenised corpus there ({error.filename} is missing)") from error
        except (OSError, ValueError, KeyError) as error:
            raise FolderError(f"{folder}: a damaged tokenised corpus, delete it: {error}") from error
        return cls(folder, manifest, ids, offsets, firsts)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, sequence: int) -> np.ndarray:
        """Return the token ids of a sequence, (length,) of int64, special tokens included."""
        return np.asarray(self.ids[self.offsets[sequence] : self.offsets[sequence + 1]], dtype=np.int64)

    @property
    def tokens(self) -> int:
        """Number of tokens of all sequences together."""
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, (sequences,) of int64."""
        return np.diff(self.offsets)

    @property
    def digest(self) -> str:
        """A hash of how the sequences were made: equal digests, equal sequences."""
        told = {name: value for name, value in self.manifest.items() if name != "source"}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def check_vocabulary(self, vocab_size: int | None) -> None:
        """Raise `OptionError` when a token has no embedding in a model of `vocab_size` tokens."""
        _check_vocabulary(self.manifest["largest_id"], vocab_size)

    def batch(self, sequences: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Return input_ids, attention_mask and token_type_ids of sequences, padded to the longest, (B, T) of int64."""
        rows = [self[sequence] for sequence in sequences]
        ids = np.full((len(rows), max(map(len, rows))), self.manifest["pad"], dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for place, (row, sequence) in enumerate(zip(rows, sequences, strict=True)):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1
            if self.firsts is not None:
                types[place, self.firsts[sequence] : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def tokenizer_hash(tokenizer: Any) -> str:
    """Return a hash of everything about a tokenizer that decides the ids of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        told: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:
        told = json.loads(backend.to_str())
        # set anew by every call of the tokenizer
        told.pop("truncation", None)
        told.pop("padding", None)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


# --- reading --------------------------------------------------------------------------------------------


def _sources(source: Source) -> list[str | Path]:
    return [source] if isinstance(source, str | Path) else list(source)


def is_text(path: Path) -> bool:
    """Whether a path is a text file of a corpus, by its name."""
    name = path.name.lower()
    is_text = name.removesuffix(".gz").endswith(".txt")
    return is_text and not name.startswith(".") and name.split(".")[0] != "attribution" and path.is_file()


def _text_files(source: str | Path) -> list[Path]:
    """The files of a corpus in the order of their names; none where the source is not a corpus."""
    path = Path(source)
    if path.is_dir():
        return sorted(file for file in path.iterdir() if is_text(file))
    return [path] if is_text(path) else []


def _tell_subfolders(folder: Path, report: Report) -> None:
    """Say how many text files lie deeper than a folder is read."""
    if folder.is_dir() and _text_files(folder):
        deeper = sum(1 for path in folder.rglob("*") if path.parent != folder and is_text(path))
        if deeper:
            report(f"{folder}: {deeper} .txt files in its subfolders are not read: name the subfolders to have them")


def _check_label_folder(folder: Path) -> None:
    """Refuse folders of books that would be read as a table with a book a row, of which a sequence is kept."""
    below = [path for path in folder.glob("*/*") if is_text(path)] if folder.is_dir() else []
    sizes = [path.stat().st_size for path in below]
    if sizes and statistics.median(sizes) > _ONE_TEXT:
        size, folders = statistics.median(sizes), sorted({str(path.parent) for path in below})
        raise TableError(
            f"{folder}: its sub-folders hold {len(below)} .txt files of {size / 1000:.0f} kB each, "
            f"which would be a row each, cut to one sequence; name the folders to read all of it: {' '.join(folders)}"
        )


def _texts(source: str | Path, text: str | None, encoding: str) -> Iterator[CorpusText]:
    files = _text_files(source)
    if not files:
        _check_label_folder(Path(source))
        options = DataOptions(text=text, encoding=encoding)
        try:
            for number, example in enumerate(read_examples(source, options)):
                if example.text.strip() or (example.text_pair or "").strip():
                    yield CorpusText(example.text, example.text_pair, number, False)
        except TableError as error:
            raise TableError(_as_corpus(str(error))) from error
        return
    document, inside = -1, False
    for file in files:
        inside = False
        with open_bytes(str(file)) as stream:
            lines = Lines(stream, str(file), encoding)
            for line in lines:
                problem = lines.take_problem()
                if problem is not None:
                    raise TableError(str(problem))
                paragraph = line.strip()
                if paragraph:
                    document += not inside
                    yield CorpusText(paragraph, None, document, True)
                inside = bool(paragraph)


def _as_corpus(told: str) -> str:
    """What is told of a table, in the words of those who give it as a corpus: --text names the table for them."""
    told = told.replace("--text-pair", "--column").replace("--text", "--column")
    told = told.replace(", or pass over such rows with --skip-bad-rows", "")
    return told.replace("no table in this folder", "no .txt file and no table in this folder")


def content_hash(source: Source) -> str:
    """A hash of the bytes of the files that are read, or of the name where the source is no file."""
    digest = hashlib.sha256()
    for one in _sources(source):
        path = Path(one)
        files = _text_files(one) or (sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path])
        for file in files:
            digest.update(file.name.encode())
            if file.is_file():
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


# --- tokenising -----------------------------------------------------------------------------------------


class _GrowingArray:
    """A .npy file that is appended to; its header has room for the length, which is written at the end."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.dtype, self.length = np.dtype(dtype), 0
        self._stream = path.open("wb")
        self._header()

    def _header(self) -> None:
        self._stream.seek(0)
        about = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._stream, about)

    def append(self, values: np.ndarray) -> None:
        self.length += len(values)
        self._stream.write(values.astype(self.dtype).tobytes())

    def close(self) -> None:
        self._header()
        self._stream.close()


def _write(
    sequences: Iterator[tuple[list[int], int]],
    folder: Path,
    vocabulary: int,
    vocab_size: int | None,
    report: Report,
) -> dict[str, int]:
    """Write ids, offsets and, where there are pairs, firsts; return how many there are."""
    ids = _GrowingArray(folder / "ids.npy", np.uint16 if vocabulary <= 2**16 else np.uint32)
    lengths: list[int] = []
    firsts: list[int] = []
    largest, began = 0, time.monotonic()
    said = began
    for sequence, first in sequences:
        lengths.append(len(sequence))
        firsts.append(first)
        largest = max(largest, *sequence)
        _check_vocabulary(largest, vocab_size)
        ids.append(np.array(sequence))
        now = time.monotonic()
        if now - said > 10:
            said = now
            report(f"tokenised {ids.length} tokens, {ids.length / (now - began):.0f} a second")
    ids.close()
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    if firsts != lengths:
        np.save(folder / "firsts.npy", np.array(firsts, dtype=np.int32))
    seconds = max(time.monotonic() - began, 1e-9)
    report(f"tokenised {len(lengths)} sequences of {ids.length} tokens, {ids.length / seconds:.0f} a second")
    return {"sequences": len(lengths), "tokens": ids.length, "largest_id": largest}


def _check_vocabulary(largest: int, vocab_size: int | None) -> None:
    if vocab_size is not None and largest >= vocab_size:
        raise OptionError(
            f"token {largest}, but the model has embeddings for {vocab_size} tokens: tokenizer and model do not "
            "belong together"
        )


def _sequences(
    texts: Iterator[CorpusText], tokenizer: Any, max_length: int, short_share: float, seed: int
) -> Iterator[tuple[list[int], int]]:
    """Yield token ids of each sequence, and how many of them have token type 0."""
    packer = Packer(tokenizer, max_length, short_share, seed)
    while batch := list(islice(texts, _BATCH)):
        for running, group in groupby(batch, key=lambda item: item.running):
            items = list(group)
            if running:
                sentences = [(part, item.document) for item in items for part in split_sentences(item.text)]
                plain = tokenizer(
                    [part for part, _ in sentences],
                    add_special_tokens=False,
                    return_attention_mask=False,
                    return_token_type_ids=False,
                    verbose=False,
                )["input_ids"]
                for ids, (_, document) in zip(plain, sentences, strict=True):
                    yield from packer.add(ids, document)
            else:
                yield from packer.flush()
                pairs = items[0].text_pair is not None
                columns = [[item.text for item in items], *([[item.text_pair or "" for item in items]] * pairs)]
                whole = tokenizer(
                    *columns, truncation="longest_first", max_length=max_length, return_token_type_ids=True
                )
                for ids, types in zip(whole["input_ids"], whole["token_type_ids"], strict=True):
                    yield ids, types.index(1) if 1 in types else len(ids)
    yield from packer.flush()
