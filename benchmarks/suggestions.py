"""Which constants order suggestions best: the share of the language model, and what an edit costs.

python benchmarks/suggestions.py --data DIR --marker EXPORTED [--words models/words-small] [--sentences 1500]

Errors are put into sentences of the books and articles that the marker of `grammar.py` learned from, none of those
that it is measured on. Of each wrong word that it marks, the candidates are ordered with each pair of constants: the
mixture share * model + (1 - share) * dictionary is how likely a candidate is, less the nats that its edits cost.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from grammar import sides
from records import begun

from squeezebert.data.corpus import read_texts
from squeezebert.data.corruption import CorruptionOptions, Corruptor
from squeezebert.data.statistics import wilson_interval
from squeezebert.files.english import units
from squeezebert.runtime.checking import Checker, checked_spans, open_checker

RESULTS = Path(__file__).parent / "results" / "suggestions.json"
WORDS = Path(__file__).parents[1] / "models" / "words-small"
FILES = 12  # of the ones that were learned from, evenly
SHARES = (0.0, 0.2, 0.5, 0.8, 0.9, 0.95, 1.0)
COSTS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
_SMALLEST = 1e-12  # where the model rules a word out, and the dictionary has no say
TAGS = ("spelling", "confused", "agreement", "article")


@dataclass(frozen=True)
class Wrong:
    """A wrong word that was marked, with C candidates."""

    names: list[str]
    edits_C: np.ndarray
    here_C: np.ndarray
    """probability by the language model"""
    anywhere_C: np.ndarray
    """share of the training text"""
    right: str

    def ordered(self, share: float, cost: float) -> list[str]:
        likely_C = np.log(np.maximum(share * self.here_C + (1 - share) * self.anywhere_C, _SMALLEST))
        weight_C = likely_C - cost * self.edits_C
        return [self.names[i] for i in sorted(range(len(self.names)), key=lambda i: (-weight_C[i], self.names[i]))]


def marked(checker: Checker, data: Path, count: int) -> list[Wrong]:
    """Wrong words that the marker sees, in sentences of text that it learned from."""
    assert checker.dictionary is not None and checker.words is not None
    learned, _ = sides(data)
    sentences = [
        one.text[start:end]
        for one in read_texts(learned[:: max(1, len(learned) // FILES)][:FILES])
        for start, end in checked_spans(one.text)
        if 5 <= len(units(one.text[start:end])) <= 60
    ]
    corruptor = Corruptor(CorruptionOptions(), checker.dictionary.counts)
    found = []
    for number in np.linspace(0, len(sentences) - 1, min(count, len(sentences))).astype(int):
        one = corruptor.corrupt(sentences[number], ("suggestions", int(number)))
        kinds = {mark.start: mark.kind for mark in checker.check(one.text, 0).marks}
        for unit, tag, before in zip(units(one.text), one.tags, one.right, strict=True):
            kind = kinds.get(unit.start, "keep")
            if tag not in TAGS or kind not in TAGS:
                continue
            near = checker.candidates(one.text, unit.start, unit.end, kind)
            if near:
                names = [*near]
                here_C = checker.words.score(one.text, unit.start, unit.end, names)
                anywhere_C = np.exp([checker.dictionary.log_share(name) for name in names])
                found.append(Wrong(names, np.array([*near.values()]), here_C, anywhere_C, before.lower()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with corpus/books and corpus/wikipedia")
    parser.add_argument("--marker", type=Path, required=True, help="exported marker of grammar.py")
    parser.add_argument("--words", type=Path, default=WORDS, help="exported masked language model")
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = marked(
        open_checker(options.marker, options.words, threads=options.threads), options.data, options.sentences
    )
    rows = []
    for share in SHARES:
        for cost in COSTS:
            answers = [(one.ordered(share, cost), one.right) for one in found]
            right = {most: sum(right in names[:most] for names, right in answers) for most in (1, 3)}
            told = {f"top{most}": asdict(wilson_interval(hits, len(found))) for most, hits in right.items()}
            rows.append({"share": share, "cost": cost, **told})
            print(share, cost, {name: round(one["estimate"], 4) for name, one in told.items()}, flush=True)
    record = {
        **begun("suggestions", {"DATA": options.data, "MARKER": options.marker}, options.threads),
        "words": len(found),
        "rows": rows,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
