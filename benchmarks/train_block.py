"""What each step towards a fast training step gave: one block, forward and backward, against a BERT-base block.

python benchmarks/train_block.py [--runs 15] [--threads 2] [--output benchmarks/results/train_block.json]

Batch 16, 128 tokens, dropout 0.1, groups = 4, interleaved. The variants that lost live only here.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.files.stopwatch import interleave
from squeezebert.model.modeling import Dropout, merge_groups, split_groups

B, T, C, WIDE, G, H = 16, 128, 768, 3072, 4, 12
D = C // H
OURS, TORCHS = Dropout(0.1), nn.Dropout(0.1)


def weights(grouped: bool) -> dict[str, Tensor]:
    shapes = {"q": (C, C), "k": (C, C), "v": (C, C), "up": (WIDE, C), "down": (C, WIDE)}
    groups = G if grouped else 1
    made = {name: torch.randn(rows, columns // groups) * 0.02 for name, (rows, columns) in shapes.items()}
    made["out"] = torch.randn(C, C) * 0.02
    return {name: weight.requires_grad_() for name, weight in made.items()}


W, DENSE = weights(True), weights(False)
BIAS = {name: torch.zeros(len(weight), requires_grad=True) for name, weight in W.items()}
NORM = nn.LayerNorm(C)


def product(x_GNC: Tensor, name: str) -> Tensor:
    return torch.baddbmm(BIAS[name].view(G, 1, -1), x_GNC, W[name].view(G, -1, W[name].shape[1]).transpose(1, 2))


def alone(x_BTC: Tensor, name: str) -> Tensor:
    return merge_groups(product(split_groups(x_BTC, G), name), x_BTC.shape[:-1])


def sdpa(q: Tensor, k: Tensor, v: Tensor, dropout: nn.Dropout) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout.p)


def plain(q: Tensor, k: Tensor, v: Tensor, dropout: nn.Dropout) -> Tensor:
    return dropout((q * D**-0.5 @ k.transpose(2, 3)).softmax(-1)) @ v


def token_major_heads(x_BTC: Tensor) -> tuple[Tensor, ...]:
    return tuple(alone(x_BTC, name).view(B, T, H, D).transpose(1, 2) for name in "qkv")


def shared_heads(x_BTC: Tensor) -> tuple[Tensor, ...]:
    x_GNC = split_groups(x_BTC, G)
    return tuple(
        product(x_GNC, name).view(G, B, T, H // G, D).permute(1, 0, 3, 2, 4).reshape(B, H, T, D) for name in "qkv"
    )


def fused_heads(x_BTC: Tensor) -> tuple[Tensor, ...]:
    weight = torch.cat([W[name].view(G, C // G, C // G) for name in "qkv"], 1)
    bias = torch.cat([BIAS[name].view(G, 1, C // G) for name in "qkv"], 2)
    out = torch.baddbmm(bias, split_groups(x_BTC, G), weight.transpose(1, 2))
    return out.view(G, B, T, 3, H // G, D).permute(3, 1, 0, 4, 2, 5).reshape(3, B, H, T, D).unbind(0)


def dense_heads(x_BTC: Tensor) -> tuple[Tensor, ...]:
    return tuple(F.linear(x_BTC, DENSE[name], BIAS[name]).view(B, T, H, D).transpose(1, 2) for name in "qkv")


def separate_ffn(x_BTC: Tensor) -> Tensor:
    return alone(F.gelu(alone(x_BTC, "up")), "down")


def chained_ffn(x_BTC: Tensor) -> Tensor:
    return merge_groups(product(F.gelu(product(split_groups(x_BTC, G), "up")), "down"), x_BTC.shape[:-1])


def dense_ffn(x_BTC: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x_BTC, DENSE["up"], BIAS["up"])), DENSE["down"], BIAS["down"])


def block(heads: Callable, attention: Callable, ffn: Callable, dropout: nn.Dropout) -> Callable[[], None]:
    x = torch.randn(B, T, C, requires_grad=True)
    gradient = torch.randn(B, T, C)

    def step() -> None:
        context = attention(*heads(x), dropout).transpose(1, 2).reshape(B, T, C)
        y = NORM(dropout(F.linear(context, W["out"], BIAS["out"])) + x)
        NORM(dropout(ffn(y)) + y).backward(gradient)

    return step


VARIANTS = {
    "BERT-base block": (dense_heads, sdpa, dense_ffn, TORCHS),
    "batched products, torch's SDPA and dropout": (token_major_heads, sdpa, separate_ffn, TORCHS),
    "and plain attention (with dropout, torch's SDPA is that on CPUs)": (
        token_major_heads,
        plain,
        separate_ffn,
        TORCHS,
    ),
    "and one split for Q, K, V; FFN2, GELU, FFN3 without a change of layout": (
        shared_heads,
        plain,
        chained_ffn,
        TORCHS,
    ),
    "and dropout masks from 16-bit draws: what the model does": (shared_heads, plain, chained_ffn, OURS),
    "and Q, K, V in one product: not kept": (fused_heads, plain, chained_ffn, OURS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    timings = interleave({name: block(*parts) for name, parts in VARIANTS.items()}, options.runs)
    dense = timings["BERT-base block"].median_ms
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "threads": options.threads,
        "timings": {name: timing.to_dict() for name, timing in timings.items()},
        "ratios": {name: round(dense / timing.median_ms, 3) for name, timing in timings.items()},
    }
    text = json.dumps(record, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
