"""A small corpus and students of a tiny teacher, for the tests of general distillation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from squeezebert.data.corpus import Corpus, tokenise_corpus
from squeezebert.model import SqueezeBertConfig, SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS

WORDS = ("the", "match", "goal", "team", "coach", "bank", "market", "share", "film", "star", "song", "vote", "law")


def small_corpus(folder: Path, tokenizer: Any) -> Corpus:
    """Five hundred sentences of a few words in sequences of at most 32 tokens."""
    generator = random.Random(0)
    sentences = [" ".join(generator.choices(WORDS, k=generator.randint(2, 9))) + "." for _ in range(500)]
    (folder / "text.txt").write_text("\n".join(sentences))
    return tokenise_corpus(folder / "text.txt", tokenizer, folder / "tokens", max_length=32)


def new_student(teacher: Any, **changes: Any) -> SqueezeBertModel:
    """A student of the teacher's size with its embeddings and random grouped layers."""
    torch.manual_seed(5)
    sizes = {name: getattr(teacher.config, name) for name in ("vocab_size", "max_position_embeddings")}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    groups = dict.fromkeys(GROUP_FIELDS, 2) | {"post_attention_groups": 1}
    student = SqueezeBertModel(SqueezeBertConfig(**{**sizes, **shape, **groups, **changes}))
    if not changes.keys() & {"vocab_size", "hidden_size", "max_position_embeddings"}:
        student.embeddings.load_state_dict(teacher.embeddings.state_dict())
    return student.eval()
