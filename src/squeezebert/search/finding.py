"""A trained supernet, a latency table and a budget in; the network for it, timed, chosen, healed and written, out.

Serves `job.py`. What was timed and chosen is kept as soon as it is known: a search that was cut off goes on with it.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from squeezebert.benchmark.baselines import write_ours
from squeezebert.benchmark.latency import compare_latency
from squeezebert.data.corpus import Corpus
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError
from squeezebert.model import SqueezeBertForSequenceClassification, SqueezeBertModel
from squeezebert.search.evolution import Judged, Record, evolve, fitted, front, ranked
from squeezebert.search.latency import ENGINES, LatencyTable, Target, measure_ratios
from squeezebert.search.learning import GumbelLearner, Judge, Learner
from squeezebert.search.options import SearchOptions
from squeezebert.search.space import Shape, Space
from squeezebert.training.general import distil_general
from squeezebert.training.losses import layer_errors
from squeezebert.training.options import GeneralDistilOptions
from squeezebert.training.runs import save_model
from squeezebert.training.shapes import best_shape, paper_shape
from squeezebert.training.squeeze import squeeze
from squeezebert.training.stepping import write_json

Report = Callable[[str], None]
RESULT, SHAPE = "search.json", "shape.yaml"
NEAR = 0.05
"""A network lands within this share below its budget."""
_ROUNDS = 4  # of searching and timing what was found, at the most
_TIMED = 8  # networks that a round times
_DRAWS = 20  # times `drawn` networks are drawn at the most, to find as many that fit
_FINALISTS = 4  # networks within the budget that are converted, to choose among


def find_network(
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
    if options.heal_steps and has_layers(shape):
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
        told = read_json(path) if path.exists() else {}
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
        write_json(self.path, {"rounds": self.rounds, "finalists": self.finalists, "chosen": self.chosen})


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


def has_layers(shape: Shape) -> bool:
    """Whether anything is left of a network beside its embeddings."""
    return any(shape["kept_heads"]) or any(shape["intermediate_size"])


def _fits(ratio: float, budget: float) -> bool:
    return (1 - NEAR) * budget <= ratio <= budget


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
        fit = [shape for shape in drawn if (1 - 2 * NEAR) * budget <= table.ratio(shape) <= budget]
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
    """Time an encoder beside the dense one, exported as classifiers; return `ms`, `anchor_ms` and `ratio`."""
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
        anchored = files.pop("anchor")
        found = compare_latency(files, anchored, target.tokens, threads=target.threads, vocabulary=vocabulary)
    return found["own"].to_dict()


@torch.no_grad()
def network_error(model: SqueezeBertModel, judge: Judge) -> float:
    """The mean error of an encoder's last states on the judge's text."""
    total = weight = 0.0
    for batch, taught in judge.batches:
        tokens = float(batch["attention_mask"].sum())
        states = [model(**batch).last_hidden_state]
        total += tokens * float(layer_errors(states, taught, batch["attention_mask"]))
        weight += tokens
    return total / weight


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


def read_json(path: Path) -> dict[str, Any]:
    """Read what a search noted. Raises `FolderError` for a damaged file."""
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: damaged ({error}): delete its folder and search again") from error
    return told
