"""Speed of pretraining, whole steps: ours against transformers' SqueezeBERT and BERT under plain Trainer.

python benchmarks/pretrain_speed.py [--sizes small,base] [--steps 6] [--rounds 5] [--threads 2] [--micro-batch 16]

Every contender runs its own Trainer for a few steps at a time, in turn, on the same rows of generated text, all of
nearly full length: data, masks, forward, backward and optimiser. What is counted is tokens, padding left out. Ours is
`squeezebert pretrain` with LAMB; the others are what people write today: rows in a list,
DataCollatorForLanguageModeling, AdamW. BertForPreTraining gets order labels too. Beside it, how many tokens a second
the data pipeline alone makes. Writes benchmarks/results/pretrain_speed.json.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback
from transformers.utils import logging

from squeezebert.data.options import CorpusOptions
from squeezebert.data.pretraining.batches import PretrainingBatches
from squeezebert.data.pretraining.building import build_corpus
from squeezebert.data.pretraining.rows import PretrainingCorpus, Rows
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertConfig, SqueezeBertForPreTraining
from squeezebert.training.options import PretrainOptions
from squeezebert.training.pretraining import MicroBatches, PretrainTrainer, batches_of

RESULTS = Path(__file__).parent / "results"
SIZES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
OURS = "squeezebert pretrain"
# Ratios that are aimed at: name of the baseline -> how many times ours is faster
AIMS = {"transformers' SqueezeBertForMaskedLM": 2.0, "transformers' BertForPreTraining": 2.5}
TOKENS = 128


class Clock(TrainerCallback):
    """Times steps, but for the first of each start."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step > 1:
            self.seconds.append(time.perf_counter() - self.since)


def make_corpus(folder: Path) -> PretrainingCorpus:
    """Documents of random words in lengths as articles have them."""
    generator = random.Random(0)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(4000)]
    documents = []
    for _ in range(400):
        sentences = [
            " ".join(generator.choices(words, k=generator.randint(8, 30))) + "."
            for _ in range(generator.randint(5, 80))
        ]
        documents.append(" ".join(sentences))
    (folder / "text.txt").write_text("\n\n".join(documents))
    told = CorpusOptions(vocabulary_size=8000, workers=1, held_out=0.05)
    build_corpus([str(folder / "text.txt")], folder / "corpus", told)
    return PretrainingCorpus.open(folder / "corpus")


def full_rows(batches: PretrainingBatches, tokenizer: Any) -> PretrainingBatches:
    """Batches of the longest rows alone, so that no contender is ahead by how it batches short ones."""
    rows = batches.rows
    kept = rows.length + 3 >= 0.9 * TOKENS
    columns = (getattr(rows, name)[kept] for name in ("shard", "start", "length", "sentence", "sentences"))
    return PretrainingBatches(Rows(rows.shards, *columns), batches.size, tokenizer, batches.masking, batches.seed)


