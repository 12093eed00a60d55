"""A dense checkpoint, text and budgets in; a network for each budget, healed and timed, out: the job behind `search`.

Each stage keeps what it made in the output folder: the latency table, the text in tokens, the dense model in its
order, the supernet's saves, the networks that were judged, and the networks that were found. A killed search goes on
in the stage that it was in when its command is repeated.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging

from squeezebert.benchmark.baselines import write_ours
from squeezebert.benchmark.latency import measure_latency
from squeezebert.data.corpus import Corpus, tokenise_corpus
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.lock import only_run
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertForSequenceClassification, SqueezeBertModel
from squeezebert.search.evolution import Judged, Record, check_budget, evolve, fitted, front, ranked
from squeezebert.search.latency import ENGINES, LatencyTable, Target, build_table
from squeezebert.search.learning import GumbelLearner, Judge, Learner, SandwichLearner, train, within
from squeezebert.search.options import SearchOptions, SearchPlaces
from squeezebert.search.report import write_report
from squeezebert.search.space import Shape, Space
from squeezebert.search.supernet import Supernet, nested_order
from squeezebert.training.dense import load_dense, matching_tokenizer
from squeezebert.training.general import distil_general
from squeezebert.training.losses import layer_errors
from squeezebert.training.options import GeneralDistilOptions
from squeezebert.training.runs import save_model
from squeezebert.training.shapes import best_shape, paper_shape
from squeezebert.training.squeeze import calibration_batches, squeeze

Report = Callable[[str], None]
RESULT, PAGE, SHAPE = "search.json", "report.html", "shape.yaml"
_JOB, _TABLE = "job.json", "latency.json"
_NEAR = 0.05  # a network lands within this share of its budget
_ROUNDS = 4  # of searching again with the budget corrected by what was measured


def run_search(places: SearchPlaces, options: SearchOptions, command: str, report: Report) -> str:
    """Search a network for each budget and return what came of it; a killed search goes on when it is called again.

    Raises `OptionError` for budgets that no network meets, a table of something else and a checkpoint that does not
    fit; `FolderError` for an output that holds something else.
    """
    logging.disable_progress_bar()
    output = Path(places.output)
    with only_run(output):
        if (output / RESULT).exists() and _told(output / RESULT).get("command") == command:
            return _summary(_told(output / RESULT), output)
        target = Target(options.engine, options.threads, options.tokens)
        dense = load_dense(places.checkpoint, report)
        tokenizer = matching_tokenizer(places.checkpoint, dense)
        base = dense.base_model
        if options.tokens > base.config.max_position_embeddings:
            raise OptionError(
                f"--tokens {options.tokens}: {places.checkpoint} reads {base.config.max_position_embeddings} at most"
            )
        _claim(output, places, options)
        space = Space.of(base.config)
        table_file = Path(places.table) if places.table else output / _TABLE
        table = build_table(
            space, base.config, target, table_file, networks=options.networks, seed=options.seed, report=report
        )
        report(_told_accuracy(table))
        budgets = _budgets(options, table)
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
        rows, held_out = _split(corpus, options)
        batches = calibration_batches(corpus, options.calibration_tokens, options.seed)
        teacher = _teacher(base, batches, output / "teacher", tokenizer, report)
        found = {}
        learner: Learner | None = None
        for name, budget in budgets.items():
            if learner is None or options.method == "gumbel":
                report(f"fitting a supernet to {space.layers} layers")
                learner = _learner(Supernet.of(teacher, space, batches), teacher, options, table, budget, budgets)
                place = output / ("supernet" if options.method == "evolution" else f"supernet-{name}")
                train(learner, corpus, rows, place, report)
            judge = Judge(learner, corpus, held_out)
            found[name] = _find(
                name, budget, learner, judge, table, corpus, batches, output, options, tokenizer, report
            )
        record = {
            "command": command,
            "checkpoint": places.checkpoint,
            "machine": describe_machine(),
            "versions": package_versions(),
            "options": asdict(options),
            "latency": {
                "rows": [{"predicted": table.ratio(row["shape"]), "measured": row["ratio"]} for row in table.rows],
                "accuracy": asdict(table.accuracy) if table.accuracy else None,
                "range": table.range,
            },
            "found": found,
        }
        write_report(record, output / PAGE)
        part = output / f".{RESULT}.part"
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        part.replace(output / RESULT)
        return _summary(record, output)


def _find(
    name: str,
    budget: float,
    learner: Learner,
    judge: Judge,
    table: LatencyTable,
    corpus: Corpus,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    output: Path,
    options: SearchOptions,
    tokenizer: Any,
    report: Report,
) -> dict[str, Any]:
    """Search one budget's network, heal it, time it, and write it."""
    folder = output / name
    if folder.exists():
        return _told(folder / RESULT)
    space, teacher = table.space, learner.teacher
    judged = Record(output / f"judged-{name if options.method == 'gumbel' else 'all'}.jsonl", judge, table)
    controls = {label: judged(shape) for label, shape in uniform_controls(space).items()}
    aim = budget
    rounds = []
    for _ in range(_ROUNDS):
        best = _search(learner, judged, aim, options, report)
        student = learner.supernet.extract(best.shape)
        timed = time_network(student, teacher, table.target)
        rounds.append({"aim": aim, "predicted": best.ratio, "measured": timed["ratio"]})
        report(f"{name}: predicted {best.ratio:.3f} of the dense network's time, measured {timed['ratio']:.3f}")
        if abs(timed["ratio"] / budget - 1) <= _NEAR:
            break
        low, high = table.range
        aim = float(np.clip(aim * budget / timed["ratio"], low + 0.02 * (high - low), high - 0.02 * (high - low)))
    fitted_student = squeeze(teacher, best.shape, batches)
    errors = {
        "inherited": network_error(student, judge),
        "fitted": network_error(fitted_student, judge),
    }
    start = min(errors, key=lambda way: errors[way])
    student = {"inherited": student, "fitted": fitted_student}[start]
    report(f"{name}: error {errors['inherited']:.4f} with the supernet's weights, {errors['fitted']:.4f} fitted anew")
    if options.heal_steps:
        student = _heal(student, teacher, corpus, output / f"healing-{name}", options, report)
    errors["healed"] = network_error(student, judge)
    told = {
        "budget": budget,
        "shape": best.shape,
        "judged": best.error,
        "rounds": rounds,
        "timed": time_network(student, teacher, table.target),
        "start": start,
        "errors": errors,
        "front": [[one.ratio, one.error] for one in front(list(judged.found.values()))],
        "seen": [[one.ratio, one.error] for one in judged.found.values()],
        "controls": {label: [one.ratio, one.error] for label, one in controls.items()},
    }
    with new_folder(folder) as building:
        save_model(building, student, tokenizer)
        lines = (
            f"{field}: {json.dumps(value)}\n" for field, value in best.shape.items()
        )  # JSON is YAML, a list a line
        (building / SHAPE).write_text("".join(lines), encoding="utf-8")
        (building / RESULT).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


