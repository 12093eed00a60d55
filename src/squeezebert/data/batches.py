"""Examples and a tokenizer in; a dataset of token ids with lengths and targets out. Serves training and export."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from squeezebert.data.examples import Example


@dataclass(frozen=True)
class TokenisedTexts(Dataset[dict[str, Any]]):
    """Texts as token ids, each of its own length; the collator pads a batch of them."""

    encodings: list[dict[str, list[int]]]
    """For each text its input_ids, token_type_ids where the model takes them, and attention_mask."""
    targets: np.ndarray | None
    """One target a text, as `encode_targets` makes them, or None."""
    truncated: int
    """How many texts were longer than the limit."""
    numbered: bool = False
    """Whether an item says its number, as `row`."""

    def __len__(self) -> int:
        return len(self.encodings)

    def __getitem__(self, row: int) -> dict[str, Any]:
        item: dict[str, Any] = dict(self.encodings[row])
        if self.targets is not None:
            item["labels"] = self.targets[row]
        if self.numbered:
            item["row"] = row
        return item

    @property
    def tokens(self) -> int:
        """Number of tokens of all texts together."""
        return sum(len(encoding["input_ids"]) for encoding in self.encodings)


def tokenise(
    tokenizer: Any,
    examples: Sequence[Example],
    max_length: int,
    targets: np.ndarray | None = None,
    takes: Container[str] = ("token_type_ids",),
) -> TokenisedTexts:
    """Tokenise texts or pairs of texts, cut to `max_length` tokens (of a pair, the longer text is cut first).

    `takes` are the names of what the model's forward takes: some models know no token types.
    """
    encodings: list[dict[str, list[int]]] = []
    truncated = 0
    types = "token_type_ids" in takes
    for example in examples:
        pair = () if example.text_pair is None else (example.text_pair,)
        whole = tokenizer(example.text, *pair, truncation=False, verbose=False, return_token_type_ids=types)
        if len(whole["input_ids"]) > max_length:
            truncated += 1
            whole = tokenizer(
                example.text, *pair, truncation="longest_first", max_length=max_length, return_token_type_ids=types
            )
        encodings.append(dict(whole))
    return TokenisedTexts(encodings, targets, truncated)
