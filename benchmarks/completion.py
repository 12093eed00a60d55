"""Hidden words of held-out text: an exported masked language model against counted words.

python benchmarks/completion.py --data DIR --model EXPORTED [--words 2000] [--megabytes 150] [--threads 1]

Documents of DIR/corpus are held out as `squeezebert corpus` does with its default options, so that a model pretrained
on such a corpus has not seen them. Of their sentences, words are hidden one at a time: to fill the gap with both sides
known, and to say the next word with the left side alone. The baseline counts the words of all other documents: in
what the neighbours on both sides stand around, else behind the one on the left, else all; for the next word behind two
words, else one, else all. Latency is that of the int8 file, one text at a time.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from records import begun

from squeezebert.data.pretraining.documents import clean, held_out, read_documents
from squeezebert.data.statistics import paired_interval, wilson_interval
from squeezebert.files.stopwatch import interleave
from squeezebert.runtime.completion import Completer
from squeezebert.runtime.predictor import load
from squeezebert.runtime.summary import sentence_spans

RESULTS = Path(__file__).parent / "results" / "completion.json"
HELD_OUT, SEED, SHORTEST = 0.03, 0, 20  # of `squeezebert corpus`
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
TOP = 5
LENGTHS = (8, 16, 32, 64)
BEGIN = "<s>"


@dataclass(frozen=True)
class Hidden:
    """A word of a sentence that is to be guessed."""

    sentence: str
    start: int
    end: int
    word: str
    left: tuple[str, str]
    right: str


def paragraphs(folder: Path, wanted: bool) -> Iterator[str]:
    """Paragraphs of the documents that are held out, or of the others."""
    sources = [str(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    for raw in read_documents(sources):
        document = clean(raw, SHORTEST)
        if document is not None and held_out(document.digest, HELD_OUT, SEED) == wanted:
            yield from document.paragraphs


def hide(folder: Path, count: int) -> list[Hidden]:
    """One word each of `count` sentences of 6 to 40 words, evenly over the held-out text."""
    sentences = [
        text[start:end]
        for text in paragraphs(folder, True)
        for start, end in sentence_spans(text)
        if 6 <= len(WORD.findall(text[start:end])) <= 40
    ]
    generator = np.random.default_rng(0)
    found = []
    for number in np.linspace(0, len(sentences) - 1, min(count, len(sentences))).astype(int):
        words = [*WORD.finditer(sentences[number])]
        # Not the first two: a next word needs words before it
        chosen = int(generator.integers(2, len(words)))
        lower = [word[0].lower() for word in words]
        right = lower[chosen + 1] if chosen + 1 < len(words) else BEGIN
        left = (lower[chosen - 2], lower[chosen - 1])
        found.append(Hidden(sentences[number], *words[chosen].span(), lower[chosen], left, right))
    return found


class Counted:
    """Words counted in the contexts that will be asked for: each from the most telling to all words."""

    def __init__(self, folder: Path, hidden: list[Hidden], megabytes: float) -> None:
        self.counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        wanted = {context for one in hidden for way in (True, False) for context in self.contexts(one, way)}
        self.characters = 0
        for text in paragraphs(folder, False):
            for start, end in sentence_spans(text):
                words = [BEGIN, BEGIN, *(word.lower() for word in WORD.findall(text[start:end])), BEGIN]
                for i in range(2, len(words) - 1):
                    before, left, word, right = words[i - 2 : i + 2]
                    for context in (("both", left, right), ("left", left), ("two", before, left), ()):
                        if context in wanted:
                            self.counts[context][word] += 1
            self.characters += len(text)
            if self.characters > megabytes * 1e6:
                break

    @staticmethod
    def contexts(one: Hidden, fill: bool) -> list[tuple[str, ...]]:
        first = ("both", one.left[1], one.right) if fill else ("two", *one.left)
        return [first, ("left", one.left[1]), ()]

    def best(self, one: Hidden, fill: bool) -> list[str]:
        found: dict[str, None] = {}
        for context in self.contexts(one, fill):
            found.update(dict.fromkeys(word for word, _ in self.counts[context].most_common(TOP)))
            if len(found) >= TOP:
                break
        return [*found][:TOP]


def hits(answers: list[list[str]], hidden: list[Hidden]) -> dict[str, np.ndarray]:
    """Which words are the first answer, and which among the first five, as 0 and 1."""
    pairs = [*zip(answers, hidden, strict=True)]
    return {
        "top1": np.array([float(found[:1] == [one.word]) for found, one in pairs]),
        f"top{TOP}": np.array([float(one.word in found) for found, one in pairs]),
    }


def told(found: dict[str, np.ndarray], against: dict[str, np.ndarray] | None) -> dict[str, Any]:
    """Shares with their intervals, and by how much they are above the baseline's, words paired."""
    row: dict[str, Any] = {}
    for name, scores in found.items():
        row[name] = asdict(wilson_interval(int(scores.sum()), len(scores)))
        if against is not None:
            row[name]["above"] = asdict(paired_interval(scores, against[name]))
    return row