def _search(learner: Learner, record: Record, budget: float, options: SearchOptions, report: Report) -> Judged:
    space, table = learner.supernet.space, record.table
    if isinstance(learner, GumbelLearner):
        generator = np.random.default_rng([options.seed, round(budget * 1e6)])
        drawn = [learner.most_likely(), *(learner.drawn(generator) for _ in range(options.drawn))]
        return ranked([record(fitted(space, table, one, budget, generator)) for one in drawn], budget)[0]
    return evolve(
        space,
        record,
        budget,
        population=options.population,
        generations=options.generations,
        seed=options.seed,
        first=list(uniform_controls(space).values()),
        report=report,
    )


def uniform_controls(space: Space) -> dict[str, Shape]:
    """Networks that anyone would try without a search, by name."""
    low = best_shape(space.hidden_size, space.choices["intermediate_size"][0])
    width, layers = space.choices["intermediate_size"][0], space.layers
    skipped = copy.deepcopy(space.dense)
    for layer in range(0, layers, 2):
        skipped["kept_heads"][layer] = skipped["intermediate_size"][layer] = 0
    return {
        "groups 4": space.uniform(**paper_shape(4)),
        "groups 2": space.uniform(**paper_shape(2)),
        "groups 2, FFN half as wide": space.uniform(**paper_shape(2), intermediate_size=width // 2),
        "low rank": space.uniform(**{name: value for name, value in low.items() if name in space.choices}),
        "every other layer": space.repaired(skipped),
        "FFN a quarter as wide": space.uniform(intermediate_size=width // 4),
    }


def time_network(model: SqueezeBertModel, anchor: SqueezeBertModel, target: Target) -> dict[str, float]:
    """Export an encoder and the dense one as classifiers and time them in turn; return `ms`, `anchor_ms`, `ratio`."""
    precision = ENGINES[target.engine]
    with tempfile.TemporaryDirectory() as place:
        files = {}
        for name, encoder in (("own", model), ("anchor", anchor)):
            config = copy.deepcopy(encoder.config)
            config.num_labels = 2
            classifier = SqueezeBertForSequenceClassification(config)
            classifier.transformer.load_state_dict(encoder.state_dict())
            files[name] = write_ours(classifier, Path(place) / name)[precision]
        vocabulary = min(1000, model.config.vocab_size)
        timings = measure_latency(
            files, (target.tokens,), threads=target.threads, runs=15, burst=8, vocabulary=vocabulary
        )
    own, other = (timings[name][target.tokens].median_ms for name in ("own", "anchor"))
    return {"ms": own, "anchor_ms": other, "ratio": own / other}


@torch.no_grad()
def network_error(model: SqueezeBertModel, judge: Judge) -> float:
    """The mean error over layers of an encoder's states on the judge's text."""
    total = weight = 0.0
    for batch, taught in judge.batches:
        tokens = float(batch["attention_mask"].sum())
        states = model(**batch, output_hidden_states=True).hidden_states[1:]
        total += tokens * float(layer_errors(list(states), taught, batch["attention_mask"]).mean())
        weight += tokens
    return total / weight


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


def _heal(
    student: SqueezeBertModel,
    teacher: SqueezeBertModel,
    corpus: Corpus,
    folder: Path,
    options: SearchOptions,
    report: Report,
) -> SqueezeBertModel:
    if not (folder / "healing.json").exists():
        healing = GeneralDistilOptions(
            steps=options.heal_steps,
            learning_rate=options.heal_learning_rate,
            batch_tokens=options.batch_tokens,
            precision=options.precision,
            seed=options.seed,
            hours=None,
        )
        distil_general(student, teacher, corpus, folder, healing, report=report)
    healed: SqueezeBertModel = SqueezeBertModel.from_pretrained(folder)
    healed.train(False)
    return healed


def _teacher(base: SqueezeBertModel, batches: Any, folder: Path, tokenizer: Any, report: Report) -> SqueezeBertModel:
    if not folder.exists():
        report("looking for an order of channels in which groups carry most")
        with new_folder(folder) as building:
            save_model(building, nested_order(base, batches), tokenizer)
    teacher: SqueezeBertModel = SqueezeBertModel.from_pretrained(folder)
    teacher.train(False)
    return teacher


def _budgets(options: SearchOptions, table: LatencyTable) -> dict[str, float]:
    """Each budget as a share of the dense network's time, by the name of its folder."""
    if options.budget_ratio:
        return {f"{ratio:g}x": ratio for ratio in options.budget_ratio}
    anchor = float(np.median([row["anchor_ms"] for row in table.rows]))
    return {f"{ms:g}ms": ms / anchor for ms in options.budget_ms}


def _split(corpus: Corpus, options: SearchOptions) -> tuple[np.ndarray, np.ndarray]:
    """Sequences to learn from, and those that networks are compared on."""
    if len(corpus) < 2:
        raise OptionError("--text: it makes one sequence of tokens: give one to learn from and one to measure on")
    order = np.random.default_rng(options.seed).permutation(len(corpus))
    count = min(options.held_out, max(1, len(corpus) // 10))
    return np.sort(order[count:]), np.sort(order[:count])


def _claim(output: Path, places: SearchPlaces, options: SearchOptions) -> None:
    """Note whose the folder is. Raises `FolderError` when it is another search's, or something else."""
    wanted = json.loads(json.dumps({"places": asdict(places) | {"output": None}, "options": asdict(options)}))
    place = output / _JOB
    if output.is_file():
        raise FolderError(f"{output} is a file; --output takes a folder")
    if place.exists():
        there = _told(place)
        differing = [
            f"--{name.replace('_', '-')}"
            for part in ("places", "options")
            for name, value in wanted[part].items()
            if there.get(part, {}).get(name) != value
        ]
        if differing:
            raise FolderError(
                f"{output} holds a search with another {', '.join(differing[:4])}: choose another --output, or repeat "
                "its command"
            )
        return
    if output.is_dir() and any(output.iterdir()):
        raise FolderError(f"{output} is not empty and holds no search: choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(wanted), encoding="utf-8")


def _told(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: damaged ({error}): delete its folder and search again") from error
    return told


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
        lines.append(
            f"{name}: {timed['ms']:.2f} ms, {timed['ratio']:.3f} of the dense network's time (budget "
            f"{found['budget']:.3f}); error {errors['healed']:.4f}"
        )
        lines.append(f"  next: squeezebert distil TABLE --base {output / name} --teacher TEACHER --output MODEL")
    return "\n".join([*lines, f"written: {output / PAGE}"])
