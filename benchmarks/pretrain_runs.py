"""Small real pretraining: groups 4 against groups 1 on Wikipedia and books, then SST-2 and CoLA from the checkpoints.

python benchmarks/pretrain_runs.py corpus   --data DIR --work DIR
python benchmarks/pretrain_runs.py plan     --work DIR --hours 5
python benchmarks/pretrain_runs.py rates    --work DIR [--arms groups-4,groups-1]
python benchmarks/pretrain_runs.py arm      --work DIR --arm groups-4
python benchmarks/pretrain_runs.py finetune --data DIR --work DIR [--arms groups-4,scratch-4]
python benchmarks/pretrain_runs.py record   --work DIR

--data is a folder with corpus/{wikipedia,books} and glue/. Models are 6 layers of 256 channels, with a vocabulary of
8192 trained on the text; AdamW, batches of 64 rows of 128 tokens, one thread. `plan` measures the steps of both
models in turn, and says how many fit into the hours. Three arms: `groups-4` and `groups-1` take as many as fit, each
in a schedule of its own (equal time); `groups-4-tokens` takes as many as `groups-1` (equal tokens). `rates` tries
three learning rates for a twentieth of each, before; the arms take the best of them. Everything resumes. Finetuning
tries three learning rates with the first seed, for random weights (`scratch-4`, `scratch-1`) as for pretrained ones,
and the best with all seeds; scores are those of the best evaluation, on the rows that it was chosen by.
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
from squeezebert.training.runs import dropout_of

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
RATES = (5e-4, 1e-3, 2e-3)  # of pretraining
SHARE = 0.05  # of an arm's steps, to choose its rate by
TASKS = {"SST-2": 2, "CoLA": 10}  # epochs
TASK_RATES = (1e-4, 2e-4, 5e-4)
SCRATCH = "scratch-"


def say(line: str) -> None:
    print(line, flush=True)


def groups_of(arm: str) -> int:
    return int(arm.split("-")[1])


def configuration(arm: str) -> SqueezeBertConfig:
    return SqueezeBertConfig(**SIZES | dict.fromkeys(GROUPS, groups_of(arm)))


def corpus_of(work: Path) -> PretrainingCorpus:
    return PretrainingCorpus.open(work / "corpus")


def make_corpus(data: Path, work: Path) -> None:
    sources = [str(data / "corpus" / name) for name in ("wikipedia", "books")]
    build_corpus(sources, work / "corpus", CorpusOptions(vocabulary_size=SIZES["vocab_size"], workers=1), say)


def make_plan(work: Path, hours: float) -> None:
    """Measure a step of both models, in turn, and note how many fit into the hours: once, for all arms."""
    place = work / "plan.json"
    if place.exists():
        raise SystemExit(f"{place} is there already: {place.read_text()}")
    corpus = corpus_of(work)
    options = PretrainOptions(**OPTIONS)
    batches, _ = batches_of(corpus, corpus.tokenizer(), options)
    made = {}
    for arm in ("groups-4", "groups-1"):
        model = SqueezeBertForPreTraining(configuration(arm)).train()
        made[arm] = model, optimizer_of(model, options)
    seconds: dict[str, list[float]] = {arm: [] for arm in made}
    data = MicroBatches(batches, 24)
    for number in range(24):
        for arm, (model, optimiser) in made.items():
            with dropout_of(model, OPTIONS["dropout"]):
                began = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16):
                    loss = model(**data[number], masked_only=True).loss
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                seconds[arm].append(time.perf_counter() - began)
    medians = {arm: float(np.median(found[4:])) for arm, found in seconds.items()}
    steps = {arm: round(hours * 3600 / one) for arm, one in medians.items()}
    told = {"hours": hours, "seconds": medians, "steps": {**steps, "groups-4-tokens": steps["groups-1"]}}
    place.write_text(json.dumps(told))
    say(json.dumps(told))


def plan_of(work: Path) -> dict[str, Any]:
    place = work / "plan.json"
    if not place.exists():
        raise SystemExit(f"{place} is not there: run `plan` first")
    plan: dict[str, Any] = json.loads(place.read_text())
    return plan


def train(work: Path, arm: str, output: Path, rate: float, steps: int) -> None:
    if (output / RECORD).exists():
        return
    transformers.set_seed(42)
    options = PretrainOptions(**OPTIONS | {"learning_rate": rate}, steps=steps)
    model = SqueezeBertForPreTraining(configuration(arm))
    pretrain(model, corpus_of(work), output, options, report=say, command="python benchmarks/pretrain_runs.py")


def try_rates(work: Path, arms: list[str]) -> None:
    """A twentieth of an arm with each learning rate."""
    for arm in arms:
        steps = round(SHARE * plan_of(work)["steps"][arm])
        for rate in RATES:
            train(work, arm, work / "rates" / f"{arm}_rate-{rate:g}", rate, steps)


def rates_of(work: Path) -> dict[str, dict[str, float]]:
    """What each learning rate came to: held-out loss by arm and rate."""
    found: dict[str, dict[str, float]] = {}
    for place in sorted((work / "rates").glob(f"*/{RECORD}")):
        arm, _, rate = place.parent.name.partition("_rate-")
        found.setdefault(arm, {})[rate] = json.loads(place.read_text())["held_out"]["held_out_loss"]
    return found


def train_arm(work: Path, arm: str) -> None:
    plan = plan_of(work)
    if arm not in plan["steps"]:
        raise SystemExit(f"--arm {arm}: arms are {', '.join(plan['steps'])}")
    tried = rates_of(work).get(f"groups-{groups_of(arm)}", {})
    if len(tried) < len(RATES):
        raise SystemExit(f"--arm {arm}: {len(tried)} of {len(RATES)} learning rates were tried: run `rates` first")
    rate = float(min(tried, key=lambda one: tried[one]))
    train(work, arm, work / arm, rate, plan["steps"][arm])


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
    """SST-2 and CoLA from each arm's checkpoint, or for `scratch-N` from random weights of the same sizes."""
    corpus = corpus_of(work)
    for arm in arms:
        if not arm.startswith(SCRATCH) and not (work / arm / RECORD).exists():
            raise SystemExit(f"--arms {arm}: {work / arm} holds no finished arm")
    for task, epochs in TASKS.items():
        labelled = load_glue(task, data / "glue", dev=False).labelled
        for arm in arms:

            def score(
                rate: float,
                seed: int,
                task: str = task,
                epochs: int = epochs,
                arm: str = arm,
                labelled: Any = labelled,
            ) -> dict[str, Any]:
                def run() -> dict[str, Any]:
                    transformers.set_seed(seed)
                    told = {"num_labels": len(labelled.labels), "id2label": dict(enumerate(labelled.labels))}
                    if arm.startswith(SCRATCH):
                        config = configuration(arm)
                        config.num_labels, config.id2label = told["num_labels"], told["id2label"]
                        model = SqueezeBertForSequenceClassification(config)
                    else:
                        model = SqueezeBertForSequenceClassification.from_pretrained(work / arm, **told)
                    metric = GLUE[task].watched
                    options = FinetuneOptions(
                        learning_rate=rate,
                        epochs=epochs,
                        batch_size=32,
                        metric=metric,
                        patience=0,
                        save_every=10**6,
                        precision="bf16",
                        seed=seed,
                    )
                    more = {"model": model, "overwrite": True}
                    place = work / "finetuning" / arm  # arms may run at the same time
                    found = finetune(labelled, corpus.folder / TOKENIZER, place, options, **more)
                    return {"task": task, "arm": arm, "rate": rate, "seed": seed, "score": 100 * found.metrics[metric]}

                made = cell(work / "scores" / f"{task}-{arm}-{rate:g}-{seed}.json", run)
                say(str(made))
                return made

            tried = [score(rate, seeds[0]) for rate in TASK_RATES]
            best = max(tried, key=lambda one: one["score"])["rate"]
            for seed in seeds[1:]:
                score(best, seed)


