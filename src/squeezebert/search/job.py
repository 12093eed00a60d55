"""A dense checkpoint, text and budgets in; a network for each budget, healed and timed, out: the job behind `search`.

Each stage keeps what it made in the output folder: the latency table, the text in tokens, the dense model in its
order, the supernet's saves, the networks that were judged, and the networks that were found. A killed search goes on
in the stage that it was in when its command is repeated.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from squeezebert.data.corpus import Corpus
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.lock import LOCK, only_run
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertConfig, SqueezeBertModel
from squeezebert.search.evolution import check_budget, fitted
from squeezebert.search.finding import (
    NEAR,
    RESULT,
    Ground,
    find_network,
    has_layers,
    read_json,
    tidy,
    uniform_controls,
)
from squeezebert.search.latency import LatencyTable, Target, build_table, measure_ratios
from squeezebert.search.learning import SAVE, GumbelLearner, Judge, Learner, SandwichLearner, train, within
from squeezebert.search.options import SearchOptions, SearchPlaces, rows_of_weights
from squeezebert.search.report import write_report
from squeezebert.search.space import Space
from squeezebert.search.supernet import Supernet, nested_order
from squeezebert.training.dense import load_dense, matching_tokenizer
from squeezebert.training.runs import add_model, save_model
from squeezebert.training.squeeze import calibration_batches, parameters
from squeezebert.training.stepping import write_json
from squeezebert.training.trainer import duration
from squeezebert.training.unlabelled import read_text

Report = Callable[[str], None]
PAGE = "report.html"
_JOB, _TABLE, _TIME = "job.json", "latency.json", "time.json"
_RATIOS, _TRAINED_FOR = "ratios of budgets", "budgets, which its supernet was trained for"
# What does not change what a search does, or is bound later: text and checkpoint by what they hold, budgets with the
# supernet that is trained for them, and healing with the network that is healed
_FREE = frozenset(
    {
        *("output", "table", "text", "checkpoint", "budget_ms", "budget_ratio", "save_every"),
        *("heal_steps", "heal_learning_rate"),
    }
)
# Seconds between notes of the time that a search took
_NOTED = 10.0


def run_search(places: SearchPlaces, options: SearchOptions, command: str, report: Report) -> str:
    """Search a network for each budget and return what came of it; a killed search goes on when it is called again.

    Raises `OptionError` for budgets that no network meets, text that is too little, a table of something else and a
    checkpoint that does not fit; `FolderError` for an output that holds something else.
    """
    logging.disable_progress_bar()
    output = Path(places.output)
    if output.is_file():
        raise FolderError(f"{output} is a file; --output takes a folder")
    output.mkdir(parents=True, exist_ok=True)
    with only_run(output, inside=True):
        record = read_json(output / RESULT) if (output / RESULT).exists() else {}
        if record.get("command") == command and all((output / name).is_dir() for name in record["found"]):
            return _summary(record, output)
        clock = _Clock(output / _TIME)
        record = _search(places, options, output, clock.noting(report))
        record = {"command": command, **record, "seconds": clock.seconds()}
        write_report(record, output / PAGE)
        write_json(output / RESULT, record)
        return _summary(record, output)


def _search(places: SearchPlaces, options: SearchOptions, output: Path, report: Report) -> dict[str, Any]:
    """Do what there is to do, one stage after the other, what can be refused soon first; return the record."""
    target = Target(options.engine, options.threads, options.tokens, options.reads)
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
    job = _Job(output)
    wanted = {**_told(places, options), "checkpoint": _digest(base)}
    trained_for = {_TRAINED_FOR: sorted(_names(options))} if options.method == "evolution" else {}
    job.check({**wanted, **trained_for})
    corpus = read_text(places, tokenizer, base.config, output / "text", options.seed, report)
    rows, judged_on, final = _split(corpus, options)
    job.bind({**wanted, "--text": corpus.digest})
    space = Space.of(base.config)
    budgets = _budgets(options, job, space, base.config, target)
    # Whoever names this table by --table locks it as well
    with only_run(table_file, option="--table" if places.table else "--output"):
        table = build_table(
            space, base.config, target, table_file, networks=options.networks, seed=options.seed, report=report
        )
    report(_told_accuracy(table))
    for budget in budgets.values():
        check_budget(table, budget)
    job.bind({**trained_for, _RATIOS: {**job.told.get(_RATIOS, {}), **budgets}})
    batches = calibration_batches(
        corpus, options.calibration_tokens, options.seed, rows_of_weights(rows, options.method)
    )
    teacher = _teacher(base, batches, output / "teacher", tokenizer, space, report)
    ground = Ground(
        table=table,
        corpus=corpus,
        held_out=np.union1d(judged_on, final),
        batches=batches,
        output=output,
        options=options,
        tokenizer=tokenizer,
        embeds_as=places.checkpoint if dense is base else None,
        report=report,
    )
    found: dict[str, dict[str, Any]] = {}
    learner: Learner | None = None
    supernets = [output / ("supernet" if options.method == "evolution" else f"supernet-{name}") for name in budgets]
    for (name, budget), supernet in zip(budgets.items(), supernets, strict=True):
        if (output / name).exists():
            found[name] = _found_before(name, options, output, report)
            continue
        if learner is None or options.method == "gumbel":
            report(f"fitting a supernet to {space.layers} layers")
            learner = _learner(Supernet.of(teacher, space, batches), teacher, options, table, budget, budgets)
            train(learner, corpus, rows, supernet, report)
        judges = Judge(learner, corpus, judged_on), Judge(learner, corpus, final)
        found[name] = find_network(name, budget, learner, judges, ground)
        if options.method == "gumbel":
            _lighten(supernet)
    for supernet in dict.fromkeys(supernets):
        _lighten(supernet)
    text = ("source", "content", "sequences", "tokens", "max_length", "left_out")
    return {
        "checkpoint": places.checkpoint,
        "hidden_size": space.hidden_size,
        "machine": describe_machine(),
        "versions": package_versions(),
        "options": asdict(options),
        "text": {name: corpus.manifest.get(name) for name in text},
        "latency": {
            "rows": [{"predicted": table.ratio(row["shape"]), "measured": row["ratio"]} for row in table.rows],
            "accuracy": asdict(table.accuracy) if table.accuracy else None,
            "range": table.range,
        },
        "dense": {"parameters": parameters(base)},
        "found": found,
    }


def _found_before(name: str, options: SearchOptions, output: Path, report: Report) -> dict[str, Any]:
    """What an earlier start found for a budget."""
    place = output / name
    found = read_json(place / RESULT, f"delete the folder {place} and repeat the command")
    tidy(output, name)
    told = found.get("healing")
    healed = (told["steps"], told["learning_rate"]) if told else (0, None)
    wanted = (options.heal_steps, options.heal_learning_rate if options.heal_steps else None)
    if healed != wanted and has_layers(found["shape"]):
        how = f"by --heal-steps {healed[0]}" + (f" --heal-learning-rate {healed[1]:g}" if told else "")
        report(f"{name}: found before, {how}, and left so; delete {place} to heal it anew")
    return found


def _lighten(folder: Path) -> None:
    """Drop of a trained supernet what only more steps would need, Adam's moments.

    What stays finds a budget again, whose folder was deleted, without training.
    """
    place, part = folder / SAVE, folder / f".{SAVE}.part"
    with suppress(OSError, RuntimeError, EOFError, pickle.UnpicklingError):  # a full disk takes nothing that was found
        saved = torch.load(place, weights_only=True, mmap=True)
        if saved["optimiser"]["state"]:
            saved["optimiser"]["state"] = {}
            torch.save(saved, part)
            part.replace(place)
    part.unlink(missing_ok=True)


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


def _names(options: SearchOptions) -> dict[str, float]:
    """What was typed of each budget, by the name of its folder."""
    return {f"{ms:g}ms": ms for ms in options.budget_ms} | {f"{ratio:g}x": ratio for ratio in options.budget_ratio}


def _budgets(
    options: SearchOptions, job: _Job, space: Space, base: SqueezeBertConfig, target: Target
) -> dict[str, float]:
    """Each budget as a share of the dense network's time, by the name of its folder.

    One in milliseconds keeps the share that it had when it was first given: the dense network takes another time
    whenever it is timed.
    """
    asked = _names(options)
    if options.budget_ratio:
        return asked
    known: dict[str, float] = job.told.get(_RATIOS, {})
    if not asked.keys() <= known.keys():
        # Its time now: that of the table may be of another day
        now = measure_ratios({"dense": space.dense}, space, base, target)["dense"]["anchor_ms"]
        for ms in asked.values():
            if ms >= now:
                raise OptionError(
                    f"--budget-ms {ms:g}: leaves nothing to search: the dense network takes {now:.2f} ms"
                )
        known = {**{name: ms / now for name, ms in asked.items()}, **known}
    return {name: known[name] for name in asked}


def _split(corpus: Corpus, options: SearchOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences to learn from, those that networks are compared on, and those that say what came of it."""
    least = 4 if options.method == "gumbel" else 3  # its weights and its choices learn from different ones
    if len(corpus) < least:
        raise OptionError(
            f"--text: it makes too few sequences of tokens, {len(corpus)}: --method {options.method} takes {least} at "
            "least, some to learn from and some to measure on"
        )
    order = np.random.default_rng(options.seed).permutation(len(corpus))
    count = min(options.held_out, max(1, len(corpus) // 20))
    return np.sort(order[2 * count :]), np.sort(order[:count]), np.sort(order[count : 2 * count])


def _digest(model: SqueezeBertModel) -> str:
    digest = hashlib.sha256()
    add_model(digest, model)
    return digest.hexdigest()


def _told(places: SearchPlaces, options: SearchOptions) -> dict[str, Any]:
    """What decides a search of all that was typed, by its option's name."""
    told = {name: value for part in (places, options) for name, value in asdict(part).items() if name not in _FREE}
    return {f"--{name.replace('_', '-')}": value for name, value in json.loads(json.dumps(told)).items()}


class _Job:
    """What a search goes by, in a file of its folder: a command that is repeated goes by the same."""

    def __init__(self, output: Path) -> None:
        """Take the folder. Raises `FolderError` where something else lies in it."""
        self.output, self.place = output, output / _JOB
        if not self.place.exists():
            if any(path.name != LOCK for path in output.iterdir()):
                raise FolderError(f"{output} is not empty and holds no search: choose another --output")
            write_json(self.place, {})
        self.told = read_json(self.place, f"choose another --output{self._spared()}")

    def check(self, wanted: Mapping[str, Any]) -> None:
        """Raise `FolderError` where the search went by something else before."""
        for name, value in wanted.items():
            if name != _RATIOS and self.told.get(name, value) != value:
                raise FolderError(
                    f"{self.output} holds a search with another {name}: choose another --output, or repeat its "
                    f"command{self._spared()}"
                )

    def bind(self, wanted: Mapping[str, Any]) -> None:
        """Note what the search goes by from now on; ratios may become more."""
        self.check(wanted)
        self.told = {**self.told, **wanted}
        write_json(self.place, self.told)

    def _spared(self) -> str:
        table = self.output / _TABLE
        return f"; --table {table} spares timing the networks again" if table.exists() else ""


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
        lines.append(
            f"  next, for a task: squeezebert distil TABLE --base {output / name} --teacher TEACHER --output MODEL"
        )
        lines.append(f"  next, for vectors of texts: squeezebert export {output / name} --output VECTORS")
    return "\n".join([*lines, f"took {duration(record['seconds'])} in all", f"written: {output / PAGE}"])
