"""A dense checkpoint, text and budgets in; a network for each budget, healed and timed, out: the job behind `search`.

Each stage keeps what it made in the output folder: the latency table, the text in tokens, the dense model in its
order, the supernet's saves, the networks that were judged, and the networks that were found. A killed search goes on
in the stage that it was in when its command is repeated.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from squeezebert.data.corpus import Corpus, tokenise_corpus
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.lock import LOCK, only_run
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertModel
from squeezebert.search.evolution import check_budget, fitted
from squeezebert.search.finding import NEAR, RESULT, find_network, has_layers, read_json, uniform_controls
from squeezebert.search.latency import LatencyTable, Target, build_table, measure_ratios
from squeezebert.search.learning import GumbelLearner, Judge, Learner, SandwichLearner, train, within
from squeezebert.search.options import SearchOptions, SearchPlaces
from squeezebert.search.report import write_report
from squeezebert.search.space import Space
from squeezebert.search.supernet import Supernet, nested_order
from squeezebert.training.dense import load_dense, matching_tokenizer
from squeezebert.training.runs import add_model, save_model
from squeezebert.training.squeeze import calibration_batches
from squeezebert.training.stepping import write_json
from squeezebert.training.trainer import duration

Report = Callable[[str], None]
PAGE = "report.html"
_JOB, _TABLE, _TIME = "job.json", "latency.json", "time.json"
# Seconds between notes of the time that a search took
_NOTED = 10.0


def run_search(places: SearchPlaces, options: SearchOptions, command: str, report: Report) -> str:
    """Search a network for each budget and return what came of it; a killed search goes on when it is called again.

    Raises `OptionError` for budgets that no network meets, a table of something else and a checkpoint that does not
    fit; `FolderError` for an output that holds something else.
    """
    logging.disable_progress_bar()
    output = Path(places.output)
    if output.is_file():
        raise FolderError(f"{output} is a file; --output takes a folder")
    output.mkdir(parents=True, exist_ok=True)
    with only_run(output, inside=True):
        if (output / RESULT).exists() and read_json(output / RESULT).get("command") == command:
            return _summary(read_json(output / RESULT), output)
        clock = _Clock(output / _TIME)
        report = clock.noting(report)
        target = Target(options.engine, options.threads, options.tokens)
        dense = load_dense(places.checkpoint, report)
        tokenizer = matching_tokenizer(places.checkpoint, dense)
        base = dense.base_model
        if options.tokens > base.config.max_position_embeddings:
            raise OptionError(
                f"--tokens {options.tokens}: {places.checkpoint} reads {base.config.max_position_embeddings} at most"
            )
        table_file = Path(places.table) if places.table else output / _TABLE
        if not table_file.parent.is_dir() and places.table:
            raise FolderError(f"--table {places.table}: there is no folder {table_file.parent}")
        _claim(output, places, options, _digest(base))
        space = Space.of(base.config)
        with nullcontext() if places.table is None else only_run(table_file):
            table = build_table(
                space, base.config, target, table_file, networks=options.networks, seed=options.seed, report=report
            )
        report(_told_accuracy(table))
        budgets = _budgets(options, table, base.config)
        for budget in budgets.values():
            check_budget(table, budget)
        corpus = tokenise_corpus(
            places.text,
            tokenizer,
            output / "text",
            max_length=min(places.max_length, base.config.max_position_embeddings),
            text=places.column,
            encoding=places.encoding,
            seed=options.seed,
            vocab_size=base.config.vocab_size,
            report=report,
        )
        _bind(output, "--text", corpus.digest)
        rows, judged_on, final = _split(corpus, options)
        batches = calibration_batches(corpus, options.calibration_tokens, options.seed, rows)
        teacher = _teacher(base, batches, output / "teacher", tokenizer, space, report)
        found = {}
        learner: Learner | None = None
        if options.method == "evolution":
            _bind(output, "budgets, which its supernet was trained for", list(budgets.values()))
        for name, budget in budgets.items():
            folder = output / name
            if folder.exists():
                found[name] = read_json(folder / RESULT)
                continue
            if learner is None or options.method == "gumbel":
                report(f"fitting a supernet to {space.layers} layers")
                learner = _learner(Supernet.of(teacher, space, batches), teacher, options, table, budget, budgets)
                place = output / ("supernet" if options.method == "evolution" else f"supernet-{name}")
                train(learner, corpus, rows, place, report)
            judges = Judge(learner, corpus, judged_on), Judge(learner, corpus, final)
            found[name] = find_network(
                name, budget, learner, judges, table, corpus, batches, output, options, tokenizer, report
            )
        record = {
            "command": command,
            "checkpoint": places.checkpoint,
            "hidden_size": space.hidden_size,
            "machine": describe_machine(),
            "versions": package_versions(),
            "options": asdict(options),
            "latency": {
                "rows": [{"predicted": table.ratio(row["shape"]), "measured": row["ratio"]} for row in table.rows],
                "accuracy": asdict(table.accuracy) if table.accuracy else None,
                "range": table.range,
            },
            "found": found,
            "seconds": clock.seconds(),
        }
        write_report(record, output / PAGE)
        write_json(output / RESULT, record)
        return _summary(record, output)


class _Clock:
    """The time that a search takes, over resumes: noted with the lines that it says, so that a kill loses little."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.before: float = read_json(place)["seconds"] if place.exists() else 0.0
        self.since = self.noted = time.monotonic()

    def seconds(self) -> float:
        return round(self.before + time.monotonic() - self.since, 1)

    def noting(self, report: Report) -> Report:
        def say(line: str) -> None:
            if time.monotonic() - self.noted >= _NOTED and (self.place.parent / _JOB).exists():
                self.noted = time.monotonic()
                write_json(self.place, {"seconds": self.seconds()})
            report(line)

        return say


