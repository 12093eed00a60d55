"""Small real pretraining: groups 4 against groups 1 on Wikipedia and books, then SST-2 and CoLA from the checkpoints.

python benchmarks/pretrain_runs.py corpus   --data DIR --work DIR
python benchmarks/pretrain_runs.py plan     --work DIR --hours 5
python benchmarks/pretrain_runs.py arm      --work DIR --arm groups-4
python benchmarks/pretrain_runs.py orders   --work DIR [--arms groups-4,scratch-4,minilm]
python benchmarks/pretrain_runs.py finetune --data DIR --work DIR [--arms groups-4,scratch-4]
python benchmarks/pretrain_runs.py record   --data DIR --work DIR
python benchmarks/pretrain_runs.py words    --data DIR --work DIR

--data is a folder with corpus/{wikipedia,books} and glue/. Models are 6 layers of 256 channels, with a vocabulary of
8192 trained on the text; AdamW, batches of 64 rows of 128 tokens, one thread. `plan` measures the steps of both
models in turn, and says how many fit into the hours; what else will run beside the arms should run then. Three arms:
`groups-4` and `groups-1` take as many as fit, with a learning rate that stays at its peak before it falls (equal
time); `groups-4-tokens` takes as many as `groups-1` (equal tokens): it is `groups-4` as it was where the rate of so
short a run begins to fall, and falls from there. A finished arm is asked for the order of all held-out rows, cut
several times over. Everything resumes. Finetuning tries three learning rates with the first seed, for random weights
(`scratch-4`, `scratch-1`) as for pretrained ones, and the best with all seeds; scores are those of the best
evaluation, on the rows that it was chosen by. `words` exports what `groups-4` learned to models/words-small in int8,
compared with fp32 on held-out paragraphs.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import shlex
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
import transformers
from completion import paragraphs
from glue_samples import link_samples
from sklearn.linear_model import LogisticRegression
from squeeze import BASE
from transformers.utils import logging

from squeezebert.cli import main as squeezebert
from squeezebert.data.glue import GLUE, load_glue
from squeezebert.data.options import CorpusOptions
from squeezebert.data.pretraining.batches import IGNORED, Masking, PretrainingBatches
from squeezebert.data.pretraining.building import build_corpus
from squeezebert.data.pretraining.rows import PretrainingCorpus, Rows
from squeezebert.data.reading import encode_targets
from squeezebert.data.statistics import (
    Interval,
    correlation_interval,
    mean_interval,
    paired_correlation_interval,
    paired_interval,
    wilson_interval,
)
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertConfig, SqueezeBertForPreTraining
from squeezebert.training.checkpoint import EVALUATION
from squeezebert.training.checkpoint import RECORD as TRAINED
from squeezebert.training.options import PretrainOptions
from squeezebert.training.pretraining import (
    LOG,
    RECORD,
    MicroBatches,
    batches_of,
    micro_batches,
    optimizer_of,
    pretrain,
)
from squeezebert.training.runs import dropout_of, save_model
from squeezebert.training.stepping import MILESTONES, STEP
from squeezebert.workflows.export import summary
from squeezebert.workflows.glue.results import read_predictions, summarise

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
    "micro_batch": 16,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "warmup": 0.05,
    "decay": 0.2,
    "dropout": 0.0,
    "save_every": 250,
    "held_out_rows": 1024,
}
ORDER_BATCHES = 1500  # of a split, for the regression that tells orders by words
CUTS = 4  # of each held-out row, to measure how often its order is told right
ORDERS = "orders.json"
MINILM = "minilm"
PAIRS = {"train": 60_000, "held_out": 4000}  # rows whose order is learned as a task of its own, and asked
MINILM_PAIRS = 20_000  # it takes several times as long for each
ORDER_RATE = 2e-4
FORKED = "groups-4-tokens"
TASKS = ("SST-2", "CoLA")
RECIPE = Path(__file__).parents[1] / "recipes" / "glue-small.yaml"
TASK_RATES = (1e-4, 2e-4, 5e-4)
SCRATCH = "scratch-"
WORDS = Path(__file__).parents[1] / "models" / "words-small"
PARAGRAPHS, LONGEST_PARAGRAPH = 1500, 2000  # to compare the exported file on, and their characters


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
    parts = micro_batches(options)
    data = MicroBatches(batches, 12 * parts)
    for step in range(12):
        for arm, (model, optimiser) in made.items():
            with dropout_of(model, OPTIONS["dropout"]):
                began = time.perf_counter()
                for part in range(parts):
                    model(**data[step * parts + part], masked_only=True).loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                seconds[arm].append(time.perf_counter() - began)
    medians = {arm: float(np.median(found[2:])) for arm, found in seconds.items()}
    steps = {arm: round(hours * 3600 / one) for arm, one in medians.items()}
    told = {"hours": hours, "seconds": medians, "steps": {**steps, FORKED: steps["groups-1"]}}
    place.write_text(json.dumps(told))
    say(json.dumps(told))


def plan_of(work: Path) -> dict[str, Any]:
    place = work / "plan.json"
    if not place.exists():
        raise SystemExit(f"{place} is not there: run `plan` first")
    plan: dict[str, Any] = json.loads(place.read_text())
    return plan


def fork_of(plan: dict[str, Any]) -> int:
    """The step of `groups-4` that `groups-4-tokens` goes on from: there its own rate begins to fall."""
    return round((1 - OPTIONS["decay"]) * plan["steps"][FORKED])


def train_arm(work: Path, arm: str) -> None:
    plan = plan_of(work)
    if arm not in plan["steps"]:
        raise SystemExit(f"--arm {arm}: arms are {', '.join(plan['steps'])}")
    steps, fork = plan["steps"][arm], fork_of(plan)
    told: dict[str, Any] = {}
    transformers.set_seed(42)
    if arm == FORKED:
        place = work / "groups-4" / MILESTONES / f"{STEP}{fork}"
        if not place.exists():
            raise SystemExit(f"--arm {arm}: it goes on from step {fork} of groups-4, which is not there yet")
        model = SqueezeBertForPreTraining.from_pretrained(place)
        # Other batches than those before; the optimiser's moments begin anew, for which a short rise is enough
        steps, told = steps - fork, {"seed": 43, "decay": None, "warmup": 0.05}
    else:
        model = SqueezeBertForPreTraining(configuration(arm))
        if arm == "groups-4":
            told = {"milestones": (fork / steps,)}
    if not (work / arm / RECORD).exists():
        options = PretrainOptions(**OPTIONS | told, steps=steps)
        command = "python " + shlex.join(["benchmarks/pretrain_runs.py", "arm", "--work", "WORK", "--arm", arm])
        pretrain(model, corpus_of(work), work / arm, options, report=say, command=command)
    # A run that was asked to end has no record, and goes on another time
    if (work / arm / RECORD).exists() and not (work / arm / ORDERS).exists():
        found = as_dict(order_accuracy(SqueezeBertForPreTraining.from_pretrained(work / arm), corpus_of(work)))
        (work / arm / ORDERS).write_text(json.dumps(found))


def rows_of(work: Path, arm: str) -> list[dict[str, Any]]:
    """What an arm's log says; that of one that goes on from another begins with the other's."""
    rows = [json.loads(line) for line in (work / arm / LOG).read_text().splitlines()]
    if arm != FORKED:
        return rows
    fork = fork_of(plan_of(work))
    before = [row for row in rows_of(work, "groups-4") if row["step"] <= fork]
    done = before[-1]
    return [*before, *(row | {name: row[name] + done[name] for name in ("step", "tokens")} for row in rows)]


@torch.no_grad()
def order_accuracy(model: SqueezeBertForPreTraining, corpus: PretrainingCorpus) -> Interval:
    """Share of orders told right, of all held-out rows with an order; a row's answers to its cuts are one mean."""
    model.eval()
    tokenizer = corpus.tokenizer()
    rows = Rows.cut(corpus.split("held_out"), PretrainOptions(**OPTIONS).max_length - 3)
    masking = Masking.of(tokenizer, PretrainOptions(**OPTIONS).mask_share, whole_words=False)
    right, asked = np.zeros(len(rows)), np.zeros(len(rows))
    for seed in range(CUTS):
        batches = PretrainingBatches(rows, 32, tokenizer, masking, seed, varies=False)
        for number in range(batches.of_pass):
            batch = batches[number]
            where = batch["sentence_order_label"] != IGNORED
            inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
            said = model(**inputs, masked_only=True).seq_relationship_logits.argmax(-1).numpy()
            numbers = batches.numbers(number)[where]
            right[numbers] += (said == batch["sentence_order_label"])[where]
            asked[numbers] += 1
        say(f"orders of cut {seed + 1} of {CUTS}: {right.sum() / asked.sum():.1%} right")
    return mean_interval(right[asked > 0] / asked[asked > 0])