def ask(completer: Completer, hidden: list[Hidden], way: str) -> list[list[str]]:
    """The model's answers, in lower case."""
    answers = []
    for number, one in enumerate(hidden):
        if way == "fill":
            (gap,) = completer.fill(f"{one.sentence[: one.start]}[MASK]{one.sentence[one.end :]}", TOP)
            words = gap.words
        else:
            words = completer.next_word(one.sentence[: one.start], TOP, "." if way == "next, full stop" else "")
        answers.append([word.word.lower() for word in words])
        if number % 200 == 0:
            print(f"{way}: {number} of {len(hidden)}", flush=True)
    return answers


def latency(completer: Completer, runs: int) -> list[dict[str, Any]]:
    """Milliseconds by tokens of the text: one run of the file asked at one place and at all, and a whole answer."""
    model, rows = completer.model, []
    words = [piece for piece in completer.pieces if piece and piece.isalpha() and piece.isascii() and len(piece) > 2]
    for length in LENGTHS:
        text = " ".join(np.random.default_rng(length).choice(words, length - 3))
        tokens = model.tokenizer.framed([*model.tokenizer.pieces(text)[0][: length - 3], completer.mask])
        place = len(tokens.ids) - 2
        one = np.array([[0, place]], dtype=np.int64)
        every = np.array([[0, token] for token in range(len(tokens.ids))], dtype=np.int64)
        gapped = " ".join(text.split(" ")[: length // 2]) + " ___ " + " ".join(text.split(" ")[length // 2 :])
        timed = interleave(
            {
                "one place": lambda tokens=tokens, one=one: model.compute([tokens], one),
                "all places": lambda tokens=tokens, every=every: model.compute([tokens], every),
                "fill": lambda gapped=gapped: completer.fill(gapped, TOP),
            },
            runs,
        )
        rows.append({"tokens": length, **{name: timing.to_dict() for name, timing in timed.items()}})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with corpus/, of folders of text files")
    parser.add_argument("--model", type=Path, required=True, help="exported masked language model")
    parser.add_argument("--words", type=int, default=2000)
    parser.add_argument("--megabytes", type=float, default=150.0, help="text that the baseline counts, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    folder = options.data / "corpus"
    hidden = hide(folder, options.words)
    print(f"{len(hidden)} words hidden", flush=True)
    counted = Counted(folder, hidden, options.megabytes)
    baseline = {way: hits([counted.best(one, way == "fill") for one in hidden], hidden) for way in ("fill", "next")}
    rows = [{"asked": way, "model": "counted words", **told(found, None)} for way, found in baseline.items()]
    exported = load(options.model, options.threads).manifest
    for precision in exported.files:
        completer = Completer(load(options.model, options.threads, precision))
        for way in ("fill", "next, full stop", "next, nothing"):
            against = baseline["fill" if way == "fill" else "next"]
            found = hits(ask(completer, hidden, way), hidden)
            rows.append({"asked": way, "model": precision, **told(found, against)})
            print(rows[-1]["asked"], precision, rows[-1]["top1"]["estimate"], flush=True)
    record = {
        **begun("completion", {"DATA": options.data, "MODEL": options.model}, options.threads),
        "model": {
            "source": exported.source,
            "megabytes": {name: file.bytes / 1e6 for name, file in exported.files.items()},
            "verification": {name: asdict(found) for name, found in exported.verification.items()},
        },
        "counted_megabytes": counted.characters / 1e6,
        "words": len(hidden),
        "median_words_a_sentence": statistics.median(len(WORD.findall(one.sentence)) for one in hidden),
        "rows": rows,
        "latency": latency(Completer(load(options.model, options.threads)), options.runs),
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
