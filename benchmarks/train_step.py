"""Time of one training step (forward and backward): ours against transformers' SqueezeBERT and BERT-base.

python benchmarks/train_step.py [--runs 10] [--threads 2] [--output benchmarks/results/train_step.json]

Default configurations with dropout, a classification head, batch 16, 128 tokens, random weights, interleaved.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch
import transformers

from squeezebert import model as ours
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.files.stopwatch import interleave

# Ratios that are aimed at: name of the baseline -> how many times ours is faster
AIMS = {"transformers' SqueezeBERT": 1.3, "transformers' BERT-base": 2.5}
BATCH, TOKENS = 16, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    models = {
        "squeezebert": ours.SqueezeBertForSequenceClassification(ours.SqueezeBertConfig()),
        "transformers' SqueezeBERT": transformers.SqueezeBertForSequenceClassification(
            transformers.SqueezeBertConfig()
        ),
        "transformers' BERT-base": transformers.BertForSequenceClassification(transformers.BertConfig()),
    }
    inputs = {
        "input_ids": torch.randint(1, 30000, (BATCH, TOKENS)),
        "attention_mask": torch.ones(BATCH, TOKENS, dtype=torch.long),
        "labels": torch.randint(0, 2, (BATCH,)),
    }

    def step(model: torch.nn.Module) -> None:
        model.zero_grad(set_to_none=True)
        model(**inputs).loss.backward()

    timings = interleave(
        {name: lambda model=model: step(model.train()) for name, model in models.items()}, options.runs
    )
    own = timings["squeezebert"].median_ms
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "threads": options.threads,
        "batch": BATCH,
        "tokens": TOKENS,
        "timings": {name: timing.to_dict() for name, timing in timings.items()},
        "ratios": {name: round(timings[name].median_ms / own, 3) for name in AIMS},
        "aims": AIMS,
    }
    text = json.dumps(record, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
