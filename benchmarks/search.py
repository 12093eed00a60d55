"""Searched networks against controls of the same measured latency, equally healed, on GLUE tasks.

python benchmarks/search.py runs   --searched evolution=DIR gumbel=DIR --work DIR
python benchmarks/search.py shapes --searched evolution=DIR gumbel=DIR --work DIR [--budget 0.45x]
python benchmarks/search.py tasks  --work DIR --data DIR [--tasks SST-2,STS-B,RTE] [--names a,b] [--seeds 1,2,3]

`runs` keeps what the searches themselves found: how well latency is predicted, each budget's network, how long it all
took. `shapes` brings every control to the time of the first searched network of one budget, by the search's own
latency table and then by measuring; a control that is not within 3 % of it in the end, all timed in one run, is left
out of `tasks`: uniform groups = 4 and groups = 2 with a feed-forward width that fits, whole layers left out, low rank
with ranks that fit, and random networks. The runs are several, which also says what the noise is. `tasks` squeezes
each task's teacher to each shape and distils it, all alike: the channels' order is the better of one in which all
numbers of groups nest and, where a network has one number alone, the one made for it; the learning rate is the one of
`--rates` that was better with the first seed. Its teachers are those of `squeeze.py`. Random networks are screened
first, with `--names "random 1,random 2,..." --tokens 50000 --seeds 1`, and the best two healed as the others are.
Cells are kept in the work folder, so that a run that was cut off goes on where it was. Those of networks that
`shapes` has found anew are made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import command_of, merged, short_hash, with_places_named
from squeeze import (
    BASE,
    RESULTS,
    Begun,
    Runs,
    calibration,
    heal,
    load_task,
    reordered,
    state_error,
    teacher_of,
)
from transformers import AutoTokenizer
from transformers.utils import logging

from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertConfig
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.search.evolution import fitted
from squeezebert.search.latency import LatencyTable, Target, measure_ratios
from squeezebert.search.space import Shape, Space
from squeezebert.search.supernet import nested_order
from squeezebert.training.dense import load_dense
from squeezebert.training.shapes import best_shape, paper_shape
from squeezebert.training.squeeze import convert

WITHIN = 0.03  # of the searched network's time: what counts as equal
REPEATS = 5
ATTEMPTS = 3  # at bringing all controls to the leader's time
TURNS = 96  # beside the anchor, for the time that a control is brought to
RANDOM = 16


def scaled(make: Callable[[float], Shape], table: LatencyTable, aim: float) -> Shape:
    """The shape of a family whose predicted ratio is nearest to `aim`; `make` takes a share from 0 to 1."""
    return min((make(share) for share in np.linspace(0.02, 1, 99)), key=lambda shape: abs(table.ratio(shape) - aim))


def families(space: Space) -> dict[str, Callable[[float], Shape]]:
    """Controls without a search, each with one number that sets its time."""
    full = space.choices["intermediate_size"][0]
    low = {name: v for name, v in best_shape(space.hidden_size, full).items() if name in space.choices}

    def width(share: float, step: int = 32) -> int:
        return max(step, round(full * share / step) * step)

    def free(shape: dict[str, Any]) -> Shape:
        """A uniform shape whose numbers need not be among the search's choices."""
        made = {field: [values[0]] * space.layers for field, values in space.choices.items()}
        made |= {field: [value] * space.layers for field, value in shape.items()}
        return made | {"k_rank": made["q_rank"], "v_rank": made["q_rank"], "shared_qkv_rank": True}

    def layers(share: float) -> Shape:
        kept = max(1, round(space.layers * share))
        last = {round((i + 1) * space.layers / kept) - 1 for i in range(kept)}
        dense = free({})
        for layer in set(range(space.layers)) - last:
            dense["kept_heads"][layer] = dense["intermediate_size"][layer] = 0
        # What is left of a layer's time goes into the width of the others
        rest = share * space.layers / kept
        dense["intermediate_size"] = [width(min(1, rest)) if w else 0 for w in dense["intermediate_size"]]
        return dense

    def ranks(share: float) -> Shape:
        return free({f: max(8, round(v * 2 * share / 8) * 8) if f.endswith("_rank") else v for f, v in low.items()})

    return {
        "groups 4": lambda share: free(paper_shape(4) | {"intermediate_size": width(share)}),
        "groups 2": lambda share: free(paper_shape(2) | {"intermediate_size": width(share)}),
        "fewer layers": layers,
        "low rank": ranks,
    }