def finetune_arms(data: Path, work: Path, arms: list[str], seeds: list[str], workers: int) -> None:
    """SST-2 and CoLA from each arm's checkpoint, or for `scratch-N` from random weights of the same sizes."""
    corpus = corpus_of(work)
    for arm in arms:
        if arm.startswith(SCRATCH):
            begin_scratch(work, arm, corpus)
        elif not (work / arm / RECORD).exists():
            raise SystemExit(f"--arms {arm}: {work / arm} holds no finished arm")
    command: list[object] = ["glue", "run", "--output", work / "glue", "--tasks", *TASKS]
    command += ["--data-dir", link_samples(data / "glue", work / "tables"), "--recipe", RECIPE]
    command += ["--model", *(f"{arm}={work / arm}" for arm in arms), "--learning-rates", *TASK_RATES]
    command += ["--seeds", *seeds, "--workers", workers]
    told = [str(part) for part in command]
    say(shlex.join(["squeezebert", *told]))
    code = squeezebert(told)
    if code:
        raise SystemExit(code)


def begin_scratch(work: Path, arm: str, corpus: PretrainingCorpus) -> None:
    if not (work / arm / "config.json").exists():
        transformers.set_seed(42)
        save_model(work / arm, SqueezeBertForPreTraining(configuration(arm)), corpus.tokenizer())


