"""Cleans and tokenises lots of documents in worker processes, for `building.py`: documents in, arrays of ids out.

A lot's arrays depend on its documents alone, and come back in the order of the lots, so that what is built does not
depend on the number of workers.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
from mwparserfromhell.parser import ParserError
from transformers import AutoTokenizer

from squeezebert.data.packing import split_sentences
from squeezebert.data.pretraining.documents import CleanDocument, RawDocument, clean
from squeezebert.files.errors import WorkerError
from squeezebert.files.parent import end_with

_STRETCH = 1_000_000  # characters a worker is given at once
Made = TypeVar("Made")


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
    unreadable: tuple[str, ...]
    """Names or beginnings of documents whose markup no parser could take apart."""


_WORKER: dict[str, Any] = {}


def _start_worker(parent: int, setting: tuple[Any, ...]) -> None:
    """Make a new process a worker, which ends when the one that started it is gone, killed or not."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    _settle(setting)


def _settle(setting: tuple[Any, ...]) -> None:
    """Note what a worker needs beside its documents: the shortest one, and a tokenizer's folder or none."""
    shortest, *place = setting
    _WORKER.update(shortest=shortest, tokenizer=None)
    if place:
        _WORKER["tokenizer"] = AutoTokenizer.from_pretrained(place[0])


def clean_all(documents: list[RawDocument]) -> list[CleanDocument]:
    """Clean documents; called in a worker."""
    found = (_cleaned(raw) for raw in documents)
    return [one for one in found if isinstance(one, CleanDocument)]


def _cleaned(raw: RawDocument) -> CleanDocument | str | None:
    """The cleaned document, None for one that is too short, and a name for one that no parser can take apart."""
    try:
        return clean(raw, _WORKER["shortest"])
    except (RecursionError, ValueError, IndexError, KeyError, TypeError, ParserError) as error:
        return f"{raw.name or raw.text[:60]!r} ({type(error).__name__})"


def tokenise(documents: list[RawDocument]) -> Stretch:
    """Clean and tokenise documents; called in a worker."""
    tokenizer = _WORKER["tokenizer"]
    cleaned = [_cleaned(raw) for raw in documents]
    kept = [one for one in cleaned if isinstance(one, CleanDocument)]
    sentences = [[part for text in one.paragraphs for part in split_sentences(text)] for one in kept]
    flat = [part for parts in sentences for part in parts]
    plain = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    # "[SEP]" in a text is five characters, and no segment's end
    encoded = tokenizer(flat, verbose=False, split_special_tokens=True, **plain)["input_ids"] if flat else []
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
        short=sum(one is None for one in cleaned),
        unreadable=tuple(one for one in cleaned if isinstance(one, str)),
    )


def stretches(documents: Iterator[RawDocument]) -> Iterator[list[RawDocument]]:
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


def in_order(
    work: Callable[[list[RawDocument]], Made],
    lots: Iterator[list[RawDocument]],
    processes: int,
    setting: tuple[Any, ...],
) -> Iterator[Made]:
    """What workers make of each lot, in the order of the lots; a few lots are under way at a time."""
    if processes == 1:
        _settle(setting)
        yield from map(work, lots)
        return
    context = get_context("spawn")  # a fork of a process with threads can hang
    told = (os.getpid(), setting)
    with ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=told) as pool:
        waiting: deque[Future[Made]] = deque(pool.submit(work, lot) for lot in islice(lots, 2 * processes))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(pool.submit(work, lot) for lot in islice(lots, 1))
                yield made
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker was killed, most likely for want of memory: repeat the command with fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