def baselines(corpus: PretrainingCorpus) -> dict[str, float]:
    """Held-out losses of who reads no context, and how far the lengths of two segments tell their order.

    `unigram` knows how often each token occurs. `unigram_and_token` also sees what stands at an asked place, which is
    the answer itself at a tenth of them, and another at a tenth. `longer_first` is the share of orders told right by
    taking the longer segment for the first, or the shorter one if that is right more often.
    """
    tokenizer = corpus.tokenizer()
    counts = np.ones(len(tokenizer))
    for shard in corpus.split("train"):
        counts += np.bincount(shard.ids, minlength=len(tokenizer))
    p = counts / counts.sum()
    _, held_out = batches_of(corpus, tokenizer, PretrainOptions(**OPTIONS))
    asked = [batch["labels"] != IGNORED for batch in held_out]
    labels = np.concatenate([batch["labels"][where] for batch, where in zip(held_out, asked, strict=True)])
    inputs = np.concatenate([batch["input_ids"][where] for batch, where in zip(held_out, asked, strict=True)])
    left = 0.1 * p[inputs] / (0.1 * p[inputs] + 0.1 / len(tokenizer))  # probability that what stands there is right
    seen = (1 - left) * p[labels] + left * (labels == inputs)
    probabilities = np.where(inputs == tokenizer.mask_token_id, p[labels], seen)
    right = total = 0
    for batch in held_out:
        order = batch["sentence_order_label"]
        second = (batch["token_type_ids"] * batch["attention_mask"]).sum(1)
        first = batch["attention_mask"].sum(1) - second
        right += int(((first - 1 < second) == order)[order != IGNORED].sum())
        total += int((order != IGNORED).sum())
    told = right / max(total, 1)
    return {
        "unigram": float(-np.log(p[labels]).mean()),
        "unigram_and_token": float(-np.log(probabilities).mean()),
        "longer_first": max(told, 1 - told),
    }


