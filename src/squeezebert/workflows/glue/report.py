"""A folder of results in; its tables for the terminal, as Markdown and as a page with plots, out.

Serves `squeezebert glue report`. Published figures have a table of their own, with their sources.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from squeezebert.benchmark.page import STYLE, render, svg_of
from squeezebert.data.glue import GLUE, overall
from squeezebert.files.errors import FolderError
from squeezebert.workflows.glue.options import GlueReportOptions
from squeezebert.workflows.glue.results import MEASURED, TaskResult, lost, summarise

SUBSET = "*"
_NOTE = (
    "Dev rows. Median over seeds (best), number of seeds, where there are several. Scores are GLUE's: Matthews for "
    "CoLA, the mean of accuracy and F1 for MRPC and QQP, of Pearson and Spearman for STS-B, of both tables for MNLI, "
    "accuracy else. Learning rate, epoch and best seed were chosen on these very rows: scores are too high by that, "
    "and only the leaderboard's test rows compare with published test figures."
)
_SUBSET_NOTE = f"{SUBSET} trained or scored on a subset: not comparable with figures on the official rows."


@dataclass(frozen=True)
class Table:
    """A table with its heading and what has to be said of it."""

    title: str
    """Heading."""
    heads: list[str]
    """Heads of the columns."""
    rows: list[list[str]]
    """Cells, the first of each row its name."""
    notes: list[str]
    """Sentences below it."""


def write_report(options: GlueReportOptions) -> str:
    """Write the files that were asked for, and return the tables for the terminal.

    Raises `FolderError` where there are no results.
    """
    folder = Path(options.folder)
    results, gone = summarise(folder), lost(folder)
    if not results and not gone:
        raise FolderError(f"{folder}: no results there; `squeezebert glue run --output {folder}` makes some")
    if not results:
        raise FolderError(f"{folder}: every run there diverged ({_told_lost(gone)}): lower the learning rate")
    measured = _measured(folder)
    tables = [scores_table(results), runs_table(results)]
    if gone:
        tables[0].notes.append(f"Diverged, and left out: {_told_lost(gone)}.")
    told = dict.fromkeys(line for result in results for run in result.grid for line in run.get("warnings", []))
    tables[0].notes.extend(told)
    if measured:
        tables.insert(1, sizes_table(measured, results))
        tables.append(layers_table(measured))
    if options.published:
        tables.append(published_table())
    shown = [table for table in tables if table.title not in (_RUNS, _LAYERS)]
    if options.markdown:
        _write(Path(options.markdown), "\n".join(map(as_markdown, tables)))
    if options.html:
        _write(Path(options.html), as_page(tables, plots(results, measured)))
    return "\n".join(as_text(table) for table in shown)


def _told_lost(gone: dict[tuple[str, str, str], int]) -> str:
    return "; ".join(f"{', '.join(key)} ({count} runs)" for key, count in gone.items())


# --- tables -------------------------------------------------------------------------------------------------

_SCORES, _SIZES, _RUNS = "Scores", "Size, arithmetic and latency", "All training runs"
_LAYERS, _PUBLISHED = "GFLOPs by layer", "Published figures (not ours)"


def scores_table(results: Sequence[TaskResult]) -> Table:
    """A row a model and recipe, a column a task, and the mean over tasks with and without WNLI."""
    groups: dict[tuple[str, str], dict[str, TaskResult]] = {}
    for result in results:
        groups.setdefault((result.model, result.recipe), {})[result.task] = result
    tasks = [task for task in GLUE if any(task in found for found in groups.values())]
    rows = []
    for (model, recipe), found in groups.items():
        cells = [_score(found[task]) if task in found else "" for task in tasks]
        medians = {task: result.median for task, result in found.items()}
        marked = SUBSET if any(result.subsets for result in found.values()) else ""
        means = [overall(medians, wnli=wnli) for wnli in (False, True)]
        rows.append([model, recipe, *cells, *("" if mean is None else f"{mean:.1f}{marked}" for mean in means)])
    notes = [_NOTE, *([_SUBSET_NOTE] if any(result.subsets for result in results) else [])]
    return Table(_SCORES, ["model", "recipe", *tasks, "8 tasks", "9 with WNLI"], rows, notes)


def _score(result: TaskResult) -> str:
    shown = f"{result.median:.1f}"
    if len(result.scores) > 1:
        shown += f" ({max(result.scores):.1f}), {len(result.scores)}"
    if result.diverged:
        shown += f" of {len(result.scores) + result.diverged}"
    return shown + (SUBSET if result.subsets else "")


def runs_table(results: Sequence[TaskResult]) -> Table:
    """Every training run: what the grid tried, and what each seed came to."""
    rows = []
    for result in results:
        for found in sorted(result.grid, key=lambda run: (run["learning_rate"], run["dropout"] or 0, run["seed"])):
            tables = "; ".join(
                f"{name} " + ", ".join(f"{metric} {100 * table[metric]:.1f}" for metric in GLUE[result.task].metrics)
                for name, table in found["tables"].items()
            )
            dropout = "" if found["dropout"] is None else f"{found['dropout']:g}"
            score = "diverged" if found["score"] is None else f"{found['score']:.1f}"
            cells = [f"{found['learning_rate']:g}", dropout, str(found["seed"]), score, tables]
            rows.append([result.model, result.recipe, result.task, *cells])
    heads = ["model", "recipe", "task", "learning rate", "dropout", "seed", "score", "metrics"]
    return Table(_RUNS, heads, rows, [])


def sizes_table(measured: dict[str, Any], results: Sequence[TaskResult]) -> Table:
    """Parameters, operations, file sizes and latency of each model that was measured."""
    lengths = [str(length) for length in measured["lengths"]]
    heads = ["model", "million parameters", *(f"GFLOPs, {n}" for n in lengths), "MB fp32", "MB int8"]
    heads += [f"ms {precision}, {n}" for precision in ("fp32", "int8") for n in lengths]
    rows = []
    for name, told in measured["models"].items():
        cells = [f"{told['parameters'] / 1e6:.1f}", *(f"{told['gflops'][n]:.2f}" for n in lengths)]
        cells += [f"{told['megabytes'][precision]:.1f}" for precision in ("fp32", "int8")]
        cells += [
            f"{told['latency'][precision][n]['median_ms']:.2f}" for precision in ("fp32", "int8") for n in lengths
        ]
        rows.append([name, *cells])
    machine, versions = measured["machine"], measured["versions"]
    exporters = "; ".join(f"{name} by {told['exported_by']}" for name, told in measured["models"].items())
    notes = [
        "GFLOPs count two for a multiply and an add of the matrix products, at so many tokens. Latency is the median "
        f"for one text of so many tokens in onnxruntime {versions['onnxruntime']}, {measured['threads']} thread(s), "
        f"all files interleaved in one process, on {machine['processor']}, {machine['cores']} cores.",
        f"Exported: {exporters}.",
    ]
    return Table(_SIZES, heads, rows, notes)


def layers_table(measured: dict[str, Any]) -> Table:
    """Where each model's operations are."""
    rows = [
        [name, layer, f"{count:.4f}", f"{count / sum(told['gflops_by_layer'].values()):.1%}"]
        for name, told in measured["models"].items()
        for layer, count in told["gflops_by_layer"].items()
    ]
    note = f"Summed over the blocks, at {max(measured['lengths'])} tokens."
    return Table(_LAYERS, ["model", "layer", "GFLOPs", "share"], rows, [note])