def pairs_of(work: Path, corpus: PretrainingCorpus, split: str, count: int) -> Path:
    """A table of two segments and their order, made once."""
    place = work / "orders" / f"{split}-{count}.jsonl"
    if not place.exists():
        tokenizer = corpus.tokenizer()
        place.parent.mkdir(exist_ok=True)
        lines = []
        for first, second, order in itertools.islice(segments(corpus, split, 2 * count), count):
            one, other = (tokenizer.decode(ids) for ids in (first, second))
            lines.append(json.dumps({"sentence1": one, "sentence2": other, "label": ("kept", "swapped")[order]}))
        place.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return place


def learn_orders(work: Path, arms: list[str]) -> None:
    """The order of segments as a task of its own, with nothing hidden and nothing else to learn."""
    corpus = corpus_of(work)
    asked = pairs_of(work, corpus, "held_out", PAIRS["held_out"])
    for arm in arms:
        if arm.startswith(SCRATCH):
            begin_scratch(work, arm, corpus)
        count = MINILM_PAIRS if arm == MINILM else PAIRS["train"]
        command: list[object] = ["train", pairs_of(work, corpus, "train", count), "--output", work / "orders" / arm]
        command += ["--eval", asked, "--base", BASE if arm == MINILM else work / arm, "--learning-rate", ORDER_RATE]
        command += ["--epochs", 1, "--batch-size", 64, "--max-length", PretrainOptions(**OPTIONS).max_length]
        command += ["--dropout", 0, "--save-every", 100, "--seed", 1]
        told = [str(part) for part in command]
        say(shlex.join(["squeezebert", *told]))
        if code := squeezebert(told):
            raise SystemExit(code)


def learned_orders(work: Path) -> list[dict[str, Any]]:
    """Share of held-out orders told right by each network that learned them as a task."""
    found = []
    for place in sorted((work / "orders").glob(f"*/{TRAINED}")):
        told = json.loads(place.read_text())
        with place.with_name(EVALUATION).open(encoding="utf-8") as file:
            asked = sum(1 for _ in file)
        right = as_dict(wilson_interval(round(told["metrics"]["accuracy"] * asked), asked))
        learned = MINILM_PAIRS if place.parent.name == MINILM else PAIRS["train"]
        found.append({"arm": place.parent.name, "learned_rows": learned, "held_out_rows": asked, **right})
    return found


