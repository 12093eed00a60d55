"""A model, its tokenizer and the pieces that a text needs in; both with these pieces alone, and narrower words, out.

Serves `prune`.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from squeezebert.files.errors import OptionError

_CONTINUES = "##"
_BATCH = 1024


def count_pieces(texts: Iterable[str], tokenizer: Any) -> Counter[int]:
    """Return how often each id occurs in texts, special tokens not counted."""
    counts: Counter[int] = Counter()
    lot: list[str] = []

    def flush() -> None:
        if lot:
            for ids in tokenizer(lot, add_special_tokens=False, verbose=False)["input_ids"]:
                counts.update(ids)
            lot.clear()

    for text in texts:
        lot.append(text)
        if len(lot) == _BATCH:
            flush()
    flush()
    return counts


def pieces_to_keep(tokenizer: Any, counts: Counter[int], least: int) -> np.ndarray:
    """Return the ids to keep, rising: special tokens, pieces that occur `least` times or more, and all characters.

    Single characters stay, alone and inside words, so that a word that no text had is spelled instead of unknown.
    Raises `OptionError` for a tokenizer that is not WordPiece.
    """
    kind = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"]
    if kind != "WordPiece":
        raise OptionError(f"the tokenizer is {kind}, and prune knows WordPiece, the kind of BERT and SqueezeBERT")
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    kept = {
        place
        for piece, place in tokenizer.get_vocab().items()
        if place in special or counts[place] >= least or len(piece.removeprefix(_CONTINUES)) == 1
    }
    return np.array(sorted(kept), dtype=np.int64)


def prune_tokenizer(tokenizer: Any, kept: np.ndarray) -> Any:
    """Return a tokenizer whose vocabulary is the pieces of `kept`, numbered from 0 in their order."""
    number_of = {int(old): new for new, old in enumerate(kept)}
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = told["model"]["vocab"]
    told["model"]["vocab"] = {piece: number_of[old] for piece, old in vocabulary.items() if old in number_of}
    _renumber(told["added_tokens"], number_of)
    _renumber(told.get("post_processor"), number_of)
    if told.get("padding"):
        told["padding"]["pad_id"] = number_of[told["padding"]["pad_id"]]
    pruned = copy.deepcopy(tokenizer)
    pruned._tokenizer = Tokenizer.from_str(json.dumps(told))
    return pruned


def _renumber(part: Any, number_of: dict[int, int]) -> None:
    """Give what a tokenizer's file says of tokens their new numbers: `id`, `ids`, and pairs of a token and its id."""
    if isinstance(part, list):
        if len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int):
            part[1] = number_of[part[1]]
            return
        for one in part:
            _renumber(one, number_of)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name == "id" and isinstance(value, int):
                part[name] = number_of[value]
            elif name == "ids":
                part[name] = [number_of[old] for old in value]
            else:
                _renumber(value, number_of)


@torch.no_grad()
def prune_model(model: Any, kept: np.ndarray) -> Any:
    """Return a copy of `model` with the embeddings of `kept` alone, and scores over them where it has such a head."""
    pruned = copy.deepcopy(model)
    rows = torch.from_numpy(kept)
    words = pruned.get_input_embeddings()
    words.weight = torch.nn.Parameter(words.weight[rows].clone())
    words.num_embeddings = len(kept)
    config = pruned.config
    config.vocab_size = len(kept)
    number_of = {int(old): new for new, old in enumerate(kept)}
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        old = getattr(config, name, None)
        if isinstance(old, int):
            setattr(config, name, number_of.get(old))
    words.padding_idx = config.pad_token_id
    head = pruned.get_output_embeddings()
    if head is not None:
        bias = torch.nn.Parameter(head.bias[rows].clone())
        head.weight, head.bias, head.out_features = words.weight, bias, len(kept)
        pruned.cls.predictions.bias = bias
    return pruned


@torch.no_grad()
def factorise_words(model: Any, weights: np.ndarray, rank: int) -> tuple[Any, float]:
    """Return a copy of `model` with a word table (V, rank) and a matrix for its (V, E), and the share that is kept.

    Their product is the nearest one to the table where row v counts `weights[v]` times, by singular values. That
    frequent words should be nearer is from Chen et al., 2018 (GroupReduce), who decompose groups of words apart. The
    share is that of the weighted squares of all numbers.
    Raises `OptionError` for a model that scores words, or whose words are narrower already.
    """
    narrowed = copy.deepcopy(model)
    embeddings, config = narrowed.base_model.embeddings, narrowed.config
    table = embeddings.word_embeddings.weight
    if narrowed.get_output_embeddings() is not None:
        raise OptionError("--word-rank: this model scores words by the same table, which has to be whole")
    if config.word_rank is not None:
        raise OptionError(f"--word-rank {rank}: the words of this model have {config.word_rank} channels already")
    if rank >= table.shape[1]:
        raise OptionError(f"--word-rank {rank}: the words of this model have {table.shape[1]} channels: give fewer")
    words = table.double()
    squares_EE = (words * torch.from_numpy(weights).double()[:, None]).t() @ words
    values, vectors = torch.linalg.eigh(squares_EE)
    basis_RE = vectors[:, -rank:].t()
    config.word_rank = rank
    fresh = type(embeddings)(config)
    fresh.load_state_dict(
        {name: value for name, value in embeddings.state_dict().items() if name != "word_embeddings.weight"}
        | {"word_embeddings.weight": (words @ basis_RE.t()).float(), "word_projection.weight": basis_RE.t().float()}
    )
    narrowed.base_model.embeddings = fresh.to(table.dtype).train(model.training)
    return narrowed, float(values[-rank:].sum() / values.sum())
