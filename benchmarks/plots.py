"""Draw the pictures of docs/ from the recorded results.

python benchmarks/plots.py     writes docs/images/squeeze_tradeoff.svg, squeeze_hours.svg, pretrain_runs.svg, bench.svg
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot
from matplotlib.transforms import Bbox

from squeezebert.benchmark.bench_report import plot_svg

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"
STYLE = {"svg.fonttype": "path", "svg.hashsalt": "squeezebert", "font.size": 10}


def kept(cells: list[dict[str, Any]]) -> float:
    """Mean score of students over tasks as a share of their teachers', in per cent."""
    teachers = {cell["task"]: cell["teacher"] for cell in cells}
    own = {task: statistics.mean(c["score"] for c in cells if c["task"] == task) for task in teachers}
    return 100 * statistics.mean(own.values()) / statistics.mean(teachers.values())


def label_points(axes: Any, points: list[tuple[str, float, float]]) -> None:
    """Name points (name, x, y) beside them, where the name lies on no other name and no other point."""
    taken = []
    for _, x, y in points:
        place = axes.transData.transform((x, y))
        taken.append(Bbox.from_bounds(place[0] - 4, place[1] - 4, 8, 8))
    for name, x, y in points:
        for across, up in ((6, 4), (-6, 4), (6, -11), (-6, -11), (6, 14), (-6, 14), (6, -21)):
            text = axes.annotate(
                name,
                (x, y),
                xytext=(across, up),
                textcoords="offset points",
                fontsize=8,
                ha="left" if across > 0 else "right",
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def draw_tradeoff(ablation: dict[str, Any], latency: dict[str, Any]) -> Any:
    """What each shape keeps after the larger budget against how much faster it is, fp32 and int8 beside each other."""
    budget = max(cell["tokens"] for cell in ablation["cells"])
    shapes: dict[str, list[dict[str, Any]]] = {}
    for cell in ablation["cells"]:
        if cell["tokens"] == budget and cell["conversion"] != "slices":
            shapes.setdefault(cell["shape"], []).append(cell)
    tasks = list(ablation["tasks"])
    figure, both = pyplot.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained", sharey=True)
    for axes, precision in zip(both, ("fp32", "int8"), strict=True):
        faster = {r["shape"]: r["bursts"]["128"]["ratio"] for r in latency["rows"] if r["precision"] == precision}
        points: list[tuple[str, float, float]] = []
        for shape, cells in shapes.items():
            if {cell["task"] for cell in cells} != set(tasks):
                continue  # a mean over other tasks is no comparison
            control = cells[0]["conversion"] == "control"
            rates = {cell["rate"] for cell in cells}  # where several were tried, the one that suits the shape
            x, y = faster[shape], max(kept([cell for cell in cells if cell["rate"] == rate]) for rate in rates)
            axes.plot(x, y, "s" if control else "o", color="C7" if control else "C0")
            points.append((shape, x, y))
        axes.set_title(precision)
        axes.grid(alpha=0.25)
        axes.margins(x=0.5, y=0.1)
        figure.draw_without_rendering()
        label_points(axes, points)
    figure.supxlabel(f"times as fast as {latency['baseline']}; 128 tokens, one thread", fontsize=10)
    both[0].set_ylabel(f"kept of the teacher's mean score, %\n({', '.join(tasks)}; {budget:,} tokens a task)")
    return figure


def draw_hours(retention: dict[str, Any]) -> Any:
    """What blocks keep against the hours that they learned on unlabelled text first, task by task.

    All with the same budget and rate on the task. Beside them low rank, which did not learn on the corpus at all.
    """
    budget = 800_000
    cells = [c for c in retention["cells"] if c["tokens"] == budget and not c.get("unlabelled")]
    blocks = [c for c in cells if c["setting"] == "groups 4" and c["rate"] == 1e-3]
    low_rank = [c for c in cells if c["setting"] == "low rank" and c["rate"] == 2e-4]
    figure, axes = pyplot.subplots(figsize=(7.6, 4.4), layout="constrained")
    colours = (f"C{number}" for number in range(10))
    for task in dict.fromkeys(cell["task"] for cell in blocks):
        mine = [cell for cell in blocks if cell["task"] == task]
        hours = sorted({cell["hours"] for cell in mine})
        if len(hours) < 2:  # the other tasks have their students at the end alone
            continue
        colour = next(colours)
        ys = [kept([cell for cell in mine if cell["hours"] == hour]) for hour in hours]
        axes.plot(hours, ys, "o-", color=colour, label=f"{task}, groups 4")
        against = [cell for cell in low_rank if cell["task"] == task]
        if against:
            axes.axhline(kept(against), color=colour, linestyle="--", label=f"{task}, low rank")
    axes.set_xlabel("hours of learning on unlabelled text, one core")
    axes.set_ylabel(f"kept of the teacher's score, %\n(after {budget:,} tokens of the task)")
    axes.set_ylim(0, 105)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    return figure


def draw_pretraining(record: dict[str, Any]) -> Any:
    """Held-out losses and order accuracy of the arms, by hours and by tokens."""
    seconds, known = record["plan"]["seconds"], record["baselines"]
    figure, grid = pyplot.subplots(2, 2, figsize=(9.6, 6.4), layout="constrained", sharex="col", sharey="row")
    for column in (0, 1):
        loss, order = grid[:, column]
        for run in record["runs"]:
            arm, rows, one = run["arm"], run["rows"], seconds[run["model"]]
            xs = [row["step"] * one / 3600 if column == 0 else row["tokens"] / 1e6 for row in rows]
            loss.plot(xs, [row["held_out_mlm_loss"] for row in rows], label=arm)
            order.plot(xs, [100 * row["held_out_sop_accuracy"] for row in rows], label=arm)
        loss.axhline(known["unigram"], color="C7", linestyle="--", label="frequencies of the tokens")
        of_lengths = 100 * known["longer_first"]
        lengths = order.axhline(of_lengths, color="C7", linestyle="--", label="lengths of the segments")
        loss.set_ylim(top=1.03 * known["unigram"])
        loss.grid(alpha=0.25)
        order.grid(alpha=0.25)
    grid[0, 0].set_ylabel("held-out MLM loss")
    grid[1, 0].set_ylabel("held-out SOP accuracy, %")
    grid[1, 0].set_xlabel("hours of one core")
    grid[1, 1].set_xlabel("million tokens")
    grid[0, 1].legend(frameon=False, fontsize=8)
    grid[1, 1].legend(handles=[lengths], frameon=False, fontsize=8, loc="upper left")  # the arms are named above
    return figure


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        figures = {
            "squeeze_tradeoff": draw_tradeoff(read("squeeze_ablation"), read("squeeze_latency")),
            "squeeze_hours": draw_hours(read("squeeze_retention")),
        }
        if (RESULTS / "pretrain_runs.json").exists():
            figures["pretrain_runs"] = draw_pretraining(read("pretrain_runs"))
        for name, figure in figures.items():
            figure.savefig(IMAGES / f"{name}.svg", format="svg", metadata={"Date": None})
            pyplot.close(figure)
            print(f"written: {name}.svg")
    bench = read("bench")
    (IMAGES / "bench.svg").write_text(plot_svg(bench, bench["options"]["threads"][0], 1), encoding="utf-8")
    print("written: bench.svg")


if __name__ == "__main__":
    main()