def _learner(
    supernet: Supernet,
    teacher: SqueezeBertModel,
    options: SearchOptions,
    table: LatencyTable,
    budget: float,
    budgets: Mapping[str, float],
) -> Learner:
    if options.method == "gumbel":
        return GumbelLearner(supernet, teacher, options, table, budget)
    low, high = 0.8 * min(budgets.values()), 1.2 * max(budgets.values())
    generator = np.random.default_rng(options.seed)
    smallest = fitted(supernet.space, table, uniform_controls(supernet.space)["groups 4"], low, generator)
    return SandwichLearner(supernet, teacher, options, within(supernet.space, table, low, high), smallest)


def _teacher(
    base: SqueezeBertModel, batches: Any, folder: Path, tokenizer: Any, space: Space, report: Report
) -> SqueezeBertModel:
    if not folder.exists():
        report("looking for an order of channels in which groups carry most")
        with new_folder(folder) as building:
            save_model(building, nested_order(base, batches, max(space.choices["q_groups"])), tokenizer)
    teacher: SqueezeBertModel = SqueezeBertModel.from_pretrained(folder)
    teacher.train(False)
    return teacher


def _budgets(options: SearchOptions, table: LatencyTable, base: Any) -> dict[str, float]:
    """Each budget as a share of the dense network's time, by the name of its folder."""
    if options.budget_ratio:
        return {f"{ratio:g}x": ratio for ratio in options.budget_ratio}
    # Its time now: that of the table may be of another day
    now = measure_ratios({"dense": table.space.dense}, table.space, base, table.target)["dense"]["anchor_ms"]
    return {f"{ms:g}ms": ms / now for ms in options.budget_ms}


def _split(corpus: Corpus, options: SearchOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences to learn from, those that networks are compared on, and those that say what came of it."""
    if len(corpus) < 3:
        raise OptionError(
            "--text: it makes too few sequences of tokens: give some to learn from and some to measure on"
        )
    order = np.random.default_rng(options.seed).permutation(len(corpus))
    count = min(options.held_out, max(1, len(corpus) // 20))
    return np.sort(order[2 * count :]), np.sort(order[:count]), np.sort(order[count : 2 * count])


def _digest(model: SqueezeBertModel) -> str:
    digest = hashlib.sha256()
    add_model(digest, model)
    return digest.hexdigest()


# What does not change what a search does: budgets are bound with the supernet that is trained for them
_FREE = frozenset({"output", "table", "text", "checkpoint", "budget_ms", "budget_ratio", "save_every"})


def _claim(output: Path, places: SearchPlaces, options: SearchOptions, checkpoint: str) -> None:
    """Note whose the folder is. Raises `FolderError` when it is another search's, or something else."""
    told = {name: value for part in (places, options) for name, value in asdict(part).items() if name not in _FREE}
    wanted = {f"--{name.replace('_', '-')}": value for name, value in json.loads(json.dumps(told)).items()}
    if not (output / _JOB).exists() and any(path.name != LOCK for path in output.iterdir()):
        raise FolderError(f"{output} is not empty and holds no search: choose another --output")
    for name, value in {**wanted, "checkpoint": checkpoint}.items():
        _bind(output, name, value)


def _bind(output: Path, name: str, value: Any) -> None:
    """Note something that a search goes by. Raises `FolderError` where it went by something else before."""
    place = output / _JOB
    there = read_json(place) if place.exists() else {}
    if name not in there:
        write_json(place, {**there, name: value})
    elif there[name] != value:
        table = f"; --table {output / _TABLE} spares timing the networks again" if (output / _TABLE).exists() else ""
        raise FolderError(
            f"{output} holds a search with another {name}: choose another --output, or repeat its command{table}"
        )


def _told_accuracy(table: LatencyTable) -> str:
    accuracy = table.accuracy
    if accuracy is None:
        return "latency model: not checked"
    return (
        f"latency model: off by {accuracy.median:.1%} (median) and {accuracy.worst:.1%} (worst) on "
        f"{accuracy.networks} networks that it was not fitted to"
    )


def _summary(record: Mapping[str, Any], output: Path) -> str:
    lines = []
    for name, found in record["found"].items():
        timed, errors = found["timed"], found["errors"]
        error = errors[found["start"]] if errors["healed"] is None else errors["healed"]
        lines.append(
            f"{name}: {timed['ms']:.2f} ms, {timed['ratio']:.3f} of the dense network's time (budget "
            f"{found['budget']:.3f}); error {error:.4f}"
        )
        over = timed["ratio"] / found["budget"] - 1
        if abs(over) > NEAR:
            lines.append(
                f"  warning: that is {abs(over):.0%} {'over' if over > 0 else 'below'} the budget: the machine may "
                "have been busy, or no network was found that is nearer"
            )
        if not has_layers(found["shape"]):
            lines.append("  warning: it has no layers left: nothing else is as fast")
        lines.append(f"  next: squeezebert distil TABLE --base {output / name} --teacher TEACHER --output MODEL")
    return "\n".join([*lines, f"took {duration(record['seconds'])} in all", f"written: {output / PAGE}"])
