"""What every test shares: no network, one thread per worker, a tiny vocabulary."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import random
from pathlib import Path

import pytest

TEXT = """
the a match goal team coach cup league won lost bank market share profit price trade rose fell
film star song album prize stage voice minister vote law party bill debate good bad very and of in to
"""
WORDS = TEXT.split()


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory):
    """An uncased WordPiece tokenizer of some fifty words and all letters, as transformers loads it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *WORDS]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.BertProcessing(ends[1], ends[0])
    return BertTokenizer(tokenizer_object=tokenizer, model_max_length=48)


@pytest.fixture(scope="session")
def tiny_base(tiny_tokenizer, tmp_path_factory) -> Path:
    """A checkpoint folder of a two-layer BERT with random weights and its tokenizer."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
        hidden_dropout_prob=0.1,
        initializer_range=0.15,  # large, so that a few steps are enough to learn
    )
    transformers.BertModel(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


TOPICS = {
    "sport": "match goal team coach cup league",
    "money": "bank market share profit price trade",
    "stage": "film star song album prize voice",
}


def topic_rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts that a few words of a topic give away, with their topic."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        topic = list(TOPICS)[number % len(TOPICS)]
        words = generator.choices(TOPICS[topic].split(), k=3) + generator.choices(WORDS, k=generator.randint(1, 8))
        generator.shuffle(words)
        rows.append((f"{' '.join(words)} {number}", topic))
    return rows


@pytest.fixture
def topic_table(tmp_path) -> Path:
    """A CSV file of 150 labelled texts."""
    path = tmp_path / "topics.csv"
    path.write_text("message,folder\n" + "".join(f'"{text}",{topic}\n' for text, topic in topic_rows(150)))
    return path