def published_table() -> Table:
    """Figures of others, each with its source."""
    text = resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = yaml.safe_load(text)
    tasks = [task for task in GLUE if any(task in entry["tasks"] for entry in entries)]
    rows = [
        [
            entry["model"],
            entry["rows"],
            *(str(entry["tasks"].get(task, "")) for task in tasks),
            "" if entry["score"] is None else str(entry["score"]),
            entry["source"] + (f" ({entry['notes']})" if entry["notes"] else ""),
        ]
        for entry in entries
    ]
    return Table(_PUBLISHED, ["model", "rows", *tasks, "GLUE", "source"], rows, [])


# --- forms --------------------------------------------------------------------------------------------------


def as_text(table: Table) -> str:
    """Return a table in aligned columns."""
    lines = [table.heads, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.heads))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([table.title, "", text[0], rule, *text[1:], *([""] if table.notes else []), *table.notes, ""])


def as_markdown(table: Table) -> str:
    """Return a table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in cells) + " |"

    notes = [note.replace("*", "\\*") for note in table.notes]
    rows = [line(table.heads), "|" + "---|" * len(table.heads), *map(line, table.rows)]
    return "\n".join([f"## {table.title}", "", *rows, "", *(f"{note}\n" for note in notes)])


def plots(results: Sequence[TaskResult], measured: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return pictures as SVG, each with a caption: scores with every seed, and score against latency."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pictures = []
    groups = list(dict.fromkeys((result.model, result.recipe) for result in results))
    tasks = [task for task in GLUE if any(result.task == task for result in results)]
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(max(6.0, 1.2 * len(tasks)), 4.2), layout="constrained")
        for place, group in enumerate(groups):
            shift = (place - (len(groups) - 1) / 2) * 0.7 / len(groups)
            mine = [result for result in results if (result.model, result.recipe) == group]
            xs = [tasks.index(result.task) + shift for result in mine for _ in result.scores]
            axes.plot(xs, [score for result in mine for score in result.scores], "o", color=f"C{place}", alpha=0.6)
            middles = [tasks.index(result.task) + shift for result in mine]
            medians = [result.median for result in mine]
            axes.plot(middles, medians, "_", color=f"C{place}", markersize=16, label=", ".join(group))
        axes.set_xticks(range(len(tasks)), tasks)
        axes.set_ylabel("score on the dev rows")
        axes.grid(axis="y", alpha=0.25)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2)
        told = "Scores of every model on every task; the table has the numbers"
        pictures.append((svg_of(figure, told), "Every seed (dots) and their median (lines)."))
        if measured:
            pictures += _tradeoff(results, measured, groups)
    return pictures


def _tradeoff(
    results: Sequence[TaskResult], measured: dict[str, Any], groups: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Mean score over the tasks that all models have, against latency."""
    from matplotlib import pyplot

    known = [group for group in groups if group[0] in measured["models"]]
    medians = {group: {r.task: r.median for r in results if (r.model, r.recipe) == group} for group in known}
    shared = [task for task in GLUE if known and all(task in medians[group] for group in known)]
    if len(known) < 2 or not shared:
        return []
    length = str(max(measured["lengths"]))
    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    for place, group in enumerate(known):
        mean = sum(medians[group][task] for task in shared) / len(shared)
        # fp32 alone: what int8 files answer was not scored
        x = measured["models"][group[0]]["latency"]["fp32"][length]["median_ms"]
        axes.plot(x, mean, "o", color=f"C{place}", label=", ".join(group))
    axes.set_xlim(left=0)
    axes.set_xlabel(f"median latency of one text of {length} tokens in fp32, ms")
    axes.set_ylabel(f"mean score: {', '.join(shared)}")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2)
    told = "Mean score of each model against its latency"
    return [(svg_of(figure, told), "Higher and further left is better.")]


_BODY = """{% for svg, caption in pictures %}<figure>{{ svg | safe }}<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% for table in tables %}<h2>{{ table.title }}</h2>
<div class="scroll"><table class="texts">
<thead><tr>{% for head in table.heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
{% for note in table.notes %}<p>{{ note }}</p>
{% endfor %}{% endfor %}
"""


def as_page(tables: Sequence[Table], pictures: Sequence[tuple[str, str]]) -> str:
    """Return the tables and pictures as one self-contained page."""
    return render(_BODY, "GLUE results", width=76, tables=tables, pictures=pictures)


def _measured(folder: Path) -> dict[str, Any] | None:
    path = folder / MEASURED
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found["models"], found["lengths"]
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: damaged ({error}); run squeezebert glue measure {folder} again") from error
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
