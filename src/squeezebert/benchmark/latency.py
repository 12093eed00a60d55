"""Exported model files in, their latency at given lengths out. Serves the demo and `benchmarks/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squeezebert.files.manifest import read_manifest
from squeezebert.files.stopwatch import Comparison, Timing, compare, interleave
from squeezebert.runtime.session import open_session

# Token ids are drawn below this, which published vocabularies have
VOCABULARY = 1000


@dataclass(frozen=True)
class TimedFile:
    """One ONNX file as it is meant to be run."""

    path: Path
    """The file."""
    disabled_optimizers: tuple[str, ...] = ()
    """Graph optimisations that its manifest switches off."""
    exact: bool = True
    """Whether its integer products are exact where this CPU's fast ones overflow."""


def exported_files(folder: Path, name: str) -> dict[str, TimedFile]:
    """Return the files of an exported folder under `name precision`."""
    manifest = read_manifest(folder)
    return {
        f"{name} {precision}": TimedFile(folder / file.path, tuple(file.disabled_optimizers))
        for precision, file in manifest.files.items()
    }


def measure_latency(
    files: Mapping[str, TimedFile],
    lengths: Sequence[int],
    *,
    threads: int = 1,
    runs: int = 30,
    burst: int = 1,
    batch: int = 1,
    vocabulary: int = VOCABULARY,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[int, Timing]]:
    """Time each file on `batch` texts of each length (in tokens), in turn with the others: name -> length -> times.

    All run in this process in ONNX Runtime with `threads` threads; every token is attended to. `burst` is that of
    `interleave`; token ids are drawn below `vocabulary`.
    """
    sessions = {
        name: open_session(file.path, threads, file.disabled_optimizers, file.exact) for name, file in files.items()
    }
    found: dict[str, dict[int, Timing]] = {name: {} for name in files}
    for length in lengths:
        report(f"timing {len(sessions)} files at {length} tokens, {runs} runs each")
        inputs = made_up_inputs(batch, length, vocabulary)
        things = {name: _runner(session, inputs) for name, session in sessions.items()}
        for name, timing in interleave(things, runs, burst=burst).items():
            found[name][length] = timing
    return found


def compare_latency(
    files: Mapping[str, TimedFile],
    anchor: TimedFile,
    length: int,
    *,
    threads: int = 1,
    turns: int = 32,
    burst: int = 4,
    vocabulary: int = VOCABULARY,
) -> dict[str, Comparison]:
    """Time each file on a text of `length` tokens beside `anchor`, as `compare` does; else as `measure_latency`."""
    inputs = made_up_inputs(1, length, vocabulary)

    def runner(file: TimedFile) -> Callable[[], object]:
        return _runner(open_session(file.path, threads, file.disabled_optimizers, file.exact), inputs)

    return compare({name: runner(file) for name, file in files.items()}, runner(anchor), turns, burst=burst)


def made_up_inputs(batch: int, length: int, vocabulary: int = VOCABULARY) -> dict[str, np.ndarray]:
    """Return token ids, mask and types of `batch` texts of `length` tokens, (batch, length) each."""
    ids = np.random.default_rng(length).integers(1, vocabulary, (batch, length), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _runner(session: Any, values: Mapping[str, np.ndarray]) -> Callable[[], object]:
    inputs = {given.name: values[given.name] for given in session.get_inputs()}
    return lambda: session.run(None, inputs)
