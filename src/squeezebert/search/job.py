"""A dense checkpoint, text and budgets in; a network for each budget, healed and timed, out: the job behind `search`.

Each stage keeps what it made in the output folder: the latency table, the text in tokens, the dense model in its
order, the supernet's saves, the networks that were judged, and the networks that were found. A killed search goes on
in the stage that it was in when its command is repeated.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
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
from squeezebert.files.lock import LOCK, only_run
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertForSequenceClassification, SqueezeBertModel
from squeezebert.search.evolution import Judged, Record, check_budget, evolve, fitted, front, ranked
from squeezebert.search.latency import ENGINES, LatencyTable, Target, build_table, measure_ratios
from squeezebert.search.learning import GumbelLearner, Judge, Learner, SandwichLearner, train, within
from squeezebert.search.options import SearchOptions, SearchPlaces
from squeezebert.search.report import write_report
from squeezebert.search.space import Shape, Space
from squeezebert.search.supernet import Supernet, nested_order
from squeezebert.training.dense import load_dense, matching_tokenizer
from squeezebert.training.general import distil_general
from squeezebert.training.losses import layer_errors
from squeezebert.training.options import GeneralDistilOptions
from squeezebert.training.runs import add_model, save_model
from squeezebert.training.shapes import best_shape, paper_shape
from squeezebert.training.squeeze import calibration_batches, squeeze

Report = Callable[[str], None]
RESULT, PAGE, SHAPE = "search.json", "report.html", "shape.yaml"
_JOB, _TABLE = "job.json", "latency.json"
_NEAR = 0.05  # a network lands within this share below its budget
_ROUNDS = 4  # of searching and timing what was found, at the most
_TIMED = 8  # networks that a round times
_DRAWS = 20  # times `drawn` networks are drawn at the most, to find as many that fit
_FINALISTS = 4  # networks within the budget that are converted, to choose among


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
                found[name] = _told(folder / RESULT)
                continue
            if learner is None or options.method == "gumbel":
                report(f"fitting a supernet to {space.layers} layers")
                learner = _learner(Supernet.of(teacher, space, batches), teacher, options, table, budget, budgets)
                place = output / ("supernet" if options.method == "evolution" else f"supernet-{name}")
                train(learner, corpus, rows, place, report)
            judges = Judge(learner, corpus, judged_on), Judge(learner, corpus, final)
            found[name] = _find(
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
        }
        write_report(record, output / PAGE)
        _write_json(output / RESULT, record)
        return _summary(record, output)


def _find(
    name: str,
    budget: float,
    learner: Learner,
    judges: tuple[Judge, Judge],
    table: LatencyTable,
    corpus: Corpus,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    output: Path,
    options: SearchOptions,
    tokenizer: Any,
    report: Report,
) -> dict[str, Any]:
    """Search one budget's network, heal it, time it, and write it.

    Of `judges`, the first compares networks, and the second, on other text, says what came of it. What was timed and
    chosen is noted before it is gone on with: a search that was cut off times nothing again, and chooses the same.
    """
    judge, final = judges
    folder, start = output / name, output / f"start-{name}"
    state = _State(output / f"finding-{name}.json")
    space, teacher = table.space, learner.teacher
    judged = Record(output / f"judged-{name if options.method == 'gumbel' else 'all'}.jsonl", judge, table)
    controls = {label: judged(shape) for label, shape in uniform_controls(space).items()}
    _time_some(name, budget, state, learner, judged, table, options, report)
    if state.chosen is None:
        for row in _finalists(state.timed, budget)[len(state.finalists) :]:
            anew = network_error(squeeze(teacher, row["shape"], batches), judge)
            state.finalists.append({**row, "fitted": anew})
            state.write()
            report(f"{name}: error {row['judged']:.4f} with the supernet's weights, {anew:.4f} fitted anew")
        ways = [(one[way], way, one) for one in state.finalists for way in ("judged", "fitted")]
        _, way, one = min(ways, key=lambda found: found[0])
        state.chosen = {**one, "start": "inherited" if way == "judged" else "fitted"}
        state.write()
    chosen = state.chosen
    shape = chosen["shape"]
    starts = {"inherited": learner.supernet.extract(shape), "fitted": squeeze(teacher, shape, batches)}
    if not start.exists():
        with new_folder(start) as building:
            save_model(building, starts[chosen["start"]], tokenizer)
    student: SqueezeBertModel = SqueezeBertModel.from_pretrained(start)
    student.train(False)
    errors: dict[str, float | None] = {way: network_error(model, final) for way, model in starts.items()}
    errors["healed"] = None
    if options.heal_steps and _has_layers(shape):
        student = _heal(student, teacher, corpus, output / f"healing-{name}", options, report)
        errors["healed"] = network_error(student, final)
    told = {
        "budget": budget,
        "shape": shape,
        "judged": chosen["judged"],
        "rounds": state.rounds,
        "finalists": state.finalists,
        "timed": time_network(student, teacher, table.target),
        "start": chosen["start"],
        "errors": errors,
        "front": [[one.ratio, one.error] for one in front(list(judged.found.values()))],
        "seen": [[one.ratio, one.error] for one in judged.found.values()],
        "controls": {label: [one.ratio, one.error] for label, one in controls.items()},
    }
    with new_folder(folder) as building:
        save_model(building, student, tokenizer)
        lines = (f"{field}: {json.dumps(value)}\n" for field, value in shape.items())  # JSON is YAML, a list a line
        (building / SHAPE).write_text("".join(lines), encoding="utf-8")
        (building / RESULT).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(start)
    return told


class _State:
    """What one budget's search has timed and chosen, in a file."""

    def __init__(self, path: Path) -> None:
        told = _told(path) if path.exists() else {}
        self.path = path
        self.rounds: list[list[dict[str, Any]]] = told.get("rounds", [])
        self.finalists: list[dict[str, Any]] = told.get("finalists", [])
        self.chosen: dict[str, Any] | None = told.get("chosen")

    @property
    def timed(self) -> list[dict[str, Any]]:
        """The networks of all rounds."""
        return [row for one in self.rounds for row in one]

    def write(self) -> None:
        """Keep it."""
        _write_json(self.path, {"rounds": self.rounds, "finalists": self.finalists, "chosen": self.chosen})


