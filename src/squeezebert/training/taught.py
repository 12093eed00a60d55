"""A teacher and a task's texts in; its answers and hidden states of every text, computed once, out.

Serves `trainer.py`, which looks them up in every epoch instead of running the teacher again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from squeezebert.data.batches import TokenisedTexts
from squeezebert.files.errors import OptionError
from squeezebert.training.teacher import accepted

_BATCH = 32


@dataclass(frozen=True)
class TaughtTexts:
    """What a teacher makes of texts, by their numbers; hidden states are rounded to float16."""

    logits: Tensor
    """Its answers, (texts, L)."""
    states: list[Tensor]
    """Of each layer, the states of all texts one after another, float16 (tokens, C); empty where nobody asks."""
    offsets: Tensor
    """Where each text's states begin, and where the last one's end, (texts + 1,)."""

    @classmethod
    def of(
        cls,
        teacher: Any,
        texts: TokenisedTexts,
        tokenizer: Any,
        *,
        hidden: bool,
        gigabytes: float = float("inf"),
        bf16: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> TaughtTexts:
        """Run the teacher over the texts, in an order that they alone decide, so that a resumed run sees the same.

        `hidden` asks for hidden states as well, `bf16` for that arithmetic. Raises `OptionError` when the states
        would take more than `gigabytes`.
        """
        layers, width = teacher.config.num_hidden_layers * hidden, teacher.config.hidden_size
        size = texts.tokens * layers * width * 2 / 1e9
        if size > gigabytes:
            raise OptionError(
                f"--cache-teacher: the teacher's states of {texts.tokens} tokens take {size:.1f} GB of memory, and "
                f"--cache-gigabytes is {gigabytes:g}: raise it, leave --cache-teacher out, or set --hidden-weight to 0"
            )
        lengths = torch.tensor([0, *(len(encoding["input_ids"]) for encoding in texts.encodings)])
        offsets = lengths.cumsum(0)
        states = [torch.empty(texts.tokens, width, dtype=torch.float16) for _ in range(layers)]
        pad, takes = DataCollatorWithPadding(tokenizer), accepted(teacher)
        order = lengths[1:].argsort(stable=True)
        found: list[Tensor] = []
        began = said = time.monotonic()
        training = teacher.training
        teacher.eval()
        with torch.inference_mode(), torch.autocast(teacher.device.type, torch.bfloat16, enabled=bf16):
            for rows in order.split(_BATCH):
                batch = {k: v.to(teacher.device) for k, v in pad([texts.encodings[row] for row in rows]).items()}
                taught = teacher(**{k: v for k, v in batch.items() if k in takes}, output_hidden_states=hidden)
                found.append(taught.logits.float().cpu())
                places, text = _places(offsets, rows), batch["attention_mask"].bool()
                for layer, kept in enumerate(states):
                    kept[places] = taught.hidden_states[layer + 1][text].half().cpu()
                now = time.monotonic()
                if now - said > 10:
                    said, done = now, sum(map(len, found))
                    # Short texts come first: the time that is left goes by tokens
                    share = float(lengths[1:][order[:done]].sum()) / texts.tokens
                    report(
                        f"the teacher has read {done} of {len(texts)} texts, "
                        f"about {(now - began) * (1 / share - 1):.0f} s left"
                    )
        teacher.train(training)
        logits = torch.cat(found)
        return cls(logits[order.argsort()], states, offsets)

    def look_up(self, rows: Tensor, mask_BT: Tensor, order: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the answers (B, L) to texts, and their states of each layer, float32 (B, T, C), 0 at padding.

        `order` are the channels as the student has them.
        """
        text_N = mask_BT.flatten().bool().nonzero().squeeze(1).cpu()
        places = _places(self.offsets, rows.cpu())
        layers = []
        for states in self.states:
            found = states[places].float()
            padded = torch.zeros(mask_BT.numel(), states.shape[1])
            padded[text_N] = found if order is None else found[:, order]
            layers.append(padded.view(*mask_BT.shape, -1).to(mask_BT.device))
        return self.logits[rows.cpu()].to(mask_BT.device), layers


def _places(offsets: Tensor, rows: Tensor) -> Tensor:
    """Where the tokens of texts stand among those of all, one text after another."""
    return torch.cat([torch.arange(int(offsets[row]), int(offsets[row + 1])) for row in rows])
