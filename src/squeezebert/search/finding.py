"""A trained supernet, a latency table and a budget in; the network for it, timed, chosen, healed and written, out.

Serves `job.py`. What was timed and chosen is kept as soon as it is known: a search that was cut off goes on with it.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from squeezebert.benchmark.latency import VOCABULARY, compare_latency
from squeezebert.data.corpus import Corpus
from squeezebert.export.smoothing import find_scales
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import DivergedError, FolderError
from squeezebert.model import SqueezeBertModel
from squeezebert.search.evolution import Judged, Record, evolve, fitted, front, key_of, ranked
from squeezebert.search.latency import LatencyTable, Target, measure_ratios, write_network
from squeezebert.search.learning import GumbelLearner, Judge, Learner
from squeezebert.search.options import SearchOptions
from squeezebert.search.progress import Progress
from squeezebert.search.space import Shape, Space
from squeezebert.training.checkpoint import carry_pooling
from squeezebert.training.general import LOG, distil_general
from squeezebert.training.general import RECORD as HEALED
from squeezebert.training.losses import layer_errors
from squeezebert.training.options import GeneralDistilOptions
from squeezebert.training.runs import save_model
from squeezebert.training.shapes import best_shape, paper_shape
from squeezebert.training.squeeze import MatrixError, parameters, squeeze
from squeezebert.training.stepping import write_json

Report = Callable[[str], None]
RESULT, SHAPE = "search.json", "shape.yaml"
NEAR = 0.05
"""A network lands within this share below its budget."""
_ROUNDS = 4  # of searching and timing what was found, at the most
_TIMED = 8  # networks that a round times
_DRAWS = 20  # times `drawn` networks are drawn at the most, to find as many that fit
_SCALED = 16  # texts that int8 finds its scales on, where the network is timed
_TURNS = 64  # for the time that is told at last
_FINALISTS = 4  # networks within the budget that are converted, to choose among


@dataclass(frozen=True)
class Ground:
    """What all budgets of a search have in common."""

    table: LatencyTable
    """What networks take."""
    corpus: Corpus
    """The text in tokens."""
    held_out: np.ndarray
    """Sequences of it that nothing is fitted to or learned from."""
    batches: Sequence[tuple[Tensor, Tensor, Tensor]]
    """Text that conversions are fitted on."""
    output: Path
    """Where everything is kept."""
    options: SearchOptions
    """How networks are looked for."""
    tokenizer: Any
    """The dense model's, for each network."""
    embeds_as: str | None
    """Checkpoint of an encoder that is searched in: what it says of how it embeds is copied."""
    report: Report
    """Takes lines of progress."""


def find_network(
    name: str, budget: float, learner: Learner, judges: tuple[Judge, Judge], ground: Ground
) -> dict[str, Any]:
    """Search one budget's network, heal it, time it, and write it.

    Of `judges`, the first compares networks, and the second, on other text, says what came of it. What was timed and
    chosen is noted before it is gone on with: a search that was cut off times nothing again, and chooses the same.
    """
    judge, final = judges
    output, table, options = ground.output, ground.table, ground.options
    folder, start, healing = output / name, *_workings(output, name)
    state = _State(output / f"finding-{name}.json")
    space, teacher = table.space, learner.teacher
    judged = Record(output / f"judged-{name if options.method == 'gumbel' else 'all'}.jsonl", judge, table)
    uniform = uniform_controls(space)
    if not state.controls:
        ground.report(f"{name}: timing {len(uniform)} uniform networks to compare with")
        state.controls = measure_ratios(uniform, space, teacher.config, table.target)
        state.write()
    _time_some(name, budget, state, learner, judged, ground)
    if state.chosen is None:
        tidy(output, name)  # what a choice that is no longer known left
        _convert_finalists(name, budget, state, judge, teacher, ground)
        ways = [(one[way], way, one) for one in state.finalists for way in ("judged", "fitted")]
        _, way, one = min(ways, key=lambda found: found[0])
        state.chosen = {**one, "start": "inherited" if way == "judged" else "fitted"}
        state.write()
    chosen = state.chosen
    shape = chosen["shape"]
    progress = Progress(f"{name}: converting the network: layer", space.layers, ground.report)
    starts = {
        "inherited": learner.supernet.extract(shape),
        "fitted": squeeze(teacher, shape, ground.batches, report=lambda error: progress.told(error.layer + 1)),
    }
    if not start.exists():
        with new_folder(start) as building:
            save_model(building, starts[chosen["start"]], ground.tokenizer)
    student: SqueezeBertModel = SqueezeBertModel.from_pretrained(start)
    student.train(False)
    errors: dict[str, float | None] = {way: network_error(model, final) for way, model in starts.items()}
    errors["healed"] = None
    heals = options.heal_steps > 0 and has_layers(shape)
    if heals:
        student = _heal(name, student, teacher, state, healing, ground)
        errors["healed"] = network_error(student, final)
    judged.use(table.corrected(state.timed))  # all are compared by one model, of all that was timed
    controls = {
        label: {**state.controls[label], "error": judged(one).error, "parameters": _parameters(space, one, teacher)}
        for label, one in uniform.items()
    }
    told = {
        "budget": budget,
        "shape": shape,
        "parameters": parameters(student),
        "judged": chosen["judged"],
        "rounds": state.rounds,
        "finalists": state.finalists,
        "timed": time_network(student, teacher, table.target, ground.batches),
        "start": chosen["start"],
        "errors": errors,
        "healing": state.healing if heals else None,
        "front": [[one.ratio, one.error] for one in front(list(judged.found.values()))],
        "seen": [[one.ratio, one.error] for one in judged.found.values()],
        "controls": controls,
    }
    with new_folder(folder) as building:
        save_model(building, student, ground.tokenizer)
        lines = (f"{field}: {json.dumps(value)}\n" for field, value in shape.items())  # JSON is YAML, a list a line
        (building / SHAPE).write_text("".join(lines), encoding="utf-8")
        (building / RESULT).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        for record in (HEALED, LOG) if heals else ():
            shutil.copyfile(healing / record, building / record)
        if ground.embeds_as is not None:
            carry_pooling(ground.embeds_as, building)
    tidy(output, name)
    return told


