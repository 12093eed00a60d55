"""Ranking a feed for a reader: an exported encoder's ranker against words, on the messages of banking77.

python benchmarks/ranking.py --data DIR --work DIR [--encoder DIR]

A reader likes the messages of one folder, or of three, and has liked and disliked a few of the training split; the
whole test split is ranked. Each of the 77 folders is a reader (with two others drawn, where they like three), the
mean of several draws of examples. Scores are average precision and nDCG of the first 20, readers paired. The words
are TF-IDF, scored by Rocchio's formula with the ranker's weight of the disliked, by the ranker's own rule (mean and
highest cosine), by the highest cosine alone, and by logistic regression, with the liked and disliked alone and with
the whole feed taken for disliked; so are the encoder's vectors. Readers of three folders share folders with others,
and all share the feed, so that their intervals are somewhat too narrow. Small feeds, and those of which a large share
is to the reader's taste, are drawn from the test split too, one for each reader, and compared with the mean and
highest cosine alone, without and with as many disliked. Constants were chosen on the training split.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
from jobs import banking77, known_vectors, open_encoder, parser_of, record_timings, shown, write_record
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, ndcg_score

from squeezebert.data.statistics import paired_interval
from squeezebert.runtime.ranking import Ranker, VectorStore

READERS = {"one folder": (1, 5), "three folders": (3, 9)}  # folders a reader likes, examples of either side
# Items of a feed, and the share of them that is to the reader's taste
FEEDS = {
    "one folder": ((5, 0.4), (20, 0.1), (20, 0.5), (50, 0.1), (50, 0.5), (50, 0.8), (200, 0.1), (200, 0.2)),
    "three folders": ((20, 0.5), (50, 0.5), (100, 0.8), (200, 0.1), (200, 0.5), (600, 0.2)),
}
DRAWS = 3
FIRST = 20
DISLIKED = 0.25
ITEMS = 10_000
OURS = "squeezebert rank"


def likeness(items: np.ndarray, examples: np.ndarray) -> np.ndarray:
    cosines = items @ examples.T
    return np.asarray(cosines.mean(1) + cosines.max(1)) if len(examples) else np.zeros(len(items))


def simple_scores(name: str, items: np.ndarray, liked: np.ndarray, disliked: np.ndarray) -> dict[str, np.ndarray]:
    """What each simple way makes of vectors of length 1."""
    examples, signs = np.concatenate([liked, disliked]), [1] * len(liked) + [0] * len(disliked)
    fitted = LogisticRegression(C=30, max_iter=1000).fit(examples, signs)
    feed = LogisticRegression(C=1, class_weight="balanced", max_iter=300)
    feed.fit(np.concatenate([examples, items]), signs + [0] * len(items))
    return {
        f"{name}, Rocchio": items @ (liked.mean(0) - DISLIKED * disliked.mean(0)),
        f"{name}, mean and highest cosine": likeness(items, liked) - DISLIKED * likeness(items, disliked),
        f"{name}, highest cosine": (items @ liked.T).max(1) - DISLIKED * (items @ disliked.T).max(1),
        f"{name}, logistic regression": fitted.decision_function(items),
        f"{name}, logistic regression with the feed": feed.decision_function(items),
    }


def measure(kind: str, train: Any, test: Any, known: Any, words: dict[str, np.ndarray]) -> dict[str, Any]:
    (texts, names), (new, truth) = train, test
    folders, count = READERS[kind]
    vectors = {"train": known.vectors(texts).astype(float), "test": known.vectors(new).astype(float)}
    scores: dict[str, dict[str, list[float]]] = {}
    for reader, folder in enumerate(np.unique(names)):
        found: dict[str, list[tuple[float, float]]] = {}
        for draw in range(DRAWS):
            random = np.random.default_rng([reader, draw])
            others = [name for name in np.unique(names) if name != folder]
            taste = [folder, *random.choice(others, folders - 1, replace=False)]
            inside = np.isin(names, taste)
            liked = random.choice(np.flatnonzero(inside), count, replace=False)
            disliked = random.choice(np.flatnonzero(~inside), count, replace=False)
            ranker = Ranker(known)
            ranker.learn([texts[i] for i in liked], [texts[i] for i in disliked])
            ways = {OURS: ranker.scores(new)}
            ways |= simple_scores("encoder", vectors["test"], vectors["train"][liked], vectors["train"][disliked])
            ways |= simple_scores("TF-IDF", words["test"], words["train"][liked], words["train"][disliked])
            relevant = np.isin(truth, taste)
            for name, values in ways.items():
                precision = float(average_precision_score(relevant, values))
                gain = float(ndcg_score(relevant[None].astype(float), values[None], k=FIRST))
                found.setdefault(name, []).append((precision, gain))
        for name, pairs in found.items():
            for metric, value in zip(("average precision", "ndcg"), np.mean(pairs, axis=0), strict=True):
                scores.setdefault(metric, {}).setdefault(name, []).append(float(value))
    return {
        metric: {
            name: {"mean": float(np.mean(values))}
            | ({} if name == OURS else {"ours_is_better_by": shown(paired_interval(by_name[OURS], values))})
            for name, values in by_name.items()
        }
        for metric, by_name in scores.items()
    }


def measure_feeds(kind: str, train: Any, test: Any, known: Any) -> list[dict[str, Any]]:
    """Average precision on feeds of few items, or with a large share to the reader's taste."""
    (texts, names), (new, truth) = train, test
    folders, count = READERS[kind]
    folder_names, rows = np.unique(names), []
    for (size, share), some in itertools.product(FEEDS[kind], (0, count)):
        ours, cosines = [], []
        for reader, folder in enumerate(folder_names):
            random = np.random.default_rng([reader, size, round(100 * share), some])
            others = [name for name in folder_names if name != folder]
            inside = np.isin(names, taste := [folder, *random.choice(others, folders - 1, replace=False)])
            liked = [texts[i] for i in random.choice(np.flatnonzero(inside), count, replace=False)]
            disliked = [texts[i] for i in random.choice(np.flatnonzero(~inside), some, replace=False)]
            relevant, fitting = np.isin(truth, taste), round(size * share)
            feed = [*random.choice(np.flatnonzero(relevant), fitting, replace=False)]
            feed += [*random.choice(np.flatnonzero(~relevant), size - fitting, replace=False)]
            ranker = Ranker(known)
            ranker.learn(liked, disliked)
            items = [new[i] for i in feed]
            X_NC, liked_LC, disliked_DC = (known.vectors(group).astype(float) for group in (items, liked, disliked))
            simple = likeness(X_NC, liked_LC) - DISLIKED * likeness(X_NC, disliked_DC)
            for found, values in ((ours, ranker.scores(items)), (cosines, simple)):
                found.append(float(average_precision_score(relevant[feed], values)))
        row = {"items": size, "share": share, "liked": count, "disliked": some, "ours": float(np.mean(ours))}
        rows.append(row | {"cosines": float(np.mean(cosines)), "better": shown(paired_interval(ours, cosines))})
    return rows