def contenders(
    size: dict[str, int], corpus: PretrainingCorpus, micro_batch: int, steps: int, folder: Path, precision: str
) -> tuple[dict[str, tuple[Callable[[], Any], Clock]], float]:
    """For each name, what runs a few steps, and the clock that timed them; and the tokens of a row, on average."""
    tokenizer = corpus.tokenizer()
    vocabulary = 30_528  # as in the public checkpoint: the head is a large part of a small model's work
    options = PretrainOptions(batch_size=micro_batch, micro_batch=micro_batch, steps=steps, precision=precision)  # type: ignore[arg-type]
    ours = full_rows(batches_of(corpus, tokenizer, options)[0], tokenizer)
    arguments = {
        "output_dir": str(folder / "runs"),
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch,
        "use_cpu": True,
        "bf16": precision == "bf16",
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1000,
        "warmup_steps": 1,
    }
    # What plain Trainer reads: the same rows, without the work of making pairs
    rows = [[tokenizer.cls_token_id, *ours.rows.ids(row), tokenizer.sep_token_id] for row in range(len(ours.rows))]
    plain = [{"input_ids": [*map(int, row), tokenizer.sep_token_id]} for row in rows]
    pairs = [item | {"next_sentence_label": number % 2} for number, item in enumerate(plain)]
    masks = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    made: dict[str, tuple[Callable[[], Any], Clock]] = {}

    def add(name: str, model: Any, trainer: Callable[[Any, list[Any]], Any]) -> None:
        clock = Clock()
        made[name] = (lambda: trainer(model, [clock]).train(), clock)

    def of_ours(model: Any, callbacks: list[Any]) -> Any:
        told = transformers.TrainingArguments(**arguments | {"per_device_train_batch_size": 1})
        data = MicroBatches(ours, steps)
        more = {"options": options, "held_out": [], "log": folder / "log", "report": lambda line: None}
        return PretrainTrainer(
            model=model, args=told, train_dataset=data, data_collator=lambda i: i[0], callbacks=callbacks, **more
        )

    def of_theirs(data: Any) -> Callable[[Any, list[Any]], Any]:
        told = transformers.TrainingArguments(**arguments)
        return lambda model, callbacks: transformers.Trainer(
            model=model, args=told, train_dataset=data, data_collator=masks, callbacks=callbacks
        )

    torch.manual_seed(0)
    add(OURS, SqueezeBertForPreTraining(SqueezeBertConfig(vocab_size=vocabulary, **size)), of_ours)
    dense = SqueezeBertConfig(
        vocab_size=vocabulary, q_groups=1, k_groups=1, v_groups=1, intermediate_groups=1, output_groups=1, **size
    )
    add(f"{OURS}, groups 1", SqueezeBertForPreTraining(dense), of_ours)
    theirs = transformers.SqueezeBertConfig(vocab_size=vocabulary, embedding_size=size["hidden_size"], **size)
    add("transformers' SqueezeBertForMaskedLM", transformers.SqueezeBertForMaskedLM(theirs), of_theirs(plain))
    bert = transformers.BertForPreTraining(transformers.BertConfig(vocab_size=vocabulary, **size))
    add("transformers' BertForPreTraining", bert, of_theirs(pairs))
    return made, float(ours.rows.length.mean()) + 3


def pipeline_speed(corpus: PretrainingCorpus) -> float:
    """Tokens a second that the data pipeline makes, in one process."""
    tokenizer = corpus.tokenizer()
    batches, _ = batches_of(corpus, tokenizer, PretrainOptions(batch_size=32, micro_batch=32))
    began, tokens = time.perf_counter(), 0
    for number in range(200):
        tokens += int(batches[number]["attention_mask"].sum())
    return tokens / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="small,base")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        corpus = make_corpus(Path(place))
        speed = pipeline_speed(corpus)
        for name in options.sizes.split(","):
            told = SIZES[name], corpus, options.micro_batch, options.steps, Path(place), options.precision
            runs, row_tokens = contenders(*told)
            for _ in range(options.rounds):
                for run, _clock in runs.values():
                    run()
            seconds = {who: statistics.median(clock.seconds) for who, (_, clock) in runs.items()}
            tokens = options.micro_batch * row_tokens
            found[name] = {
                who: {
                    "seconds": one,
                    "spread": sorted(runs[who][1].seconds)[:: max(1, len(runs[who][1].seconds) - 1)],
                    "tokens_a_second": tokens / one,
                    "ours_is_faster_by": one / seconds[OURS],
                }
                for who, one in seconds.items()
            }
            for who, one in found[name].items():
                print(f"{name}: {who}: {one['tokens_a_second']:.0f} a second, {one['ours_is_faster_by']:.2f}x")
    record = {
        "command": "python " + shlex.join(["benchmarks/pretrain_speed.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "threads": options.threads,
        "micro_batch": options.micro_batch,
        "precision": options.precision,
        "sizes": {name: SIZES[name] for name in found},
        "aims": AIMS,
        "pipeline_tokens_a_second": speed,
        "found": found,
    }
    (RESULTS / "pretrain_speed.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"the data pipeline alone: {speed:.0f} tokens a second")


if __name__ == "__main__":
    main()