def tidy(output: Path, name: str) -> None:
    """Delete what a network of one budget was made in, once it is there."""
    for place in _workings(output, name):
        shutil.rmtree(place, ignore_errors=True)


def _workings(output: Path, name: str) -> tuple[Path, Path]:
    """Where a network lies before it is healed, and where it is."""
    return output / f"start-{name}", output / f"healing-{name}"


def _parameters(space: Space, shape: Shape, dense: SqueezeBertModel) -> int:
    """Parameters of a network's blocks."""
    with torch.device("meta"):
        return parameters(SqueezeBertModel(space.config(shape, dense.config)))


class _State:
    """What one budget's search has timed and chosen, in a file."""

    def __init__(self, path: Path) -> None:
        way = "delete this file and repeat the command: the budget's networks are timed and chosen anew"
        told = read_json(path, way) if path.exists() else {}
        self.path = path
        self.controls: dict[str, dict[str, float]] = told.get("controls", {})
        self.rounds: list[list[dict[str, Any]]] = told.get("rounds", [])
        self.finalists: list[dict[str, Any]] = told.get("finalists", [])
        self.chosen: dict[str, Any] | None = told.get("chosen")
        self.healing: dict[str, Any] | None = told.get("healing")

    @property
    def timed(self) -> list[dict[str, Any]]:
        """The networks of all rounds."""
        return [row for one in self.rounds for row in one]

    def write(self) -> None:
        """Keep it."""
        write_json(self.path, {name: value for name, value in vars(self).items() if name != "path"})


def _time_some(name: str, budget: float, state: _State, learner: Learner, judged: Record, ground: Ground) -> None:
    """Search and time what is found, until enough networks are within the budget, or rounds are used up."""
    table, timed = ground.table, state.timed
    while (
        len(state.rounds) < _ROUNDS
        and state.rounds[-1:] != [[]]  # another would find nothing new either
        and sum(_fits(row["ratio"], budget) for row in timed) < _FINALISTS
    ):
        judged.use(table.corrected(timed))
        aim = budget
        if timed:  # what the corrected model is still off by, near the budget
            off = float(np.median([row["ratio"] / judged.table.ratio(row["shape"]) for row in timed]))
            low, high = judged.table.range
            span = 0.02 * (high - low)
            aim = float(np.clip(budget / off, low + span, max(low + span, high - span)))
        known = {key_of(row["shape"]) for row in timed}
        best = [one for one in _search(learner, judged, aim, ground) if key_of(one.shape) not in known]
        best = ([one for one in best if one.ratio <= aim] or best)[:_TIMED]
        shapes = {str(place): one.shape for place, one in enumerate(best)}
        found = measure_ratios(shapes, table.space, learner.teacher.config, table.target) if shapes else {}
        rows: list[dict[str, Any]] = [
            {"shape": one.shape, "judged": one.error, "predicted": one.ratio, **found[str(place)]}
            for place, one in enumerate(best)
        ]
        state.rounds.append(rows)
        state.write()
        timed = state.timed
        if rows:
            off = float(np.median([row["ratio"] / row["predicted"] for row in rows]))
            ground.report(
                f"{name}: {len(rows)} networks timed, {off:.2f} times what was predicted; "
                f"{sum(_fits(row['ratio'], budget) for row in rows)} of them within the budget"
            )
        else:
            ground.report(f"{name}: the search finds no networks that were not timed before")


