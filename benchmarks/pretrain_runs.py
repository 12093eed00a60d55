"""Small real pretraining: groups 4 against groups 1 on Wikipedia and books, then SST-2 and CoLA from the checkpoints.

python benchmarks/pretrain_runs.py corpus   --data DIR --work DIR
python benchmarks/pretrain_runs.py arm      --data DIR --work DIR --arm groups-4 --hours 5 [--legs 2 --leg 1]
python benchmarks/pretrain_runs.py finetune --data DIR --work DIR --arms groups-4,groups-1,scratch-4,scratch-1
python benchmarks/pretrain_runs.py record   --data DIR --work DIR

--data is a folder with corpus/{wikipedia,books} and glue/. Arms are 6 layers of 256 channels and a vocabulary of 8192
trained on the text, AdamW, batches of 64 rows of 128 tokens, one thread. The first arm measures its steps and takes as
many as fit into its hours; the others take the same number (equal tokens), and their logs say what they had reached
after the same time. An arm of several legs ends each with a learning rate of 0 and a checkpoint, from which the next
starts anew: it can be carried out on several days. Everything resumes. Scores after finetuning have three seeds each.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.utils import logging

from squeezebert.data.glue import GLUE, load_glue
from squeezebert.data.options import CorpusOptions
from squeezebert.data.pretraining.batches import IGNORED
from squeezebert.data.pretraining.building import TOKENIZER, build_corpus
from squeezebert.data.pretraining.rows import PretrainingCorpus
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertConfig, SqueezeBertForPreTraining, SqueezeBertForSequenceClassification
from squeezebert.training.finetune import finetune
from squeezebert.training.options import FinetuneOptions, PretrainOptions
from squeezebert.training.pretraining import LOG, RECORD, MicroBatches, batches_of, optimizer_of, pretrain

RESULTS = Path(__file__).parent / "results"
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 128,
    "vocab_size": 8192,
}
GROUPS = ("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups")
OPTIONS: dict[str, Any] = {
    "batch_size": 64,
    "micro_batch": 64,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "warmup": 0.05,
    "dropout": 0.0,
    "save_every": 500,
    "precision": "bf16",
    "held_out_rows": 4096,
}
TASKS = {"SST-2": 1, "CoLA": 5}  # epochs


def say(line: str) -> None:
    print(line, flush=True)


def configuration(arm: str) -> SqueezeBertConfig:
    groups = int(arm.rpartition("-")[2])
    return SqueezeBertConfig(**SIZES | dict.fromkeys(GROUPS, groups))


def corpus_of(work: Path) -> PretrainingCorpus:
    return PretrainingCorpus.open(work / "corpus")


def make_corpus(data: Path, work: Path) -> None:
    sources = [str(data / "corpus" / name) for name in ("wikipedia", "books")]
    build_corpus(sources, work / "corpus", CorpusOptions(vocabulary_size=SIZES["vocab_size"], workers=1), say)


def step_seconds(corpus: PretrainingCorpus, arm: str) -> float:
    """Measure a step: the median of some, after a few."""
    tokenizer = corpus.tokenizer()
    options = PretrainOptions(**OPTIONS)
    batches, _ = batches_of(corpus, tokenizer, options)
    model = SqueezeBertForPreTraining(configuration(arm)).train()
    optimiser = optimizer_of(model, options)
    found = []
    for number in range(12):
        began = time.perf_counter()
        batch = MicroBatches(batches, 12)[number]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch, masked_only=True).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append(time.perf_counter() - began)
    return float(np.median(found[3:]))


def steps_of(work: Path, corpus: PretrainingCorpus, arm: str, hours: float, legs: int) -> int:
    """The steps of a leg: measured once, by the first arm, and the same for all."""
    plan = work / "plan.json"
    if not plan.exists():
        seconds = step_seconds(corpus, arm)
        steps = max(1, round(hours / legs * 3600 / seconds))
        plan.write_text(json.dumps({"arm": arm, "hours": hours, "legs": legs, "seconds": seconds, "steps": steps}))
    return int(json.loads(plan.read_text())["steps"])


def train_arm(work: Path, arm: str, hours: float, legs: int, leg: int) -> None:
    corpus = corpus_of(work)
    output = work / f"{arm}-leg-{leg}"
    if (output / RECORD).exists():
        return
    steps = steps_of(work, corpus, arm, hours, legs)
    transformers.set_seed(42)
    if leg == 1:
        model = SqueezeBertForPreTraining(configuration(arm))
    else:
        model = SqueezeBertForPreTraining.from_pretrained(work / f"{arm}-leg-{leg - 1}")
    options = PretrainOptions(**OPTIONS, steps=steps, seed=42 + leg)
    pretrain(model, corpus, output, options, report=say, command="python benchmarks/pretrain_runs.py arm")


def cell(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result, made now or by an earlier run."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(make()))
        part.replace(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def finetune_arms(data: Path, work: Path, arms: list[str], seeds: list[int]) -> None:
    """SST-2 and CoLA from each arm's last leg, or for `scratch-N` from random weights of the same sizes."""
    corpus = corpus_of(work)
    for task, epochs in TASKS.items():
        labelled = load_glue(task, data / "glue", dev=False).labelled
        metric = GLUE[task].watched
        for arm in arms:
            legs = sorted(work.glob(f"{arm}-leg-*"))
            for seed in seeds:

                def run(arm: str = arm, seed: int = seed, legs: list[Path] = legs) -> dict[str, Any]:
                    transformers.set_seed(seed)
                    config = configuration(arm)
                    config.num_labels = len(labelled.labels)  # noqa: B023
                    model = SqueezeBertForSequenceClassification(config)
                    if legs:
                        model = SqueezeBertForSequenceClassification.from_pretrained(legs[-1], num_labels=2)
                    model.config.id2label = dict(enumerate(labelled.labels))  # noqa: B023
                    options = FinetuneOptions(
                        learning_rate=2e-4,
                        epochs=epochs,  # noqa: B023
                        batch_size=32,
                        metric=metric,  # noqa: B023
                        patience=0,
                        save_every=10**6,
                        precision="bf16",
                        seed=seed,
                    )
                    told = {"model": model, "overwrite": True}
                    found = finetune(labelled, corpus.folder / TOKENIZER, work / "finetuning", options, **told)  # noqa: B023
                    return {"task": task, "arm": arm, "seed": seed, "score": 100 * found.metrics[metric]}  # noqa: B023

                say(str(cell(work / "scores" / f"{task}-{arm}-{seed}.json", run)))