def _time_some(
    name: str,
    budget: float,
    state: _State,
    learner: Learner,
    judged: Record,
    table: LatencyTable,
    options: SearchOptions,
    report: Report,
) -> None:
    """Search and time what is found, until enough networks are within the budget, or rounds are used up."""
    space, timed = table.space, state.timed
    while len(state.rounds) < _ROUNDS and sum(_fits(row["ratio"], budget) for row in timed) < _FINALISTS:
        judged.use(table.corrected(timed))
        aim = budget
        if timed:  # what the corrected model is still off by, near the budget
            off = float(np.median([row["ratio"] / judged.table.ratio(row["shape"]) for row in timed]))
            low, high = judged.table.range
            span = 0.02 * (high - low)
            aim = float(np.clip(budget / off, low + span, max(low + span, high - span)))
        best = _search(learner, judged, aim, options, report)
        best = ([one for one in best if one.ratio <= aim] or best)[:_TIMED]
        shapes = {str(place): one.shape for place, one in enumerate(best)}
        found = measure_ratios(shapes, space, learner.teacher.config, table.target)
        rows: list[dict[str, Any]] = [
            {"shape": one.shape, "judged": one.error, "predicted": one.ratio, **found[str(place)]}
            for place, one in enumerate(best)
        ]
        state.rounds.append(rows)
        state.write()
        timed = state.timed
        off = float(np.median([row["ratio"] / row["predicted"] for row in rows]))
        report(
            f"{name}: {len(rows)} networks timed, {off:.2f} times what was predicted; "
            f"{sum(_fits(row['ratio'], budget) for row in rows)} of them within the budget"
        )


def _has_layers(shape: Shape) -> bool:
    return any(shape["kept_heads"]) or any(shape["intermediate_size"])


def _fits(ratio: float, budget: float) -> bool:
    return (1 - _NEAR) * budget <= ratio <= budget


def _finalists(timed: Sequence[dict[str, Any]], budget: float) -> list[dict[str, Any]]:
    """Which of the networks that were timed are converted: the best within the budget, or else what comes nearest."""
    for some in ([r for r in timed if _fits(r["ratio"], budget)], [r for r in timed if r["ratio"] <= budget]):
        if some:
            return sorted(some, key=lambda row: row["judged"])[:_FINALISTS]
    return sorted(timed, key=lambda row: row["ratio"])[:1]


def _search(learner: Learner, record: Record, budget: float, options: SearchOptions, report: Report) -> list[Judged]:
    """The best networks that are predicted to fit a budget, the best of all first."""
    space, table = learner.supernet.space, record.table
    if isinstance(learner, GumbelLearner):
        generator = np.random.default_rng([options.seed, round(budget * 1e6)])
        drawn = [learner.most_likely(), *(learner.drawn(generator) for _ in range(_DRAWS * options.drawn))]
        fit = [shape for shape in drawn if (1 - 2 * _NEAR) * budget <= table.ratio(shape) <= budget]
        report(f"{len(fit)} of {len(drawn)} networks drawn by the learned probabilities fit the budget")
        fit = fit[: options.drawn]
        if len(fit) < _TIMED:  # those that come nearest, changed until they fit
            nearest = sorted(drawn, key=lambda shape: abs(table.ratio(shape) - budget))[: 2 * _TIMED]
            fit += [fitted(space, table, shape, budget, generator) for shape in nearest]
        return ranked([record(shape) for shape in fit], budget)
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
            held_out=max(GeneralDistilOptions.held_out, 2 * options.held_out),  # what networks are compared on as well
        )
        distil_general(student, teacher, corpus, folder, healing, report=report)
    healed: SqueezeBertModel = SqueezeBertModel.from_pretrained(folder)
    healed.train(False)
    return healed


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
    there = _told(place) if place.exists() else {}
    if name not in there:
        _write_json(place, {**there, name: value})
    elif there[name] != value:
        table = f"; --table {output / _TABLE} spares timing the networks again" if (output / _TABLE).exists() else ""
        raise FolderError(
            f"{output} holds a search with another {name}: choose another --output, or repeat its command{table}"
        )


def _write_json(path: Path, told: Any) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


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
        error = errors[found["start"]] if errors["healed"] is None else errors["healed"]
        lines.append(
            f"{name}: {timed['ms']:.2f} ms, {timed['ratio']:.3f} of the dense network's time (budget "
            f"{found['budget']:.3f}); error {error:.4f}"
        )
        over = timed["ratio"] / found["budget"] - 1
        if abs(over) > _NEAR:
            lines.append(
                f"  warning: that is {abs(over):.0%} {'over' if over > 0 else 'below'} the budget: the machine may "
                "have been busy, or no network was found that is nearer"
            )
        if not _has_layers(found["shape"]):
            lines.append("  warning: it has no layers left: nothing else is as fast")
        lines.append(f"  next: squeezebert distil TABLE --base {output / name} --teacher TEACHER --output MODEL")
    return "\n".join([*lines, f"written: {output / PAGE}"])