def record(work: Path) -> None:
    corpus, plan = corpus_of(work), plan_of(work)
    runs = []
    for arm in plan["steps"]:
        if not (work / arm / LOG).exists():
            continue
        rows = [json.loads(line) for line in (work / arm / LOG).read_text().splitlines()]
        done = json.loads((work / arm / RECORD).read_text()) if (work / arm / RECORD).exists() else {}
        about = {name: done.get(name) for name in ("options", "parameters", "padding")}
        runs.append({"arm": arm, "finished": bool(done), **about, "rows": rows})
    kept = ("splits", "left_out", "tokens_a_second", "vocabulary_entries", "sources")
    told = {
        "command": "python " + shlex.join(["benchmarks/pretrain_runs.py", "record"]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "sizes": SIZES,
        "corpus": {name: corpus.manifest[name] for name in kept},
        "baselines": baselines(corpus),
        "chance": {"mlm_loss": math.log(SIZES["vocab_size"]), "sop_accuracy": 0.5},
        "plan": plan,
        "rates": rates_of(work),
        "runs": runs,
        "scores": [json.loads(path.read_text()) for path in sorted((work / "scores").glob("*.json"))],
    }
    (RESULTS / "pretrain_runs.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("corpus", "plan", "rates", "arm", "finetune", "record"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arm", default="groups-4")
    parser.add_argument("--hours", type=float, default=5.0)
    parser.add_argument("--arms", default="")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.part in ("corpus", "finetune") and options.data is None:
        parser.error(f"{options.part} needs --data")
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    work = options.work / "pretrain"
    work.mkdir(parents=True, exist_ok=True)
    if options.part == "corpus":
        make_corpus(options.data, work)
    elif options.part == "plan":
        make_plan(work, options.hours)
    elif options.part == "rates":
        try_rates(work, (options.arms or "groups-4,groups-1").split(","))
    elif options.part == "arm":
        train_arm(work, options.arm)
    elif options.part == "finetune":
        arms = (options.arms or "groups-4,groups-1,groups-4-tokens,scratch-4,scratch-1").split(",")
        finetune_arms(options.data, work, arms, [int(seed) for seed in options.seeds.split(",")])
    else:
        record(work)


if __name__ == "__main__":
    main()