def unigram_loss(corpus: PretrainingCorpus) -> float:
    """Held-out loss of who knows how often each token occurs, and nothing else: what MLM has to stay well under."""
    tokenizer = corpus.tokenizer()
    counts = np.ones(len(tokenizer))
    for shard in corpus.split("train"):
        counts += np.bincount(shard.ids, minlength=len(tokenizer))
    logs = np.log(counts / counts.sum())
    _, held_out = batches_of(corpus, tokenizer, PretrainOptions(**OPTIONS))
    labels = np.concatenate([batch["labels"][batch["labels"] != IGNORED] for batch in held_out])
    return float(-logs[labels].mean())


def record(work: Path) -> None:
    corpus = corpus_of(work)
    runs = []
    for folder in sorted(work.glob("groups-*-leg-*")):
        rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
        done = json.loads((folder / RECORD).read_text()) if (folder / RECORD).exists() else {}
        about = {name: done.get(name) for name in ("options", "parameters", "padding")}
        arm, _, leg = folder.name.partition("-leg-")
        runs.append({"arm": arm, "leg": int(leg), "finished": bool(done), **about, "rows": rows})
    kept = ("splits", "left_out", "tokens_a_second", "vocabulary_entries", "sources")
    told = {
        "command": "python " + shlex.join(["benchmarks/pretrain_runs.py", "record"]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "sizes": SIZES,
        "corpus": {name: corpus.manifest[name] for name in kept},
        "unigram_loss": unigram_loss(corpus),
        "chance": {"mlm_loss": math.log(SIZES["vocab_size"]), "sop_accuracy": 0.5},
        "runs": runs,
        "scores": [json.loads(path.read_text()) for path in sorted((work / "scores").glob("*.json"))],
    }
    (RESULTS / "pretrain_runs.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("corpus", "arm", "finetune", "record"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arm", default="groups-4")
    parser.add_argument("--hours", type=float, default=5.0)
    parser.add_argument("--legs", type=int, default=1)
    parser.add_argument("--leg", type=int, default=1)
    parser.add_argument("--arms", default="groups-4,groups-1,scratch-4,scratch-1")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    work = options.work / "pretrain"
    work.mkdir(parents=True, exist_ok=True)
    if options.part == "corpus":
        make_corpus(options.data, work)
    elif options.part == "arm":
        train_arm(work, options.arm, options.hours, options.legs, options.leg)
    elif options.part == "finetune":
        finetune_arms(options.data, work, options.arms.split(","), [int(seed) for seed in options.seeds.split(",")])
    else:
        record(work)


if __name__ == "__main__":
    main()
