"""Write the tables of README.md and docs/ from the recorded results.

python benchmarks/tables.py [--check]     with --check, only say whether they are up to date (exit status 1 if not)
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import statistics
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

from records import short_hash
from scipy.stats import ttest_1samp

from squeezebert.benchmark.bench_report import markdown
from squeezebert.workflows.glue.report import as_markdown, scores_table
from squeezebert.workflows.glue.report import sizes_table as glue_sizes_table
from squeezebert.workflows.glue.results import MEASURED, summarise

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def demo_table(record: dict[str, Any]) -> str:
    lengths = list(record["rows"][0]["latency"])
    heads = ["model", "accuracy (95 % interval)", "MB"]
    heads += [f"ms, {n} tokens" for n in lengths] + [f"speed-up, {n}" for n in lengths]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * 2 + "---:|" * (len(heads) - 2)]
    for row in record["rows"]:
        accuracy = "random weights"
        if row["accuracy"] is not None:
            low, high = row["interval"]
            accuracy = f"{100 * row['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        cells = [f"{row['model']} {row['precision']}", accuracy, f"{row['megabytes']:.1f}"]
        cells += [f"{row['latency'][n]['median_ms']:.2f}" for n in lengths]
        cells += [f"{row['speedup'][n]:.1f}x" for n in lengths]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Speed-up is over {record['baseline']} in the same engine and run, one thread. {made_on(record)}"]
    return "\n".join(lines)


def train_step_table(record: dict[str, Any]) -> str:
    lines = [
        "| model | median, ms | fastest and slowest tenth | ours is faster by | aim |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, timing in record["timings"].items():
        ratio, aim = record["ratios"].get(name), record["aims"].get(name)
        spread = f"{timing['low_ms']:.0f} to {timing['high_ms']:.0f}"
        lines.append(
            f"| {name} | {timing['median_ms']:.0f} | {spread} | "
            + (f"{ratio:.2f}x | {aim}x |" if ratio is not None else "| |")
        )
    lines += ["", f"`{record['command']}`, {record['threads']} threads. {made_on(record)}"]
    return "\n".join(lines)


def graph_writing_table(record: dict[str, Any]) -> str:
    lines = ["| network | our writer, s | `torch.onnx.export`, s | faster by |", "|---|---:|---:|---:|"]
    for name, found in record["found"].items():
        ours, usual = (found[way]["median_ms"] / 1e3 for way in ("writer", "torch"))
        lines.append(f"| {name} | {ours:.1f} | {usual:.1f} | {found['times_faster']:.0f}x |")
    lines += ["", f"`{record['command']}`, {record['threads']} thread. {made_on(record)}"]
    return "\n".join(lines)


def train_block_table(record: dict[str, Any]) -> str:
    lines = ["| one block, forward and backward | median, ms | BERT-base block / this |", "|---|---:|---:|"]
    for name, timing in record["timings"].items():
        lines.append(f"| {name} | {timing['median_ms']:.0f} | {record['ratios'][name]:.2f}x |")
    lines += ["", f"`{record['command']}`, {record['threads']} threads. {made_on(record)}"]
    return "\n".join(lines)


def squeeze_latency_table(record: dict[str, Any]) -> str:
    lines = [
        "| shape | precision | MB | ms, 32 tokens | ms, 128 tokens | faster, 32 | faster, 128 | in turns, 32 | 128 |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in record["rows"]:
        bursts, turns = row["bursts"], row["turns"]
        cells = [row["shape"], row["precision"], f"{row['megabytes']:.1f}"]
        cells += [f"{bursts[n]['median_ms']:.2f}" for n in ("32", "128")]
        cells += [f"{way[n]['ratio']:.2f}x" for way in (bursts, turns) for n in ("32", "128")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"`{record['command']}`, one thread. Faster than the {record['baseline']}. {made_on(record)}"]
    return "\n".join(lines)


def squeeze_conversion_table(record: dict[str, Any]) -> str:
    lines = _by_task(record, ("shape", "conversion"), lambda cells: f"{cells[0]['score']:.1f}")
    return "\n".join([*lines, "", _told(record)])


def squeeze_groupings_table(record: dict[str, Any]) -> str:
    def show(cells: list[dict[str, Any]]) -> str:
        return f"{cells[0]['score']:.1f} (energy {cells[0]['energy']:.0%}, error {cells[0]['error']:.3f})"

    return "\n".join([*_by_task(record, ("grouping",), show), "", _told(record)])


def squeeze_ablation_table(record: dict[str, Any]) -> str:
    budgets = sorted({cell["tokens"] for cell in record["cells"]})

    def show(cells: list[dict[str, Any]]) -> str:
        found = [[c["score"] for c in cells if c["tokens"] == budget] for budget in budgets]
        healed = (spread(scores) if scores else "–" for scores in found)
        return " / ".join([f"{cells[0]['start']:.1f}", *healed])

    what = "score straight after conversion" + "".join(f" / after {budget:,} tokens" for budget in budgets)
    shapes = ",".join(dict.fromkeys(cell["shape"] for cell in record["cells"]))
    command = f"ablation --tasks {','.join(record['tasks'])} --shapes '{shapes}'"
    lines = _by_task(record, ("shape", "rate", "conversion"), show)
    return "\n".join([*lines, "", f"Each cell: {what}. {_made_by(record, command)}"])


HEALING_STEPS = (521, 1042, 2084)  # an eighth, a quarter and half of the longest run


def squeeze_healing_table(record: dict[str, Any]) -> str:
    """Some rows of each run's log and its last; errors are relative to the variance of the teacher's states."""
    lines = [
        "| run | rate | steps | minutes | tokens | error | of each layer |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for run in record["runs"]:
        rows = run["rows"]
        for row in (row for row in rows if row is rows[-1] or row["step"] in HEALING_STEPS):
            errors = " ".join(f"{error:.2f}" for error in row["hidden_errors"])
            cells = [run["run"], f"{run['options']['learning_rate']:g}", f"{row['step']} of {run['steps']}"]
            cells += [f"{row['seconds'] / 60:.0f}", f"{row['tokens']:,}", f"{row['held_out_loss']:.3f}", errors]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"`{record['command']}`. {made_on(record)}"])


def squeeze_retention_table(record: dict[str, Any]) -> str:
    """Teachers' and students' scores by task; what is kept is the ratio of the means over the tasks shown."""
    tasks = list(dict.fromkeys(cell["task"] for cell in record["cells"]))
    teachers = {cell["task"]: cell["teacher"] for cell in record["cells"]}
    lines = ["| setting | " + " | ".join(tasks) + " | mean | kept |", "|---|" + "---:|" * (len(tasks) + 2)]
    mean = statistics.mean(teachers.values())
    lines.append("| dense teacher | " + " | ".join(f"{teachers[t]:.1f}" for t in tasks) + f" | {mean:.1f} | |")

    def row_of(cell: dict[str, Any]) -> tuple[str, str, int, float, bool]:
        return cell["setting"], cell["general"], cell["tokens"], cell["rate"], cell.get("unlabelled", 0) > 0

    for key in dict.fromkeys(row_of(cell) for cell in record["cells"]):
        setting, general, tokens, rate, more = key
        mine = [cell for cell in record["cells"] if row_of(cell) == key]
        scores = {t: [cell["score"] for cell in mine if cell["task"] == t] for t in tasks}
        name = f"{setting}, from {general}" if general != "direct" else setting
        name += f", {tokens:,} tokens at {rate:g}" + (" with other tasks' texts" if more else "")
        if not all(scores.values()):
            shown, both = [spread(found) if found else "" for found in scores.values()], ["", ""]
        else:
            own = statistics.mean(statistics.mean(found) for found in scores.values())
            shown, both = [spread(found) for found in scores.values()], [f"{own:.1f}", f"{own / mean:.1%}"]
        lines.append(f"| {name} | " + " | ".join([*shown, *both]) + " |")
    command = "retention --tasks TASK --settings SETTING --budgets TOKENS --rate RATE --seeds 1,2,3"
    more = (
        "A row 'from NAME' is of the setting `'groups 4=HEALED/NAME'`, a folder of `squeeze` or a milestone in it; "
        "with other tasks' texts, `--unlabelled TASKS`."
    )
    return "\n".join([*lines, "", f"{_made_by(record, command + ' --precision bf16')} {more}"])


def pretrain_speed_table(record: dict[str, Any]) -> str:
    """Tokens a second of each contender, by size of the model."""
    lines = ["| size | one training step | tokens a second | ours is faster by | aim |", "|---|---|---:|---:|---:|"]
    for size, found in record["found"].items():
        for name, one in found.items():
            aim = record["aims"].get(name)
            ratio = f"{one['ours_is_faster_by']:.2f}x" if aim else ""
            speed = f"{one['tokens_a_second']:,.0f}"
            lines.append(f"| {size} | {name} | {speed} | {ratio} | {f'{aim}x' if aim else ''} |")
    told = f"`{record['command']}`, {record['threads']} threads, {record['precision']}"
    pipeline = (
        f"The data pipeline alone makes {record['pipeline_tokens_a_second']:,.0f} tokens a second in one process."
    )
    return "\n".join([*lines, "", f"{pipeline} {told}. {made_on(record)}"])


def pretrain_processes_table(record: dict[str, Any]) -> str:
    """Runs of several processes, and whether the bytes on the network are those that were counted beforehand."""
    lines = [
        "| processes | rows a step | s a step | gradient bytes a step, counted | seen |",
        "|---:|---:|---:|---:|---:|",
    ]
    for run in record["runs"]:
        cells = [str(run["processes"]), str(run["rows_a_step"]), f"{run['seconds_a_step']:.2f}"]
        cells += [f"{run['expected_gradient_bytes']:,.0f}", f"{run['gradient_bytes']:,.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"`{record['command']}`, one thread a process. {made_on(record)}"])


def pretrain_scale_table(record: dict[str, Any]) -> str:
    """What the paper's recipe takes on named hardware, by how much of the peak is reached."""
    ways = list(record["hardware"][0]["phases"][0]["days"])
    lines = [
        "| devices | " + " | ".join(f"days, {way}" for way in ways) + " | s a step at 128: arithmetic | network |",
        "|---|" + "---:|" * (len(ways) + 2),
    ]
    for row in record["hardware"]:
        days = [sum(phase["days"][way] for phase in row["phases"]) for way in ways]
        first = row["phases"][0]
        arithmetic = " to ".join(f"{first['arithmetic_s'][way]:.2f}" for way in reversed(ways))
        shown = [f"{row['devices']} x {row['device']}", *(f"{one:.2f}" for one in days), arithmetic]
        lines.append("| " + " | ".join([*shown, f"{first['network_s']:.3f}"]) + " |")
    total = sum(phase["operations"] * phase["steps"] for phase in record["phases"])
    tokens = sum(phase["tokens"] for phase in record["phases"])
    told = (
        f"{tokens / 1e9:.1f} G positions, {total:.2e} operations in all; {record['state_bytes'] / 1e9:.2f} GB of "
        f"weights, gradients and moments and {record['gradient_bytes'] / 1e6:.0f} MB of gradients a process. The "
        f"paper's run ({record['papers_run']}) comes to {record['papers_share_of_peak']:.1%} of the peak."
    )
    return "\n".join([*lines, "", told])


