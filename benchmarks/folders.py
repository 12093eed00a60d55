"""Sorting into folders: an exported encoder's sorter against TF-IDF with logistic regression, on banking77.

python benchmarks/folders.py --data DIR --work DIR [--encoder DIR]

Learned from all training messages, and from a few a folder (several draws); scored on the whole test split, rows
paired; intervals are each draw's. Then a fourth of the folders is held out, and its test messages are strangers, as
are sentences of film reviews: how well is a stranger told from a message that belongs somewhere, and how many are
sorted. The baseline says so by its highest probability, with the same share of its own training messages set aside
for it. Its terms (words and pairs, or pieces of words as well) and its strength of regularisation are the best on the
messages that it learns, by cross-validation (for strangers among all messages, those of all folders). Last, whether
sure answers are as often right as was promised, of sorters with few folders: of any, of folders that are alike (one
and those whose messages are nearest on the mean), of any with labels shuffled, and of any with each example there a
second time in another case.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jobs import (
    banking77,
    best_words,
    known_vectors,
    open_encoder,
    parser_of,
    record_timings,
    shown,
    words,
    write_record,
)
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from squeezebert.data.statistics import paired_interval, wilson_interval
from squeezebert.runtime.folders import Folders

FEW = (3, 5, 10, 30)
DRAWS = 3
HELD_OUT = 19
SMALL = ((2, 5), (5, 5), (5, 10), (10, 10), (5, 20))  # folders, and examples of each
SORTERS = 77


def few_of(names: np.ndarray, count: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.concatenate([draw.permutation(np.flatnonzero(names == name))[:count] for name in np.unique(names)])


def film_sentences(data: Path, count: int) -> list[str]:
    lines: list[str] = []
    for end in ("neg", "pos"):
        lines += (data / "sentence_polarity" / f"rt-polarity.{end}").read_text(encoding="latin-1").splitlines()
    return [str(line) for line in np.random.default_rng(0).choice(lines, count, replace=False)]


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    return float(roc_auc_score(truth, np.r_[inside, outside]))


def auroc_difference(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]
) -> dict[str, float | int]:
    """The difference of two AUROCs on the same messages, with the percentile interval of resampled messages."""

    def difference(inside: np.ndarray, outside: np.ndarray) -> float:
        i, o = inside.astype(int), outside.astype(int)
        return auroc(ours[0][i], ours[1][o]) - auroc(theirs[0][i], theirs[1][o])

    rows = (np.arange(len(ours[0])), np.arange(len(ours[1])))
    found = bootstrap(
        rows, difference, n_resamples=1000, vectorized=False, method="percentile", rng=np.random.default_rng(0)
    )
    limits = found.confidence_interval
    return {"estimate": difference(*rows), "low": float(limits.low), "high": float(limits.high)}


def sorter_of(known: Any, texts: list[str], names: np.ndarray, rows: np.ndarray) -> tuple[Folders, float]:
    made = Folders(known)
    began = time.perf_counter()
    made.learn([texts[i] for i in rows], [str(name) for name in names[rows]])
    return made, time.perf_counter() - began


def calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    gaps = [abs(confidences[place == b].mean() - right[place == b].mean()) * (place == b).mean() for b in set(place)]
    return float(sum(gaps))


def scored(known: Any, train: Any, test: Any, rows: np.ndarray) -> dict[str, Any]:
    """Both contenders learn the same rows and sort the whole test split."""
    (texts, names), (new, truth) = train, test
    sorter, _ = sorter_of(known, texts, names, rows)
    answers = sorter.sort(new, top=3)
    right = np.array([answer.likely[0][0] == name for answer, name in zip(answers, truth, strict=True)])
    in_three = np.array([name in dict(answer.likely) for answer, name in zip(answers, truth, strict=True)])
    sure = np.array([answer.folder is not None for answer in answers])
    confidences = np.array([answer.likely[0][1] for answer in answers])
    chosen = best_words([texts[i] for i in rows], names[rows])
    baseline = words(**chosen).fit([texts[i] for i in rows], names[rows])
    shares = baseline.predict_proba(new)
    theirs = baseline.classes_[shares.argmax(1)] == truth
    three = baseline.classes_[np.argsort(-shares, axis=1)[:, :3]]
    theirs_in_three = (three == truth[:, None]).any(1)
    return {
        "rows": len(rows),
        "words": chosen,
        "right": {"sorter": float(right.mean()), "words": float(theirs.mean())},
        "in_three": {"sorter": float(in_three.mean()), "words": float(theirs_in_three.mean())},
        "better": shown(paired_interval(right, theirs)),
        "sure": float(sure.mean()),
        "right_of_sure": shown(wilson_interval(int((right & sure).sum()), max(int(sure.sum()), 1))),
        "promised": sorter.precision,
        "calibration_error": calibration_error(confidences, right),
        "out_of_scope": float(np.mean([answer.out_of_scope for answer in answers])),
    }


def strangers(known: Any, train: Any, test: Any, films: list[str], per: int | None, of_all: Any) -> list[Any]:
    """Draws of folders that are held out, and what becomes of their messages and of film reviews."""
    (texts, names), (new, truth) = train, test
    cells = []
    for draw in range(DRAWS):
        folders = np.unique(names)
        out = np.random.default_rng(draw).choice(folders, HELD_OUT, replace=False)
        rows = np.flatnonzero(~np.isin(names, out))
        if per is not None:
            rows = rows[few_of(names[rows], per, draw)]
        sorter, _ = sorter_of(known, texts, names, rows)
        chosen = [texts[i] for i in rows]
        best = of_all if per is None else best_words(chosen, names[rows])
        baseline = words(**best).fit(chosen, names[rows])
        # The same share of the baseline's own messages, each answered by a fit without it
        left_out = cross_val_predict(words(**best), chosen, names[rows], cv=3, method="predict_proba").max(1)
        least = float(np.quantile(left_out, sorter.scope))
        groups = {
            "inside": [text for text, name in zip(new, truth, strict=True) if name not in out],
            "held-out folders": [text for text, name in zip(new, truth, strict=True) if name in out],
            "film reviews": films,
        }
        ours, theirs, cell = {}, {}, {"draw": draw, "per_folder": per, "rows": len(rows), "groups": {}}
        for group, some in groups.items():
            answers = sorter.sort(some)
            ours[group] = np.array([answer.familiarity for answer in answers])
            theirs[group] = baseline.predict_proba(some).max(1)
            cell["groups"][group] = {
                "messages": len(some),
                "out_of_scope": {
                    "sorter": float(np.mean([answer.out_of_scope for answer in answers])),
                    "words": float((theirs[group] < least).mean()),
                },
                "sorted": float(np.mean([answer.folder is not None for answer in answers])),
            }
        for group in ("held-out folders", "film reviews"):
            cell["groups"][group] |= {
                "auroc": {
                    "sorter": auroc(ours["inside"], ours[group]),
                    "words": auroc(theirs["inside"], theirs[group]),
                },
                "better": auroc_difference((ours["inside"], ours[group]), (theirs["inside"], theirs[group])),
            }
        print(cell, flush=True)
        cells.append(cell)
    return cells


def promises(known: Any, train: Any, test: Any) -> list[dict[str, Any]]:
    """How often sorters of a few folders are sure, and how many of them are less often right than they promise."""
    (texts, names), (new, truth) = train, test
    folders = np.unique(names)
    vectors = known.vectors(texts)
    means = np.stack([vectors[names == folder].mean(0) for folder in folders])
    alike = np.argsort(-(means @ means.T) / np.linalg.norm(means, axis=1), axis=1, kind="stable")
    cells = []
    for kind in ("any", "alike", "labels shuffled", "twice"):
        for count, per in SMALL:
            found: dict[str, list[float]] = {"sure": [], "right": [], "of": [], "out_of_scope": []}
            for seed in range(SORTERS):
                draw = np.random.default_rng([seed, count, per])
                chosen = folders[alike[seed % len(folders)][:count]] if kind == "alike" else None
                chosen = draw.choice(folders, count, replace=False) if chosen is None else chosen
                rows = np.concatenate(
                    [draw.choice(np.flatnonzero(names == one), per, replace=False) for one in chosen]
                )
                given, labels = [texts[i] for i in rows], [str(name) for name in names[rows]]
                if kind == "labels shuffled":
                    labels = [str(label) for label in draw.permutation(labels)]
                if kind == "twice":
                    given, labels = [*given, *(f"{text.upper()} " for text in given)], [*labels, *labels]
                sorter = Folders(known)
                sorter.learn(given, labels)
                asked = np.flatnonzero(np.isin(truth, chosen))
                answers = sorter.sort([new[i] for i in asked])
                sure = [answer.folder == truth[i] for answer, i in zip(answers, asked, strict=True) if answer.folder]
                found["sure"].append(len(sure) / len(asked))
                found["right"].append(float(sum(sure)))
                found["of"].append(float(len(sure)))
                found["out_of_scope"].append(float(np.mean([answer.out_of_scope for answer in answers])))
            shares = [right / of for right, of in zip(found["right"], found["of"], strict=True) if of]
            cell = {"kind": kind, "folders": count, "per_folder": per, "sorters": SORTERS, "some_sure": len(shares)}
            cell |= {"sure": float(np.mean(found["sure"])), "out_of_scope": float(np.mean(found["out_of_scope"]))}
            cell["right_of_sure"] = sum(found["right"]) / max(sum(found["of"]), 1)
            cell["below_promise"] = sum(share < sorter.precision for share in shares)
            print(cell, flush=True)
            cells.append(cell)
    return cells


def timings(known: Any, texts: list[str], names: np.ndarray) -> dict[str, float]:
    """Seconds that a sorter takes to learn what it has vectors of, and ten more messages than ten thousand."""
    found = {}
    for per in (*FEW, None):
        rows = np.arange(len(texts)) if per is None else few_of(names, per, 0)
        name = "learn_all" if per is None else f"learn_{per}_a_folder"
        found[name] = float(np.median([sorter_of(known, texts, names, rows)[1] for _ in range(3)]))
    sorter, _ = sorter_of(known, texts, names, np.arange(len(texts) - 10))
    began = time.perf_counter()
    sorter.learn(texts[-10:], [str(name) for name in names[-10:]])
    return {**found, "ten_more": time.perf_counter() - began}


def main() -> None:
    options = parser_of(__doc__, timed=True).parse_args()
    warnings.filterwarnings("ignore", message="The number of unique classes")
    encoder = open_encoder(options)
    train, test = banking77(options.data, "train"), banking77(options.data, "test")
    films = film_sentences(options.data, 1000)
    known = known_vectors(encoder, options.work, "folders", [*train[0], *test[0], *films])
    if options.timings_alone:
        record_timings("folders", options, timings(known, *train))
        return
    whole = scored(known, train, test, np.arange(len(train[0])))
    print(whole, flush=True)
    few = []
    for count in FEW:
        draws = [scored(known, train, test, few_of(train[1], count, seed)) for seed in range(DRAWS)]
        few.append({"per_folder": count, "draws": draws})
        print(few[-1], flush=True)
    cells = [c for per in (None, 10) for c in strangers(known, train, test, films, per, whole["words"])]
    found = {"folders": 77, "test_rows": len(test[0]), "whole": whole, "few": few}
    found["strangers"] = cells
    capitals = [f"{text.upper()} " for text in train[0]]
    found["promises"] = promises(known_vectors(encoder, options.work, "folders", capitals), train, test)
    write_record("folders", options, encoder, found)
    if not options.timings_of_a_busy_machine:
        record_timings("folders", options, timings(known, *train))


if __name__ == "__main__":
    main()