def timed(options: Any, encoder: Any, texts: list[str]) -> dict[str, float]:
    """Seconds to rank ten thousand items whose vectors are kept, and texts a second where they are not."""
    some = texts[:500]
    began = time.perf_counter()
    encoder.encode(some)
    cold = len(some) / (time.perf_counter() - began)
    items = [f"{text} ({i})" for i, text in enumerate((texts * 2)[:ITEMS])]
    store = VectorStore(encoder, options.work / f"timed-{encoder.digest[:12]}.npz")
    store.vectors(items)
    store.save()
    ranker = Ranker(store)
    ranker.learn(items[:5], items[-5:])
    warm = []
    for _ in range(7):
        began = time.perf_counter()
        ranker.rank(items, top=20)
        warm.append(time.perf_counter() - began)
    lines = {"items": items, "liked": items[:5], "disliked": items[-5:]}
    for name, rows in lines.items():
        written = "".join(json.dumps({"text": row}) + "\n" for row in rows)
        (options.work / f"{name}.jsonl").write_text(written, encoding="utf-8")
    command = [sys.executable, "-m", "squeezebert", "rank", str(encoder.folder), str(options.work / "items.jsonl")]
    command += ["--liked", str(options.work / "liked.jsonl"), "--disliked", str(options.work / "disliked.jsonl")]
    command += ["--vectors", str(store.path), "--top", "20", "--threads", str(options.threads)]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.perf_counter() - began
    return {"items": ITEMS, "rank_kept": float(np.median(warm)), "command_kept": whole, "texts_a_second_new": cold}


def main() -> None:
    options = parser_of(__doc__, timed=True).parse_args()
    encoder = open_encoder(options)
    train, test = banking77(options.data, "train"), banking77(options.data, "test")
    if options.timings_alone:
        record_timings("ranking", options, timed(options, encoder, train[0]))
        return
    known = known_vectors(encoder, options.work, "ranking", [*train[0], *test[0]])
    frequencies = TfidfVectorizer(sublinear_tf=True).fit(test[0])  # of the feed, as it would be known
    words = {"train": frequencies.transform(train[0]).toarray(), "test": frequencies.transform(test[0]).toarray()}
    found: dict[str, Any] = {"readers": len(np.unique(train[1])), "draws": DRAWS, "items": len(test[0])}
    found |= {"first": FIRST, "kinds": {}}
    for kind, (_, examples) in READERS.items():
        found["kinds"][kind] = {"examples": examples, "scores": measure(kind, train, test, known, words)}
        found["kinds"][kind]["feeds"] = measure_feeds(kind, train, test, known)
        print(kind, json.dumps(found["kinds"][kind], indent=1), flush=True)
    write_record("ranking", options, encoder, found)
    if not options.timings_of_a_busy_machine:
        record_timings("ranking", options, timed(options, encoder, train[0]))


if __name__ == "__main__":
    main()