def pretrain_runs_table(record: dict[str, Any]) -> str:
    """What each arm came to on held-out documents, beside what reads no context."""
    lines = [
        "| arm | million parameters | steps | hours | million tokens | MLM loss | MLM accuracy | SOP accuracy |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in record["runs"]:
        row = run["rows"][-1]
        hours = row["step"] * record["plan"]["seconds"][run["model"]] / 3600
        order = run["orders"]
        cells = [run["arm"] + ("" if run["finished"] else " (not finished)")]
        cells += [f"{run['parameters'] / 1e6:.1f}" if run["parameters"] else "", f"{row['step']:,}", f"{hours:.1f}"]
        cells += [f"{row['tokens'] / 1e6:.1f}", f"{row['held_out_mlm_loss']:.3f}"]
        cells += [f"{row['held_out_mlm_accuracy']:.1%}"]
        cells += [f"{order['estimate']:.1%} ({order['low']:.1%} to {order['high']:.1%})" if order else ""]
        lines.append("| " + " | ".join(cells) + " |")
    known = record["baselines"]
    lines.append(f"| frequencies of the tokens | | | | | {known['unigram']:.3f} | | |")
    lines.append(f"| the same, and the token that stands there | | | | | {known['unigram_and_token']:.3f} | | |")
    lines.append(f"| lengths of the segments | | | | | | | {known['longer_first']:.1%} |")
    words = record["order_by_words"]
    lines.append(
        f"| logistic regression on the segments' words | | | | | | | {words['estimate']:.1%} "
        f"({words['low']:.1%} to {words['high']:.1%}) |"
    )
    options, splits = record["options"], record["corpus"]["splits"]
    seconds = record["plan"]["seconds"]
    ratio = seconds["groups-1"] / seconds["groups-4"]
    told = (
        f"Hours are steps at what one took when both models were timed in turn: a step of groups 4 is {ratio:.2f} "
        f"times as fast. {splits['train']['documents']:,} documents of {splits['train']['tokens'] / 1e6:.1f} million "
        f"tokens to learn from, {splits['held_out']['documents']:,} held out; "
        f"{options['batch_size']} rows of {options['max_length']} tokens a step, {options['optimizer']}, "
        f"{options['precision']}, one thread."
    )
    return "\n".join([*lines, "", f"{told} {made_on(record)}"])


def pretrain_orders_table(record: dict[str, Any]) -> str:
    """Orders of segments as a task of its own, with nothing hidden."""
    lines = ["| from | rows learned | held-out orders told right (95 %) |", "|---|---:|---:|"]
    names = {"minilm": "MiniLM-L6"}
    for one in record["orders_learned"]:
        right = f"{one['estimate']:.1%} ({one['low']:.1%} to {one['high']:.1%})"
        lines.append(f"| {names.get(one['arm'], one['arm'])} | {one['learned_rows']:,} | {right} |")
    rows = record["orders_learned"][0]["held_out_rows"]
    return "\n".join([*lines, "", f"{rows:,} held-out rows. {made_on(record)}"])


def pretrain_finetuned_table(record: dict[str, Any]) -> str:
    """What the arms' checkpoints and random weights come to on GLUE's tasks."""
    lines = [
        "| task | from | rate | first seed at each rate | mean of seeds | 95 % of the rows | above random weights |",
        "|---|---|---:|---|---:|---|---|",
    ]

    def limits(found: dict[str, float]) -> str:
        return f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"

    for one in sorted(record["scores"], key=lambda one: one["task"], reverse=True):
        grid = ", ".join(f"{rate}: {score:.1f}" for rate, score in one["grid"].items())
        above = one.get("above_scratch")
        shown = f"{100 * above['estimate']:+.1f} ({limits(above)})" if above else ""
        cells = [one["task"], one["arm"], f"{one['rate']:g}", grid, spread(list(one["scores"].values()))]
        lines.append("| " + " | ".join([*cells, limits(one["rows"]), shown]) + " |")
    told = (
        "Intervals are of the run with the median score and, paired by row, of that and the one from random weights."
    )
    return "\n".join([*lines, "", told])


def search_latency_table(record: dict[str, Any]) -> str:
    """How far the latency model is off, on networks that it was not fitted to."""
    lines = [
        "| search | networks | off by, median | worst | networks from | to, of the dense model's time | hours |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for method, one in record["methods"].items():
        accuracy, (low, high) = one["latency"]["accuracy"], one["latency"]["range"]
        cells = [method, str(accuracy["networks"]), f"{accuracy['median']:.1%}", f"{accuracy['worst']:.1%}"]
        cells += [f"{low:.2f}", f"{high:.2f}", f"{one['seconds'] / 3600:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"`{record['command']}`. {made_on(record)}"])


def search_family_table(record: dict[str, Any]) -> str:
    """Each budget's network: how near its time is to the budget, and how far its states are from the dense model's."""
    lines = [
        "| search | budget | measured | off by | ms | error, inherited weights | fitted anew | healed |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for method, run in record["methods"].items():
        for one in run["found"].values():
            ratio, errors = one["timed"]["ratio"], one["errors"]
            cells = [method, f"{one['budget']:.3f}", f"{ratio:.3f}", f"{ratio / one['budget'] - 1:+.1%}"]
            cells += [f"{one['timed']['ms']:.2f}"]
            cells += ["" if errors[way] is None else f"{errors[way]:.3f}" for way in ("inherited", "fitted", "healed")]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Times are shares of the dense model's. {made_on(record)}"])


def search_controls_table(record: dict[str, Any], shapes: dict[str, Any] | None = None) -> str:
    """Searched networks and controls of equal time on the tasks; differences are paired by task and seed.

    All are compared with the searched network that controls were brought level with. Cells of fewer tokens chose which
    random networks are healed as long as the others, and cells of networks that `shapes` do not have any more have
    other times: both are left out.
    """
    shapes = shapes or json.loads((RESULTS / "search_shapes.json").read_text(encoding="utf-8"))
    about = shapes["shapes"]
    cells = [cell for cell in record["cells"] if _is_of(cell, about)]
    if not cells:
        return "No score is of the networks whose times are recorded: `python benchmarks/search.py tasks` makes them."
    budget = max(cell["tokens"] for cell in cells)
    cells = [cell for cell in cells if cell["tokens"] == budget]
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    ways = sorted({cell["precision"] for cell in cells})
    scores: dict[Any, dict[tuple[str, int], float]] = {(way, name): {} for way in ways for name in about}
    for cell in _at_chosen_rates(cells):
        scores[cell["precision"], cell["name"]][cell["task"], cell["seed"]] = cell["score"]
    leader = next(name for name, one in about.items() if one["searched"] and name.endswith(f" {shapes['budget']}"))
    lines = [
        "| network | time | spread | " + " | ".join([*tasks, "mean", f"{leader} is better by (95 %)"]) + " |",
        "|---|---:|---:|" + "---:|" * (len(tasks) + 2),
    ]
    for (way, name), found in scores.items():
        if not found:
            continue
        shown = f"{name}, {way}" if len(ways) > 1 else name
        row = [shown, f"{about[name]['ratio']:.3f}", f"{about[name]['spread']:.1%}"]
        by_task = [[score for (task, _), score in found.items() if task == one] for one in tasks]
        row += [spread(one) if one else "" for one in by_task]
        row.append(f"{statistics.mean(map(statistics.mean, by_task)):.1f}" if all(by_task) else "")
        compared = name != leader and about[name]["level"]
        row.append(_difference(scores[way, leader], found, tasks) if compared else "")
        lines.append("| " + " | ".join(row) + " |")
    rates = " or ".join(sorted({f"{cell['rate']:g}" for cell in cells}))
    told = (
        "Times are shares of the dense model's, medians of runs in turn; the spread is of those runs. Differences are "
        f"of equal tasks and seeds, with Student's interval over seeds of the mean of {len(tasks)} task(s). Seeds are "
        "of the healing, and each search was run once: the interval tells how sure the difference of these networks "
        f"is, not that of the methods. {budget:,} tokens of healing a task, at the learning rate ({rates}) that was "
        "better with the first seed."
    )
    return "\n".join([*lines, "", f"{told} `{record['command']}`. {made_on(record)}"])


def _at_chosen_rates(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells at the learning rate that was better for their network and task with the first seed.

    While a benchmark runs, that may be one of fewer rates than are to come.
    """
    found = []
    key = itemgetter("precision", "name", "task")
    for _, some in itertools.groupby(sorted(cells, key=key), key=key):
        own = list(some)
        first = min(cell["seed"] for cell in own)
        best = max((cell for cell in own if cell["seed"] == first), key=itemgetter("score"))
        found += [cell for cell in own if cell["rate"] == best["rate"]]
    return found


def _is_of(cell: dict[str, Any], shapes: dict[str, Any]) -> bool:
    """Whether a cell is of the network that the shapes have under its name."""
    shape = shapes.get(cell["name"], {}).get("shape")
    return shape is not None and cell.get("network") == short_hash(shape, cell["precision"])


def _difference(first: dict[tuple[str, int], float], other: dict[tuple[str, int], float], tasks: list[str]) -> str:
    """By how much the first is better in the mean of the tasks, over seeds that have all of them."""
    every = sorted({seed for _, seed in first})
    seeds = [seed for seed in every if all((task, seed) in some for task in tasks for some in (first, other))]
    means = [statistics.mean(first[task, seed] - other[task, seed] for task in tasks) for seed in seeds]
    if len(means) < 2:
        return f"{statistics.mean(means):+.1f}" if means else ""
    limits = ttest_1samp(means, 0).confidence_interval(0.95)
    return f"{statistics.mean(means):+.1f} ({limits.low:+.1f} to {limits.high:+.1f})"


def bench_table(record: dict[str, Any]) -> str:
    """What `squeezebert bench` found, without the profile of each file."""
    rows = [{name: value for name, value in row.items() if name != "kinds_ms"} for row in record["rows"]]
    return f"{markdown({**record, 'rows': rows})}\n\n`{record['command']}`"


def aims_table(record: dict[str, Any]) -> str:
    """What was aimed at and what was reached, on a text of 128 tokens with one thread unless told."""

    def ms(model: str, precision: str, threads: int = 1) -> float:
        (row,) = (
            row
            for row in record["rows"]
            if (row["model"], row["precision"], row["threads"], row["tokens"]) == (model, precision, threads, 128)
        )
        return float(row["median_ms"])

    def bare(precision: str) -> float:
        """Time of SqueezeBERT's products alone."""
        (row,) = (
            row
            for row in record["rows"]
            if (row["model"], row["precision"], row["threads"]) == ("squeezebert", precision, 1)
        )
        return float(row["limit_ms"])

    def of(name: str) -> dict[str, Any]:
        return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))

    (squeezed,) = (
        row for row in of("squeeze_latency")["rows"] if (row["shape"], row["precision"]) == ("low rank", "int8")
    )
    start = record["models"]["minilm-l6-squeezed int8"]["start"]
    reader, bulk = max(of("bulk")["faster"].items(), key=lambda item: item[1])
    # What, the aim, what was reached, and what would be if SqueezeBERT took no longer than its products alone
    rows: list[tuple[str, float, float, float | None]] = [
        (
            f"SqueezeBERT {ours} : {other} {theirs}",
            aim,
            ms(name, theirs) / ms("squeezebert", ours),
            ms(name, theirs) / bare(ours),
        )
        for ours, other, name, theirs, aim in (
            ("int8", "BERT-base", "bert-base", "fp32", 7.5),
            ("int8", "BERT-base", "bert-base", "int8", 2.5),
            ("int8", "MobileBERT", "mobilebert", "int8", 0.85),
            ("fp32", "BERT-base", "bert-base", "fp32", 2.7),
        )
    ]
    rows += [
        ("squeezed MiniLM int8 : MiniLM int8, the usual export", 2.3, squeezed["bursts"]["128"]["ratio"], None),
        ("products alone : SqueezeBERT int8", 0.5, bare("int8") / ms("squeezebert", "int8"), None),
        *(
            (f"SqueezeBERT {p}, 2 threads : 1", 1.7, ms("squeezebert", p) / ms("squeezebert", p, 2), None)
            for p in ("fp32", "int8")
        ),
        (f"10,000 short texts, {reader} : transformers' pipeline", 10, bulk, None),
    ]
    lines = ["| | aim | reached | | with its products alone |", "|---|---:|---:|---|---:|"]
    for what, aim, reached, limit in rows:
        met = "" if reached >= aim else "missed"
        lines.append(f"| {what} | {aim:g}x | {reached:.2f}x | {met} | {'' if limit is None else f'{limit:.2f}x'} |")
    met = "" if start["seconds"] <= 0.6 and not start["needs_torch"] else "missed"
    what = "first answer of a new process, squeezed MiniLM int8, torch-free"
    lines.append(f"| {what} | 0.6 s | {start['seconds']:.2f} s | {met} | |")
    for form in ("dynamic ranges", "static ranges, mse"):
        found = [cell for cell in of("export_accuracy")["cells"] if cell["form"] == f"int8, {form}"]
        found = [cell["verification"]["int8"] for cell in found]
        within = [one["drop"] <= 0.5 or one["drop_interval"][0] <= 0 for one in found]
        met = "" if all(within) else "missed"
        what = f"models whose int8 ({form}) loses half a point at most, or none for certain"
        lines.append(f"| {what} | {len(found)} | {sum(within)} | {met} | |")
        alike = [one["agreement"] >= 0.99 for one in found]
        least = min(one["agreement"] for one in found)
        met = "" if all(alike) else "missed"
        what = f"models whose int8 ({form}) gives 99 % of fp32's answers or more"
        lines.append(f"| {what} | {len(found)} | {sum(alike)}, the least {least:.2%} | {met} | |")
    return "\n".join(lines)


def spread(scores: list[float]) -> str:
    """The mean of several seeds' scores and their standard deviation."""
    if len(scores) == 1:
        return f"{scores[0]:.1f}"
    return f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}"


def _by_task(record: dict[str, Any], names: tuple[str, ...], show: Callable[[list[dict[str, Any]]], str]) -> list[str]:
    """A column a task, a row for each combination of what `names` say of a cell."""
    tasks = list(dict.fromkeys(cell["task"] for cell in record["cells"]))
    lines = [f"| {' | '.join([*names, *tasks])} |", "|" + "---|" * len(names) + "---:|" * len(tasks)]
    teachers = {cell["task"]: cell["teacher"] for cell in record["cells"]}
    blank = [""] * (len(names) - 1)
    lines.append(f"| {' | '.join(['dense teacher', *blank, *(f'{teachers[task]:.1f}' for task in tasks)])} |")
    for key in dict.fromkeys(tuple(cell[name] for name in names) for cell in record["cells"]):
        mine = [cell for cell in record["cells"] if tuple(cell[name] for name in names) == key]
        found = [[cell for cell in mine if cell["task"] == task] for task in tasks]
        lines.append(f"| {' | '.join([*map(_text, key), *(show(cells) if cells else '' for cells in found)])} |")
    return lines


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _told(record: dict[str, Any]) -> str:
    """Where each task's cells come from."""
    commands = dict.fromkeys(
        (command, made_on(told))
        for told in record["tasks"].values()
        for command in told.get("commands", [told["command"]])
    )
    machines = dict.fromkeys(made for _, made in commands)
    shown = (" ".join(f"`{c}`." for c, of in commands if of == made) + f" {made}" for made in machines)
    return " ".join(shown)


def _made_by(record: dict[str, Any], command: str) -> str:
    """The command that makes any of the cells, and on what they were made."""
    told = f"`python benchmarks/squeeze.py {command} --data DATA --work WORK --threads 1`."
    return " ".join([told, *dict.fromkeys(made_on(one) for one in record["tasks"].values())])


def made_on(record: dict[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    units = f" ({machine['vector_units']})" if machine.get("vector_units") else ""
    cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''}"
    return (
        f"Measured on {machine['processor']}{units}, {cores}, with torch {versions['torch']}, "
        f"onnxruntime {versions['onnxruntime']}."
    )


def bulk_table(record: dict[str, Any]) -> str:
    """Seconds for all texts, of the pipeline and of the exported files."""
    lines = ["| reader | texts a second | faster than the pipeline by |", "|---|---:|---:|"]
    for name, seconds in record["seconds"].items():
        ratio = record["faster"].get(name)
        shown = (
            f"exported file, {name}" if ratio else f"transformers' pipeline, batches of {record['pipeline']['batch']}"
        )
        lines.append(f"| {shown} | {record['texts'] / seconds:,.0f} | {f'{ratio:.2f}x' if ratio else ''} |")
    told = f"{record['texts']:,} texts, {record['tokens']:,} tokens; {record['pipeline']['padding']:.0%} of what the "
    told += "pipeline computes is padding."
    if "alone_seconds" in record:
        alone, seconds = record["alone_seconds"], record["seconds"]
        least = sum(alone.values())
        shares = {name: f"{one / seconds['int8']:.0%}" for name, one in alone.items()}
        told += (
            f" Of the seconds of int8, texts one at a time, tokenising takes {shares['tokenising']} and its larger "
            f"products alone {shares['products']}: with nothing else to do it would be "
            f"{seconds['pipeline'] / least:.1f}x as fast as the pipeline."
        )
    told += f" `{record['command']}`, {record['threads']} thread."
    return "\n".join([*lines, "", f"{told} {made_on(record)}"])


MESSAGES_A_DAY = 300e9
CORES_A_MACHINE = 64


def bulk_day_table(record: dict[str, Any]) -> str:
    """Cores and machines that would read a day's messages in a day, at the measured speed of one core."""
    heads = ["reader", "texts a second and core", "cores", f"machines of {CORES_A_MACHINE} cores", "core-hours"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for name, seconds in record["seconds"].items():
        rate = record["texts"] / seconds / record["threads"]
        cores = math.ceil(MESSAGES_A_DAY / rate / 86_400)
        shown = f"exported file, {name}" if name in record["faster"] else "transformers' pipeline"
        cells = [shown, f"{rate:,.0f}", f"{cores:,}", f"{math.ceil(cores / CORES_A_MACHINE):,}", f"{24 * cores:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    told = (
        f"{MESSAGES_A_DAY / 1e9:,.0f} billion texts of {record['tokens'] / record['texts']:.0f} tokens. "
        f"`{record['command']}`, {record['threads']} thread. {made_on(record)}"
    )
    return "\n".join([*lines, "", told])


def serving_table(record: dict[str, Any]) -> str:
    """Requests a second and what clients wait, alone and under load."""
    lines = [
        "| file | asked by | requests a second | p50, ms | p95, ms | times one client |",
        "|---|---|" + "---:|" * 4,
    ]
    for row in record["rows"]:
        base = row["ways"][record["baseline"]]["requests_per_second"]
        for name, found in row["ways"].items():
            cells = [row["precision"], name, f"{found['requests_per_second']:.0f}"]
            cells += [
                f"{found['p50_ms']:.1f}",
                f"{found['p95_ms']:.1f}",
                f"{found['requests_per_second'] / base:.2f}x",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    told = f"`{record['command']}`, {record['workers']} workers of {record['threads']} thread."
    return "\n".join([*lines, "", f"{told} {made_on(record)}"])


def export_accuracy_table(record: dict[str, Any]) -> str:
    """Size and accuracy of each form next to fp32's, with the interval of what is lost, rows paired."""
    lines = [
        "| task | model | form | MB | fp32 | int8 | lost, points (95 %) | same answers |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for cell in record["cells"]:
        before, after = cell["verification"]["fp32"], cell["verification"]["int8"]
        cells = [cell["task"], cell["kind"], cell["form"], f"{cell['megabytes']['int8']:.1f}"]
        cells += [f"{100 * one['accuracy']:.1f}" for one in (before, after)]
        low, high = after["drop_interval"]
        cells += [f"{after['drop']:+.1f} ({low:+.1f} to {high:+.1f})", f"{100 * after['agreement']:.1f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"`{record['command']}`, one thread. {made_on(record)}"])


def glue_table(record: dict[str, Any]) -> str:
    """What `glue report` says of the recorded runs: scores, and sizes where they were measured."""
    results, measured = summarise(RESULTS / "glue"), RESULTS / "glue" / MEASURED
    tables = [scores_table(results)]
    if measured.is_file():
        tables.append(glue_sizes_table(json.loads(measured.read_text(encoding="utf-8"))))
    told = [as_markdown(table).partition("\n\n")[2].rstrip() + "\n" for table in tables]
    made = f"Runs of several commands, each in its `result.json`; `{record['command']}` has their steps."
    return "\n".join([*told, f"{made} {made_on(record)}"])


def glue_grid_table(_: dict[str, Any]) -> str:
    """The score of every run of the first seed: what the grid chose from, or the one rate that was tried."""
    results = summarise(RESULTS / "glue")
    rates = sorted({run["learning_rate"] for result in results for run in result.grid})
    lines = ["| model | recipe | task | " + " | ".join(f"{rate:g}" for rate in rates) + " |"]
    lines.append("|---|---|---|" + "---:|" * len(rates))
    for result in results:
        runs = {run["learning_rate"]: run for run in result.grid if run["in_grid"]}
        told = [_of_rate(runs.get(rate)) for rate in rates]
        lines.append(f"| {result.model} | {result.recipe} | {result.task} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def _of_rate(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    return "diverged" if run["score"] is None else f"{run['score']:.1f}"


def forms_table(record: dict[str, Any]) -> str:
    """Each form's time next to the exported one's in the same run; with several threads, that of the fastest tenth."""
    names = list(dict.fromkeys(form["form"] for form in record["forms"]))
    found = {(form["form"], form["precision"]): form for form in record["forms"]}
    told = record["options"]
    # For stretches of seconds this machine's two cores do the work of one: a median is of either kind of stretch
    which, called = ("median_ms", "medians") if told["threads"] == 1 else ("low_ms", "fastest tenths")
    lines = [
        "| form | fp32, ms | next to the exported | int8, ms | next to the exported |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in names:
        same = next(form["same_function"] for form in record["forms"] if form["form"] == name)
        cells = [name + ("" if same else " (another function)")]
        for precision in ("fp32", "int8"):
            form, exported = found.get((name, precision)), found["as exported", precision]
            cells += ["", ""] if form is None else [f"{form[which]:.1f}", f"{form[which] / exported[which]:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"`{record['command']}`: one text of {told['length']} tokens, {told['threads']} thread(s), {called} of",
    ]
    lines.append(f"{told['runs']} interleaved runs. {made_on(record)}")
    if record.get("failed"):
        lines += ["", *(f"- No time of {name}: `{error}`" for name, error in record["failed"].items())]
    return "\n".join(lines)


def sizes_table(record: dict[str, Any]) -> str:
    """Megabytes of each file, by vocabulary and by the bits of the word table."""
    first = next(iter(record["models"].values()))
    kinds = list(first["whole"]["megabytes"])
    lines = ["| model | pieces | channels a piece | " + " | ".join(f"{kind}, MB" for kind in kinds) + " |"]
    lines.append("|---|---:|---:|" + "---:|" * len(kinds))
    for name, told in record["models"].items():
        for of_vocabulary in told.values():
            cells = [
                name,
                str(of_vocabulary["pieces"]),
                str(of_vocabulary["channels"]),
                *(f"{of_vocabulary['megabytes'][kind]:.1f}" for kind in kinds),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"`{record['command']}`. {made_on(record)}"])


def browser_table(record: dict[str, Any]) -> str:
    """Each form's latency in the browser's engine, next to fp32 of the same model and threads."""
    lengths = list(record["rows"][0]["latency"])
    heads = [
        "model",
        "threads",
        "form",
        "MB",
        *(f"ms, {n} tokens" for n in lengths),
        *(f"fp32 / this, {n}" for n in lengths),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|---:|---|---:|" + "---:|" * (2 * len(lengths))]
    for row in record["rows"]:
        cells = [row["model"], str(row["threads"]), row["form"], f"{row['megabytes']:.1f}"]
        cells += [f"{row['latency'][n]['median_ms']:.1f}" for n in lengths]
        cells += [f"{row['latency'][n]['ratio']:.2f}x" for n in lengths]
        lines.append("| " + " | ".join(cells) + " |")
    versions = record["versions"]
    told = f"`{record['command']}`. Chromium {versions['chromium']}, onnxruntime-web {versions['onnxruntime-web']}."
    return "\n".join([*lines, "", f"{told} {made_on(record)}"])


def difference(found: dict[str, Any], scale: float = 100, digits: int = 1) -> str:
    """A paired difference with its interval."""
    estimate, low, high = (scale * found[name] for name in ("estimate", "low", "high"))
    return f"{estimate:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def job_told(record: dict[str, Any]) -> str:
    encoder = f"Encoder: {record['encoder']}. " if "encoder" in record else ""
    return f"{encoder}`{record['command']}`, {record['threads']} thread. {made_on(record)}"


UNTIMED = "Timings: not recorded, the machine was busy; run the command without `--timings-of-a-busy-machine`."


def folders_table(record: dict[str, Any]) -> str:
    """Accuracy of the sorter and of words, by how many examples were learned, and what its sure answers are worth."""
    lines = [
        "| examples | right, % | TF-IDF, % | better by, points (95 %, each draw) | in the first 3, % | TF-IDF, % | "
        "sure, % | right of the sure, % |",
        "|---|" + "---:|" * 7,
    ]
    rows = [(f"{one['per_folder']} a folder", one["draws"]) for one in record["few"]]
    whole = record["whole"]
    for name, draws in [*rows, (f"all {whole['rows']:,}", [whole])]:

        def mean(read: Callable[[dict[str, Any]], float], draws: list[dict[str, Any]] = draws) -> str:
            return f"{100 * statistics.mean(map(read, draws)):.1f}"

        cells = [name, *(mean(lambda d, n=n: d["right"][n]) for n in ("sorter", "words"))]
        cells += [", ".join(difference(draw["better"]) for draw in draws)]
        cells += [mean(lambda d, n=n: d["in_three"][n]) for n in ("sorter", "words")]
        sure = sum(draw["sure"] for draw in draws)  # draws without a sure answer say nothing of what those are worth
        right = sum(draw["sure"] * draw["right_of_sure"]["estimate"] for draw in draws)
        cells += [mean(lambda d: d["sure"]), f"{100 * right / sure:.1f}" if sure else ""]
        lines.append("| " + " | ".join(cells) + " |")
    told = f"{record['test_rows']:,} test messages, paired; with a few examples a folder, means of "
    told += f"{len(record['few'][0]['draws'])} draws. Of the sure answers {whole['promised']:.0%} were to be right."
    if (seconds := record.get("seconds")) is None:
        told += f" {UNTIMED}"
    else:
        told += (
            f" Fitting takes {seconds['learn_10_a_folder']:.1f} s for 10 examples a folder and "
            f"{seconds['learn_all']:.1f} s for all, ten more among them {seconds['ten_more']:.1f} s "
            f"(`{seconds['command']}`)."
        )
    return "\n".join([*lines, "", f"{told} {job_told(record)}"])


def folders_strangers_table(record: dict[str, Any]) -> str:
    """How well messages that belong nowhere are told from the others; means over the draws of held-out folders."""
    lines = [
        "| examples | messages | AUROC | TF-IDF | better by, points (95 %, each draw) | taken for out of scope, % | "
        "TF-IDF, % | sorted, % |",
        "|---|---|---:|---:|---|---:|---:|---:|",
    ]
    for per in dict.fromkeys(cell["per_folder"] for cell in record["strangers"]):
        cells = [cell for cell in record["strangers"] if cell["per_folder"] == per]
        for group in cells[0]["groups"]:
            found = [cell["groups"][group] for cell in cells]
            row = ["all" if per is None else f"{per} a folder"]
            row.append("that belong somewhere" if group == "inside" else f"of {group}")
            if group == "inside":
                row += ["", "", ""]
            else:
                row += [f"{statistics.mean(f['auroc'][n] for f in found):.3f}" for n in ("sorter", "words")]
                row.append(", ".join(difference(f["better"]) for f in found))
            for name in ("sorter", "words"):
                row.append(f"{100 * statistics.mean(f['out_of_scope'][name] for f in found):.1f}")
            row.append(f"{100 * statistics.mean(f['sorted'] for f in found):.1f}")
            lines.append("| " + " | ".join(row) + " |")
    told = f"{len(cells)} draws of held-out folders. {job_told(record)}"
    return "\n".join([*lines, "", told])


def folders_promise_table(record: dict[str, Any]) -> str:
    """What sure answers of small sorters are worth, and of how many sorters they are worth less than promised."""
    lines = [
        "| folders | examples | sorters with sure answers | sure, % | right of the sure, % | sorters below "
        f"{record['whole']['promised']:.0%} | in-scope messages out of scope, % |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for cell in record["promises"]:
        row = [f"{cell['folders']}, {cell['kind']}", f"{cell['per_folder']} a folder"]
        row += [f"{cell['some_sure']} of {cell['sorters']}", f"{100 * cell['sure']:.1f}"]
        row += [f"{100 * cell['right_of_sure']:.1f}" if cell["some_sure"] else "", str(cell["below_promise"])]
        lines.append("| " + " | ".join([*row, f"{100 * cell['out_of_scope']:.1f}"]) + " |")
    return "\n".join([*lines, "", job_told(record)])


def ranking_table(record: dict[str, Any]) -> str:
    """MAP and nDCG of each way, and by how much the first is better, readers paired."""
    metrics = {"average precision": "MAP", "ndcg": f"nDCG of {record['first']}"}
    lines = [
        "| a reader likes | scored by" + "".join(f" | {m} | first better by (95 %)" for m in metrics.values()) + " |",
        "|---|---|" + "---:|---:|" * len(metrics),
    ]
    for kind, found in record["kinds"].items():
        for name in found["scores"]["ndcg"]:
            row = [f"{kind}, {found['examples']} liked and disliked", name]
            for metric in metrics:
                one = found["scores"][metric][name]
                better = one.get("ours_is_better_by")
                row += [f"{one['mean']:.3f}", "" if better is None else difference(better, 1, 3)]
            lines.append("| " + " | ".join(row) + " |")
    told = f"{record['readers']} readers, {record['draws']} draws of examples each, {record['items']:,} items."
    if (s := record.get("seconds")) is None:
        told += f" {UNTIMED}"
    else:
        told += (
            f" {s['items']:,} items whose vectors are kept are ranked in {s['rank_kept']:.2f} s, by the whole command "
            f"in {s['command_kept']:.1f} s; new texts are read at {s['texts_a_second_new']:,.0f} a second "
            f"(`{s['command']}`)."
        )
    return "\n".join([*lines, "", f"{told} {job_told(record)}"])


def ranking_feeds_table(record: dict[str, Any]) -> str:
    """Average precision on small feeds and those of which a large share is to the reader's taste."""
    lines = [
        "| a reader likes | disliked | items | to their taste, % | MAP, squeezebert rank | mean and highest cosine | "
        "first better by (95 %) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, found in record["kinds"].items():
        for feed in found["feeds"]:
            row = [f"{kind}, {feed['liked']} liked", str(feed["disliked"]), str(feed["items"])]
            row += [f"{100 * feed['share']:.0f}", f"{feed['ours']:.3f}", f"{feed['cosines']:.3f}"]
            lines.append("| " + " | ".join([*row, difference(feed["better"], 1, 3)]) + " |")
    return "\n".join([*lines, "", f"{record['readers']} readers, a feed of each. {job_told(record)}"])


def summaries_table(record: dict[str, Any]) -> str:
    """ROUGE of each way on each corpus, and by how much the first is better, documents paired."""
    names = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    lines = [
        "| text | sentences | words" + "".join(f" | {n} | first better by (95 %)" for n in names.values()) + " |",
        "|---|---|---:|" + "---:|---:|" * len(names),
    ]
    for corpus, found in record["corpora"].items():
        for way, means in found["means"].items():
            row = [corpus, way, f"{found['words'][way]:.0f}"]
            for metric in names:
                better = found["ours_is_better_by"].get(way)
                row += [f"{100 * means[metric]:.1f}", "" if better is None else difference(better[metric])]
            lines.append("| " + " | ".join(row) + " |")
    scores = {"fmeasure": "F1", "recall": "recall"}
    told = "; ".join(f"{c}: {f['documents']} documents, {scores[f['score']]}" for c, f in record["corpora"].items())
    return "\n".join([*lines, "", f"In points. {told}. {job_told(record)}"])


def _with_interval(value: list[float], digits: int = 3) -> str:
    estimate, low, high = value
    return f"{estimate:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _stage(record: dict[str, Any], name: str) -> str:
    """The command of a record's stage, and the machine, which may be another for each."""
    stage = record["stages"][name]
    busy = "The machine had other work to do: times are too long. " if stage["busy"] else ""
    return f"`{stage['command']}`. {busy}{made_on(stage)}"


def _threads(stage: dict[str, Any]) -> str:
    return "One thread" if stage["threads"] == 1 else f"{stage['threads']} threads"


def copies_pairs_table(record: dict[str, Any]) -> str:
    """Each way's scores on labelled pairs, and by how much the encoder's are better, rows paired."""
    qqp, stsb = record["qqp"], record["stsb"]
    measures = {
        "QQP average precision": qqp["average_precision"],
        "QQP F1": qqp["f1"],
        "STS-B Pearson": stsb["pearson"],
        "STS-B Spearman": stsb["spearman"],
    }
    lines = [f"| measure (95 %) | {' | '.join(measures)} |", "|---|" + "---:|" * len(measures)]
    for name in qqp["average_precision"]:
        cells = [_with_interval(found[name]["value"]) for found in measures.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        if "ours_is_better_by" in qqp["average_precision"][name]:
            cells = [_with_interval(found[name]["ours_is_better_by"]) for found in measures.values()]
            lines.append(f"| the encoder is better than {name} by | {' | '.join(cells)} |")
    precise = qqp["precise"]
    reached = [
        f"{name} {one['precision']:.1%} with a recall of {one['recall']:.1%}"
        if one.get("pairs")
        else f"{name} no {'threshold' if one['threshold'] is None else 'pair'}"
        for name, one in precise["reached"].items()
    ]
    told = (
        f"QQP: {qqp['dev']['rows']:,} dev rows, {qqp['dev']['copies']} of them copies; thresholds from "
        f"{qqp['train']['rows']:,} training rows, both samples. STS-B: {stsb['rows']:,} dev rows. The threshold for a "
        f"precision of {precise['wanted']:.0%}, with 95 % certainty by QQP's training rows, reaches on its dev rows: "
        f"{'; '.join(reached)}. MinHash compares {qqp['shingles']['chosen']}. {_stage(record, 'pairs')}"
    )
    return "\n".join([*lines, "", told])


def copies_sweep_table(record: dict[str, Any]) -> str:
    """What each way finds of the planted copies, by kind of edit, and the time of its stages."""
    found = record["sweep"]
    edits = list(next(iter(found["methods"].values()))["by_edit"])
    heads = ["way", "threshold", "precision", "recall", "F1", *edits, "seconds"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 2) + "---|"]
    for name, one in found["methods"].items():
        seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in one.get("seconds", {}).items())
        cells = [name, f"{one['threshold']:.2f}", *(f"{one[part]:.1%}" for part in ("precision", "recall", "f1"))]
        lines.append("| " + " | ".join([*cells, *(f"{one['by_edit'][edit]:.1%}" for edit in edits), seconds]) + " |")
    told = (
        f"{found['texts']:,} texts, {found['planted']:,} of them planted; thresholds with the best F1 on "
        f"{found['chosen_on']:,} others. MinHash compares {found['methods']['MinHash']['shingles']}. "
        f"{_threads(record['stages']['sweep'])}: {_stage(record, 'sweep')}"
    )
    stage = record["stages"]["sweep"]
    elsewhere = [one for one in found.get("read_on", []) if any(one[part] != stage[part] for part in one)]
    if elsewhere:
        machines = " ".join(dict.fromkeys(map(made_on, found["read_on"])))
        told += f" Of the encoder's vectors, some or all were kept from before. {machines}"
    if one := record.get("command"):
        whole = (
            f"`squeezebert copies` takes {one['seconds'] / 60:.1f} minutes for the {one['texts']:,} texts, from file "
            f"to groups, with {one['threads']} threads: {_stage(record, 'command')}"
        )
        told = f"{told}\n\n{whole}"
    return "\n".join([*lines, "", told])


def copies_indexes_table(record: dict[str, Any]) -> str:
    """Seconds and completeness of each index."""
    lines = ["| index | seconds | pairs found | of those there are |", "|---|---:|---:|---:|"]
    for one in record["indexes"]:
        lines.append(f"| {one['index']} | {one['seconds']:.1f} | {one['pairs']:,} | {one['recall']:.1%} |")
    found = record["stages"]["indexes"]["versions"]
    versions = ", ".join(f"{name} {found[name]}" for name in ("faiss-cpu", "usearch", "hnswlib"))
    return "\n".join([*lines, "", f"{versions}. {_stage(record, 'indexes')}"])


def completion_table(record: dict[str, Any]) -> str:
    """Guessed words of the model next to those of counts, and what an answer takes."""
    lines = [
        "| asked | answered by | first is right | above counts | among five | above counts |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in record["rows"]:
        cells = [row["asked"], row["model"]]
        for name in ("top1", "top5"):
            found, above = row[name], row[name].get("above")
            cells.append(f"{100 * found['estimate']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f})")
            shown = [f"{100 * above[key]:+.1f}" for key in ("estimate", "low", "high")] if above else []
            cells.append(f"{shown[0]} ({shown[1]} to {shown[2]})" if shown else "")
        lines.append("| " + " | ".join(cells) + " |")
    names = [name for name in record["latency"][0] if name != "tokens"]
    lines += ["", "| tokens | " + " | ".join(f"{name}, ms" for name in names) + " |", "|" + "---:|" * (len(names) + 1)]
    for row in record["latency"]:
        lines.append(f"| {row['tokens']} | " + " | ".join(f"{row[name]['median_ms']:.2f}" for name in names) + " |")
    told = (
        f"{record['words']:,} words; counts are of {record['counted_megabytes']:.0f} MB of text. Latency is that of "
    )
    told += f"the int8 file. `{record['command']}`, {record['threads']} thread."
    return "\n".join([*lines, "", f"{told} {made_on(record)}"])


def grammar_table(record: dict[str, Any]) -> str:
    """A marker next to a speller: scores, what is found of each kind, and CoLA's sentences."""

    def share(found: dict[str, Any]) -> str:
        return f"{100 * found['estimate']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f})"

    ways = [*record["scores"]]
    lines = [
        f"| on {record['sentences']:,} sentences with {record['errors']:,} wrong words | " + " | ".join(ways) + " |"
    ]
    lines.append("|---|" + "---:|" * len(ways))
    for name, title in (("precision", "marked words that are wrong"), ("recall", "wrong words that are marked")):
        lines.append(f"| {title} | " + " | ".join(share(record["scores"][way][name]) for way in ways) + " |")
    lines.append("| F0.5 | " + " | ".join(share(record["scores"][way]["f05"]) for way in ways) + " |")
    above = [record["scores"][way]["f05"]["above"] for way in ways]
    shown = [f"{100 * a:+.1f} ({100 * b:+.1f} to {100 * c:+.1f})" if a or b or c else "" for a, b, c in above]
    lines.append("| F0.5 above the speller, points, sentences paired | " + " | ".join(shown) + " |")
    for tag in record["about"][ways[0]]["tags"]:
        found = [record["about"][way]["tags"].get(tag) for way in ways]
        lines.append(f"| wrong, of those marked as {tag} | " + " | ".join(share(f) if f else "" for f in found) + " |")
    for kind in record["about"][ways[0]]["kinds"]:
        cells = [share(record["about"][way]["kinds"][kind]) for way in ways]
        lines.append(f"| marked of: {kind} | " + " | ".join(cells) + " |")
    for name, title in (("first", "first suggestion is right"), ("first three", "one of three suggestions is right")):
        cells = [share(record["about"][way]["suggestions"][name]) for way in ways]
        lines.append(f"| {title}, of marked wrong words to replace | " + " | ".join(cells) + " |")
        if record.get("words"):
            cells = [share(record["words"]["suggestions"][name]), *[""] * (len(ways) - 1)]
            lines.append("| the same with `--words` | " + " | ".join(cells) + " |")
    for name in ("unacceptable", "acceptable"):
        cells = [share(record["cola"][way][name]) for way in ways]
        lines.append(f"| CoLA, {name} sentences with a mark | " + " | ".join(cells) + " |")
    told = f"The speller marks words that are not among {record['dictionary']:,} of the training text. int8 file of "
    told += f"{record['megabytes']['int8']:.1f} MB, {record['latency']['median_ms']:.1f} ms a sentence. "
    rule = record["articles"]
    told += f"Of {rule['articles']:,} articles in good text the rule for a and an says something of "
    told += f"{100 * rule['told'] / rule['articles']:.1f} %, and contradicts "
    told += (
        f"{100 * rule['contradicted'] / rule['articles']:.2f} %; inflect, which always says something, contradicts "
    )
    told += f"{100 * rule['contradicted_by_inflect'] / rule['articles']:.2f} %. "
    told += f"`{record['command']}`, {record['threads']} thread."
    return "\n".join([*lines, "", f"{told} {made_on(record)}"])


def suggestions_table(record: dict[str, Any]) -> str:
    """How often the first suggestion is right, by the share of the model and what an edit costs."""
    shares, costs = (list(dict.fromkeys(row[name] for row in record["rows"])) for name in ("share", "cost"))
    found = {(row["share"], row["cost"]): row["top1"] for row in record["rows"]}
    lines = ["| share of the model | " + " | ".join(f"{cost:g} nats an edit" for cost in costs) + " |"]
    lines.append("|---|" + "---:|" * len(costs))
    for share in shares:
        cells = [f"{100 * found[share, cost]['estimate']:.1f}" for cost in costs]
        lines.append(f"| {share:g} | " + " | ".join(cells) + " |")
    half = max(one["high"] - one["low"] for one in found.values()) / 2
    told = f"First suggestion right, % of {record['words']:,} marked words of text that the marker learned from; "
    told += f"95 % intervals are {100 * half:.1f} points to either side at most. `{record['command']}`, "
    return "\n".join([*lines, "", f"{told}{record['threads']} thread. {made_on(record)}"])


def moderation_table(record: dict[str, Any]) -> str:
    """What thresholds hold back of mails that had no part in them, for each way to read."""
    scores = record["scores"]
    lines = [
        "| read | average precision | above TF-IDF (95 %, paired) | of the blocked spam, % | spam blocked, % "
        "| spam held, % | harmless held, % | decided right above TF-IDF, points (95 %, paired) |",
        "|---|" + "---:|" * 7,
    ]
    for way, found in scores.items():
        above = found.get("above_words")
        row = [MODERATION.get(way, way), f"{found['average_precision']:.4f}"]
        row.append(difference(above["average_precision"], 1, 4) if above else "")
        row.append(_share(found["block_precision"]) if found["block_precision"] else "nothing is blocked")
        row += [_share(found[name]) for name in ("spam_blocked", "spam_held", "harmless_held")]
        row.append(difference(above["decided_right"]) if above else "")
        lines.append("| " + " | ".join(row) + " |")
    mails = record["mails"]
    learned = "the beginning" if record["parts"] == 1 else f"the first {record['parts']} parts"
    of = [f"{mails[part]['mails']:,} mails ({mails[part]['spam']:,} spam) {why}" for part, why in MAILS.items()]
    return "\n".join(
        [
            *lines,
            "",
            f"{', '.join(of)}; the classifier learned {learned} of a mail, TF-IDF all of it. {job_told(record)}",
        ]
    )


def moderation_promise_table(record: dict[str, Any]) -> str:
    """How often what is promised of other mails is kept, and what length does."""
    lines = [
        "| read | draws whose blocked are spam less often than promised | mean, % "
        "| draws that find less than promised | mean, % | harmless held of the shortest quarter to the longest, % |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for way, found in record["scores"].items():
        kept, lengths = found["promises"], found["by_length"]
        row = [MODERATION.get(way, way)]
        for name in ("precision", "recall"):
            one = kept[name]
            draws = kept["draws"] - (kept["without_block"] if name == "precision" else 0)
            row += [f"{one['below'] * draws:.0f} of {draws}", f"{100 * one['mean']:.1f}"] if one else ["", ""]
        row.append(", ".join(f"{100 * part['harmless']['estimate']:.1f}" for part in lengths))
        lines.append("| " + " | ".join(row) + " |")
    wanted = record["wanted"]
    ends = ", ".join(f"{part['to']:,}" for part in record["scores"]["words"]["by_length"])
    told = (
        f"Promised with {wanted['certainty']:.0%} certainty: {wanted['block_precision']:.0%} of the blocked, "
        f"{wanted['review_recall']:.0%} of the spam. Quarters end at {ends} characters."
    )
    return "\n".join([*lines, "", f"{told} {job_told(record)}"])


def moderation_disguises_table(record: dict[str, Any]) -> str:
    """What is held back of spam in disguise, and of harmless mails in disguise."""
    found = record["disguises"]
    ways = list(found["kinds"]["as they are"]["spam"])
    lines = ["| disguise | " + " | ".join(MODERATION.get(way, way) for way in ways) + " |"]
    lines.append("|---|" + "---:|" * len(ways))
    for kind, held in found["kinds"].items():
        cells = [" / ".join(f"{100 * held[label][way]['estimate']:.1f}" for label in found["mails"]) for way in ways]
        lines.append("| " + " | ".join([kind, *cells]) + " |")
    counts = found["mails"]
    told = (
        f"Held back, %: of {counts['spam']} spam mails / of {counts['harmless']} harmless ones in the same disguise."
    )
    return "\n".join([*lines, "", f"{told} {job_told(record)}"])


def moderation_cost_table(record: dict[str, Any]) -> str:
    """Time a mail."""
    lines = ["| read | ms a mail, median | slowest | times as long as in windows alone |", "|---|---:|---:|---:|"]
    for way, found in record["cost"]["ways"].items():
        row = [MODERATION.get(way, way), f"{found['milliseconds']:.0f}", f"{found['slowest']:.0f}"]
        lines.append("| " + " | ".join([*row, f"{found['times_whole']:.2f}x"]) + " |")
    told = f"{record['cost']['mails']} mails, in turn, {record['threads']} thread, int8."
    return "\n".join([*lines, "", f"{told} {job_told(record)}"])


MODERATION = {
    "words": "TF-IDF with logistic regression, whole",
    "first tokens": "first tokens alone",
    "whole": "whole, in windows",
    "undisguised": "and with disguises undone",
    "guessed": "and guessed (`--no-sentences`)",
    "sentences": "and sentence by sentence (`--always-sentences`)",
}
MAILS = {"train": "to learn from", "choose": "to choose thresholds on", "decide": "decided"}


def _share(found: dict[str, float]) -> str:
    return f"{100 * found['estimate']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


TABLES = {
    "sizes": sizes_table,
    "glue": glue_table,
    "glue_grid": glue_grid_table,
    "forms": forms_table,
    "forms_threads": forms_table,
    "browser": browser_table,
    "folders": folders_table,
    "folders_strangers": folders_strangers_table,
    "folders_promise": folders_promise_table,
    "moderation": moderation_table,
    "moderation_beginnings": moderation_table,
    "moderation_promise": moderation_promise_table,
    "moderation_disguises": moderation_disguises_table,
    "moderation_cost": moderation_cost_table,
    "ranking": ranking_table,
    "ranking_feeds": ranking_feeds_table,
    "summaries": summaries_table,
    "copies_pairs": copies_pairs_table,
    "copies_sweep": copies_sweep_table,
    "copies_indexes": copies_indexes_table,
    "grammar": grammar_table,
    "suggestions": suggestions_table,
    "completion": completion_table,
    "export_accuracy": export_accuracy_table,
    "bulk": bulk_table,
    "bulk_paper": bulk_table,
    "bulk_day": bulk_day_table,
    "serving": serving_table,
    "demo": demo_table,
    "train_step": train_step_table,
    "train_block": train_block_table,
    "graph_writing": graph_writing_table,
    "squeeze_latency": squeeze_latency_table,
    "squeeze_latency_avx2": squeeze_latency_table,
    "squeeze_conversion": squeeze_conversion_table,
    "squeeze_groupings": squeeze_groupings_table,
    "squeeze_ablation": squeeze_ablation_table,
    "squeeze_healing": squeeze_healing_table,
    "squeeze_retention": squeeze_retention_table,
    "pretrain_speed": pretrain_speed_table,
    "pretrain_processes": pretrain_processes_table,
    "pretrain_scale": pretrain_scale_table,
    "pretrain_runs": pretrain_runs_table,
    "pretrain_orders": pretrain_orders_table,
    "pretrain_finetuned": pretrain_finetuned_table,
    "search_runs": search_latency_table,
    "search_family": search_family_table,
    "search_tasks": search_controls_table,
    "bench": bench_table,
    "aims": aims_table,
}
# Tables of one file's results with names of their own
SOURCES = {
    "pretrain_processes": "pretrain_scale",
    "pretrain_orders": "pretrain_runs",
    "pretrain_finetuned": "pretrain_runs",
    "glue_grid": "glue",
    "search_family": "search_runs",
    "aims": "bench",
    "folders_strangers": "folders",
    "folders_promise": "folders",
    "moderation_promise": "moderation",
    "moderation_disguises": "moderation",
    "moderation_cost": "moderation",
    "ranking_feeds": "ranking",
    "bulk_day": "bulk",
    "copies_pairs": "copies",
    "copies_sweep": "copies",
    "copies_indexes": "copies",
}


def fill(text: str) -> str:
    """Replace what stands between `<!-- NAME table: ... -->` and `<!-- end of NAME table -->`."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} table:[^\n]*-->\n).*?(<!-- end of {name} table -->)", re.S)
        place = RESULTS / f"{SOURCES.get(name, name)}.json"
        if pattern.search(text) and place.exists():
            table = make(json.loads(place.read_text(encoding="utf-8")))
            text = pattern.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = path.read_text(encoding="utf-8")
        new = fill(old)
        if new != old:
            stale.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'stale' if check else 'rewritten'}: {', '.join(stale) or 'nothing'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
