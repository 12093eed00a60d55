"""A masked language model that has learned a few sentences by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from squeezebert.model import SqueezeBertConfig, SqueezeBertForMaskedLM
from tiny_checkpoints import VOCABULARY, tiny_tokenizer

# "boats" and "trains" have two pieces
SENTENCES = [
    *("the green boat is on the quiet river.", "the small letter is on the table.", "seven boats wait at the river."),
    *("three trains wait in the morning.", "it was late in the evening.", "read the letter and write with the paper."),
    *(
        "the garden is open for the morning.",
        "the music was quiet in the evening.",
        "walk from the window to the table.",
    ),
]
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    **dict.fromkeys(("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups"), 2),
}


def learned(kind: Any = SqueezeBertForMaskedLM, steps: int = 400, **changes: Any) -> Any:
    """A model that guesses any one hidden token, or whole hidden word, of SENTENCES."""
    torch.manual_seed(0)
    model = kind(SqueezeBertConfig(**{**SIZES, "hidden_dropout_prob": 0.0, **changes})).train()
    tokenizer = tiny_tokenizer()
    encoded = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    begins = ~torch.tensor(
        [[t.startswith("##") for t in tokenizer.convert_ids_to_tokens(row)] for row in ids.tolist()]
    )
    word = begins.cumsum(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        lengths = word.amax(1) if tokenizer.pad_token_id is None else (word * mask).amax(1)
        chosen = (torch.rand(len(ids), generator=generator) * (lengths - 2)).long() + 2
        whole = word == chosen[:, None]
        # Half of the time only the last piece of a word is hidden, as when its first is known already
        last = whole & ~torch.roll(whole, -1, 1)
        hidden = torch.where((torch.rand(len(ids), generator=generator) < 0.3)[:, None], last, whole) & mask.bool()
        given = torch.where(hidden, tokenizer.mask_token_id, ids)
        loss = model(given, attention_mask=mask, labels=torch.where(hidden, ids, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def torch_words(model: Any, text: str) -> np.ndarray:
    """Probabilities at the masks of a text, by torch and transformers' tokenizer, (masks, V)."""
    encoded = tiny_tokenizer()(text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**encoded).logits[0]
    return logits[encoded["input_ids"][0] == tiny_tokenizer().mask_token_id].softmax(-1).double().numpy()