def _convert_finalists(
    name: str, budget: float, state: _State, judge: Judge, teacher: SqueezeBertModel, ground: Ground
) -> None:
    """Convert the best networks that were timed by themselves, and note the errors that they have then."""
    layers = ground.table.space.layers
    rows = _finalists(state.timed, budget)[len(state.finalists) :]
    progress = Progress(f"{name}: converting networks: layer", len(rows) * layers, ground.report)
    for place, row in enumerate(rows):

        def note(error: MatrixError, before: int = place * layers) -> None:
            progress.told(before + error.layer + 1)

        anew = network_error(squeeze(teacher, row["shape"], ground.batches, report=note), judge)
        state.finalists.append({**row, "fitted": anew})
        state.write()
        ground.report(f"{name}: error {row['judged']:.4f} with the supernet's weights, {anew:.4f} fitted anew")


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


def _search(learner: Learner, record: Record, budget: float, ground: Ground) -> list[Judged]:
    """The best networks that are predicted to fit a budget, the best of all first."""
    space, table, options, report = learner.supernet.space, record.table, ground.options, ground.report
    if isinstance(learner, GumbelLearner):
        generator = np.random.default_rng([options.seed, round(budget * 1e6)])
        drawn = [learner.most_likely(), *(learner.drawn(generator) for _ in range(_DRAWS * options.drawn))]
        fit = [shape for shape in drawn if (1 - 2 * NEAR) * budget <= table.ratio(shape) <= budget]
        report(f"{len(fit)} of {len(drawn)} networks drawn by the learned probabilities fit the budget")
        fit = fit[: options.drawn]
        if len(fit) < _TIMED:  # those that come nearest, changed until they fit
            nearest = sorted(drawn, key=lambda shape: abs(table.ratio(shape) - budget))[: 2 * _TIMED]
            fit += [fitted(space, table, shape, budget, generator) for shape in nearest]
        progress = Progress("judging networks:", len(fit), report)
        found = []
        for shape in fit:
            found.append(record(shape))
            progress.told(len(found))
        return ranked(found, budget)
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


def time_network(
    model: SqueezeBertModel,
    anchor: SqueezeBertModel,
    target: Target,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
) -> dict[str, float]:
    """Time an encoder beside the dense one, both as an export writes them; return `ms`, `anchor_ms` and `ratio`.

    The scales of int8 are found on texts of `batches`: token ids, masks and types, (B, T) each.
    """
    ids_BT, mask_BT, types_BT = batches[0]
    counts = mask_BT.sum(dim=1).tolist()[:_SCALED]
    texts = [(ids_BT[i : i + 1, :count], types_BT[i : i + 1, :count]) for i, count in enumerate(counts)]
    with tempfile.TemporaryDirectory() as place:
        own, beside = (
            write_network(encoder, Path(place) / name, target, find_scales(encoder, texts))
            for name, encoder in (("own", model), ("anchor", anchor))
        )
        vocabulary = min(VOCABULARY, model.config.vocab_size)
        found = compare_latency(
            {"own": own}, beside, target.tokens, threads=target.threads, turns=_TURNS, vocabulary=vocabulary
        )
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
    name: str, student: SqueezeBertModel, teacher: SqueezeBertModel, state: _State, folder: Path, ground: Ground
) -> SqueezeBertModel:
    """Let a network learn the dense one's states; one that was begun with other options begins anew."""
    options = ground.options
    wanted = {"steps": options.heal_steps, "learning_rate": options.heal_learning_rate}
    before = state.healing
    if before is None or {part: before.get(part) for part in wanted} != wanted:
        if folder.exists():
            ground.report(f"{name}: its healing begins anew, with other options than before")
            shutil.rmtree(folder)
        before = state.healing = {**wanted, "save_every": options.save_every}
        state.write()
    if not (folder / HEALED).exists():
        healing = GeneralDistilOptions(
            **before, batch_tokens=options.batch_tokens, precision=options.precision, seed=options.seed
        )
        try:
            distil_general(
                student, teacher, ground.corpus, folder, healing, held_out=ground.held_out, report=ground.report
            )
        except DivergedError as error:
            raise DivergedError(
                f"healing {name} ran away: repeat the command with a lower --heal-learning-rate than "
                f"{options.heal_learning_rate:g}; all that was searched and timed is kept"
            ) from error
    healed: SqueezeBertModel = SqueezeBertModel.from_pretrained(folder)
    healed.train(False)
    return healed


def read_json(path: Path, way: str = "delete this file and repeat the command") -> dict[str, Any]:
    """Read what a search noted. Raises `FolderError` for a damaged file, with the way out."""
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: damaged ({error}): {way}") from error
    return told