def searches(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The record of each finished search, by method."""
    folders = {name: Path(folder) for name, _, folder in (one.partition("=") for one in options.searched)}
    if not folders:
        raise SystemExit("--searched METHOD=FOLDER: name the folders of finished searches")
    return {name: json.loads((folder / "search.json").read_text(encoding="utf-8")) for name, folder in folders.items()}


def runs(options: argparse.Namespace) -> dict[str, Any]:
    """What the searches found, without each network that was looked at."""
    kept = ("budget", "shape", "parameters", "timed", "start", "errors", "controls")
    told = {}
    for method, record in searches(options).items():
        found = {name: {key: one[key] for key in kept} for name, one in record["found"].items()}
        about = {name: record[name] for name in ("options", "text", "latency", "seconds", "machine", "versions")}
        told[method] = {**about, "found": found}
    return {"methods": told}


def shapes(options: argparse.Namespace) -> dict[str, Any]:
    base: SqueezeBertConfig = load_dense(str(BASE)).config
    space = Space.of(base)
    searched = searches(options)
    first = Path(options.searched[0].partition("=")[2])
    told = json.loads((first / "latency.json").read_text())
    target = Target(**told["target"])
    table = LatencyTable(space, target, told["rows"], 0)
    found: dict[str, Shape] = {}
    for method, record in searched.items():
        for name, one in record["found"].items():
            found[f"{method} {name}"] = one["shape"]
    leader = f"{next(iter(searched))} {options.budget}"

    def timed(shape: Shape) -> float:
        return measure_ratios({"own": shape}, space, base, target, turns=TURNS)["own"]["ratio"]

    wanted = timed(found[leader])
    generator = np.random.default_rng(0)

    def level(name: str, make: Callable[[float], Shape]) -> None:
        """Bring a control to the wanted time by measuring; the nearest that was tried is kept."""
        goal, tried = wanted, []
        for _ in range(6):
            shape = make(goal)
            ratio = timed(shape)
            tried.append((abs(ratio / wanted - 1), shape))
            if tried[-1][0] <= WITHIN / 2:
                break
            goal *= wanted / ratio
        off, found[name] = min(tried, key=lambda one: one[0])
        print(f"{name}: within {off:.1%} of {wanted:.3f}", flush=True)

    makers: dict[str, Callable[[float], Shape]] = {
        name: lambda goal, family=family: scaled(family, table, goal) for name, family in families(space).items()
    }
    for number in range(RANDOM):
        drawn = space.random(generator)
        makers[f"random {number + 1}"] = lambda goal, drawn=drawn: fitted(space, table, drawn, goal, generator)
    off: set[str] = set(makers)
    for _ in range(ATTEMPTS):
        for name in sorted(off):
            level(name, makers[name])
        timings = [measure_ratios(found, space, base, target) for _ in range(REPEATS)]
        ratios = {name: [run[name]["ratio"] for run in timings] for name in found}
        # The leader is timed again beside the controls, and that is what they are level with
        wanted = statistics.median(ratios[leader])
        off = {name for name in makers if abs(statistics.median(ratios[name]) / wanted - 1) > WITHIN}
        if not off:
            break
    rows = {}
    for name, shape in found.items():
        ratio = statistics.median(ratios[name])
        rows[name] = {
            "shape": shape,
            "ratio": ratio,
            "spread": (max(ratios[name]) - min(ratios[name])) / ratio,
            "ms": statistics.median(run[name]["ms"] for run in timings),
            "predicted": table.ratio(shape),
            "level": abs(ratio / wanted - 1) <= WITHIN,
            "searched": name.partition(" ")[0] in searched,
        }
        print(name, {k: round(v, 3) for k, v in rows[name].items() if k != "shape"}, flush=True)
    return {"wanted": wanted, "budget": options.budget, "target": told["target"], "shapes": rows}


def started(teacher: Any, shape: Shape, nested: Any, batches: Any) -> Any:
    """A network's start: its channels in the order that leaves it nearer to its teacher.

    `nested` is the teacher in an order in which 8 groups nest in 4 and 2; a network with one number of groups alone
    can have an order made for that number, as `squeeze` makes it.
    """
    numbers = {g for field, values in shape.items() if field in GROUP_FIELDS for g in values if g > 1}
    orders = [nested]
    if len(numbers) == 1:
        orders.append(reordered(teacher, numbers.pop(), batches))
    return min((convert(one, shape, batches) for one in orders), key=lambda made: state_error(teacher, made, batches))


def tasks(options: argparse.Namespace) -> None:
    work = Runs(options.work)
    found = json.loads((RESULTS / "search_shapes.json").read_text())["shapes"]
    record_file = RESULTS / "search_tasks.json"
    names = options.names.split(",") if options.names else list(found)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    cells: list[dict[str, Any]] = []
    for task_name in options.tasks.split(","):
        task = load_task(task_name, options.data, options.work)
        task.precision = options.precision
        teacher, cell = teacher_of(task, work)
        batches = calibration(task, tokenizer)
        nested = nested_order(teacher, batches)
        for name in names:
            if not found[name]["level"] and not found[name]["searched"]:
                print(f"{name} is left out: its time is another")
                continue
            shape = found[name]["shape"]
            begun = Begun(lambda shape=shape: started(teacher, shape, nested, batches), task, tokenizer)  # noqa: B023
            network = short_hash(shape, options.precision)  # another run of `shapes` finds others of this name

            def healed(seed: int, rate: float, begun: Begun = begun, name: str = name, network: str = network) -> Any:
                def run() -> dict[str, Any]:
                    student, before = begun.student()
                    folder = work.work / f"healing-{task.name}"  # noqa: B023
                    told = {"tokens": options.tokens, "seed": seed, "rate": rate}
                    return {"start": before, "seed": seed, **heal(task, teacher, student, folder, **told)}  # noqa: B023

                called = f"{task_name} {name} {network} {options.tokens} {rate:g} {seed}"  # noqa: B023
                made = work.cell("search", called, run)
                cells.append(made | {"task": task_name, "name": name, "network": network, "teacher": cell["score"]})  # noqa: B023
                there = json.loads(record_file.read_text())["cells"] if record_file.exists() else []
                write("search_tasks", {"cells": merged(there, cells)}, options)
                return made["score"]

            first, *others = (int(seed) for seed in options.seeds.split(","))
            best = max((float(rate) for rate in options.rates.split(",")), key=lambda rate: healed(first, rate))
            for seed in others:
                healed(seed, best)


def write(name: str, record: dict[str, Any], options: argparse.Namespace) -> None:
    searched = (one.partition("=") for one in options.searched)
    places = {method.upper(): Path(folder) for method, _, folder in searched}
    places |= {"DATA": options.data, "WORK": options.work}
    about = {
        "command": command_of("search", places),
        "machine": describe_machine(),
        "versions": package_versions(),
    }
    told = json.dumps({**about, **with_places_named(record, places)}, indent=1)
    (RESULTS / f"{name}.json").write_text(told + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("runs", "shapes", "tasks"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--searched", nargs="+", default=[], help="METHOD=FOLDER of `squeezebert search`")
    parser.add_argument("--budget", default="0.45x", help="the searched network that controls are brought level with")
    parser.add_argument("--tasks", default="SST-2,STS-B,RTE")
    parser.add_argument("--names", default="", help="networks to heal; all by default")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--rates", default="2e-4,1e-3", help="learning rates, of which the first seed chooses")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if options.part == "runs":
        write("search_runs", runs(options), options)
    elif options.part == "shapes":
        write("search_shapes", shapes(options), options)
    else:
        tasks(options)


if __name__ == "__main__":
    main()
