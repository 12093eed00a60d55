"""Text and a corpus to pretrain on that are small enough for a test."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from squeezebert.data.options import CorpusOptions
from squeezebert.data.pretraining.building import build_corpus
from squeezebert.data.pretraining.rows import PretrainingCorpus

# In this order words follow one another, so that masked ones can be guessed and swapped halves noticed
TEXT = "the team won a cup and the bank lost a share of trade while a film star sang the song of a minister"
CHAIN = TEXT.split()


def write_documents(path: Path, count: int, seed: int = 0) -> Path:
    """Documents of a few paragraphs, each sentence a stretch of the chain; no two alike."""
    generator = random.Random(seed)
    documents = []
    for number in range(count):
        paragraphs = []
        for _ in range(generator.randint(1, 3)):
            sentences = []
            for _ in range(generator.randint(2, 6)):
                start = generator.randrange(len(CHAIN) - 6)
                sentences.append(" ".join(CHAIN[start : start + generator.randint(4, 7)]) + ".")
            paragraphs.append(" ".join(sentences))
        documents.append("\n".join([f"document {number} of {seed}.", *paragraphs]))
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


def small_pretraining_corpus(folder: Path, tokenizer: Any, documents: int = 400) -> PretrainingCorpus:
    """A corpus with the tests' own vocabulary."""
    tokenizer.save_pretrained(folder / "tokenizer")
    write_documents(folder / "text.txt", documents)
    options = CorpusOptions(
        vocabulary=str(folder / "tokenizer"), held_out=0.1, shortest=5, shard_tokens=20_000, workers=1
    )
    build_corpus([str(folder / "text.txt")], folder / "corpus", options)
    return PretrainingCorpus.open(folder / "corpus")