def export_words(data: Path, work: Path) -> None:
    """The masked language model that lies in the repository."""
    if not (work / "groups-4" / RECORD).exists():
        raise SystemExit("groups-4 is not finished")
    texts = [text for text in paragraphs(data / "corpus", True) if len(text) <= LONGEST_PARAGRAPH]
    chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, PARAGRAPHS).astype(int)]
    options = ExportOptions(precision="int8", threads=1, overwrite=True)
    report = export_checkpoint(work / "groups-4", work / WORDS.name, options, [{"text": text} for text in chosen], say)
    shutil.copytree(work / WORDS.name, WORDS, dirs_exist_ok=True)  # beside what it says of itself
    for notice in sorted((work / "corpus" / "notices").glob("*.tsv")):
        # Without a time in it, so that the same sources are the same bytes
        (WORDS / f"{notice.name}.gz").write_bytes(gzip.compress(notice.read_bytes(), mtime=0))
    say(summary(report))


def as_dict(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def scores_of(work: Path, data: Path) -> list[dict[str, Any]]:
    """Scores of every arm and task, by seed and by rate.

    The intervals are of the rows: of the seed with the median score, and of its difference to that of random weights.
    """
    if not (work / "glue").is_dir():
        return []
    told, answers = [], {}
    for result in summarise(work / "glue"):
        rows = load_glue(result.task, link_samples(data / "glue", work / "tables"), test=False)
        examples = rows.dev[GLUE[result.task].dev[0].name]
        targets = encode_targets(examples, rows.labelled.task, rows.labelled.labels)
        median = statistics.median_low(result.scores)
        tried = [one for one in result.grid if one["score"] is not None]
        chosen = [one for one in tried if one["learning_rate"] == result.chosen["learning_rate"]]
        middle = next(one for one in chosen if one["score"] == median)
        there = work / "glue" / result.model / result.recipe / result.task
        answered = read_predictions(there / f"rate-{middle['learning_rate']:g}_seed-{middle['seed']}")
        said = answered[GLUE[result.task].dev[0].name].argmax(-1)
        answers[result.task, result.model] = targets, said
        first = min(one["seed"] for one in tried)
        about = {
            "task": result.task,
            "arm": result.model,
            "rate": result.chosen["learning_rate"],
            "scores": {str(one["seed"]): one["score"] for one in chosen},
            "grid": {f"{one['learning_rate']:g}": one["score"] for one in tried if one["seed"] == first},
        }
        told.append(about)
    for about in told:
        task, arm = about["task"], about["arm"]
        targets, said = answers[task, arm]
        about["rows"] = as_dict(interval_of(task, targets, said))
        against = answers.get((task, f"{SCRATCH}{groups_of(arm)}"))
        if against is not None and not arm.startswith(SCRATCH):
            about["above_scratch"] = as_dict(interval_of(task, targets, said, against[1]))
    return told


def interval_of(task: str, targets: np.ndarray, said: np.ndarray, other: np.ndarray | None = None) -> Interval:
    """95 % of a task's score, or of how far it lies above that of other answers to the same rows."""
    if task != "CoLA":
        right = targets == said
        return mean_interval(right) if other is None else paired_interval(right, targets == other)
    # Matthews' correlation is Pearson's of the labels, and 0 where one label is given to all rows
    if np.ptp(said) == 0:
        if other is None or np.ptp(other) == 0:
            return Interval(0.0, 0.0, 0.0, len(said))
        turned = interval_of(task, targets, other)
        return Interval(-turned.estimate, -turned.high, -turned.low, turned.rows)
    if other is None or np.ptp(other) == 0:
        return correlation_interval(targets, said)
    return paired_correlation_interval(targets, said, other)


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


def segments(corpus: PretrainingCorpus, split: str, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Of so many rows of pretraining: those with an order, as ids of both segments, nothing hidden, and the order."""
    tokenizer, options = corpus.tokenizer(), PretrainOptions(**OPTIONS)
    masking = Masking.of(tokenizer, options.mask_share, whole_words=False)
    cut = Rows.cut(corpus.split(split), options.max_length - 3)
    found = PretrainingBatches(cut, options.batch_size, tokenizer, masking, seed=0, varies=False)
    for number in range(min(rows // options.batch_size, found.of_pass)):
        batch = found[number]
        ids_BT = np.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
        for row in np.flatnonzero(batch["sentence_order_label"] != IGNORED):
            there = batch["attention_mask"][row] == 1
            ids, second = ids_BT[row][there], batch["token_type_ids"][row][there] == 1
            yield ids[~second][1:-1], ids[second][:-1], int(batch["sentence_order_label"][row])


def order_by_words(corpus: PretrainingCorpus) -> dict[str, float]:
    """Share of held-out orders told right by a logistic regression on which words either segment has and begins with.

    Rows are those of pretraining, with nothing hidden; the strength of the regression is the best of three on the very
    rows that are asked, so that this is rather more than what words tell.
    """
    size, rows = len(corpus.tokenizer()), ORDER_BATCHES * OPTIONS["batch_size"]

    def features(split: str) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
        triples, orders = [], []
        for number, (first, second, order) in enumerate(segments(corpus, split, rows)):
            for sign, segment in ((1.0, first), (-1.0, second)):
                columns = [*np.unique(segment), *((place + 1) * size + segment[:2][place] for place in (0, 1))]
                triples += [(sign, number, column) for column in columns]
            orders.append(order)
        values, places, columns = zip(*triples, strict=True)
        return scipy.sparse.csr_matrix((values, (places, columns)), shape=(len(orders), 3 * size)), np.array(orders)

    learned, held_out = features("train"), features("held_out")
    best = Interval(0.0, 0.0, 0.0, 0)
    for strength in (0.001, 0.01, 0.1):
        told = LogisticRegression(C=strength, max_iter=200, fit_intercept=False).fit(*learned).predict(held_out[0])
        best = max(best, mean_interval(told == held_out[1]), key=lambda interval: interval.estimate)
    return as_dict(best) | {"learned_rows": len(learned[1]), "held_out_rows": len(held_out[1])}


def record(work: Path, data: Path) -> None:
    corpus, plan = corpus_of(work), plan_of(work)
    runs = []
    for arm in plan["steps"]:
        if not (work / arm / LOG).exists():
            continue
        rows = rows_of(work, arm)
        done = json.loads((work / arm / RECORD).read_text()) if (work / arm / RECORD).exists() else {}
        about = {name: done.get(name) for name in ("options", "parameters", "padding")}
        asked = work / arm / ORDERS
        about["orders"] = json.loads(asked.read_text()) if asked.exists() else None
        runs.append({"arm": arm, "model": f"groups-{groups_of(arm)}", "finished": bool(done), **about, "rows": rows})
    kept = ("splits", "left_out", "tokens_a_second", "vocabulary_entries", "sources")
    told = {
        "command": "python " + shlex.join(["benchmarks/pretrain_runs.py", "record"]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "sizes": SIZES,
        "options": asdict(PretrainOptions(**OPTIONS)),
        "corpus": {name: corpus.manifest[name] for name in kept},
        "baselines": baselines(corpus),
        "order_by_words": order_by_words(corpus),
        "orders_learned": learned_orders(work),
        "chance": {"mlm_loss": math.log(SIZES["vocab_size"]), "sop_accuracy": 0.5},
        "plan": plan,
        "runs": runs,
        "scores": scores_of(work, data),
    }
    (RESULTS / "pretrain_runs.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("corpus", "plan", "arm", "orders", "finetune", "record", "words"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arm", default="groups-4")
    parser.add_argument("--hours", type=float, default=5.0)
    parser.add_argument("--arms", default="")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="finetuning runs at a time")
    options = parser.parse_args()
    if options.part in ("corpus", "finetune", "record", "words") and options.data is None:
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
    elif options.part == "arm":
        train_arm(work, options.arm)
    elif options.part == "orders":
        learn_orders(work, (options.arms or f"groups-4,scratch-4,{MINILM}").split(","))
    elif options.part == "words":
        export_words(options.data, work)
    elif options.part == "finetune":
        arms = (options.arms or "groups-4,groups-1,groups-4-tokens,scratch-4,scratch-1").split(",")
        finetune_arms(options.data, work, arms, options.seeds.split(","), options.workers)
    else:
        record(work, options.data)


if __name__ == "__main__":
    main()
