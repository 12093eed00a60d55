"""A folder of results in; its tables for the terminal, as Markdown and as a page with plots, out.

Serves `squeezebert glue report`. Published figures have a table of their own, with their sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from squeezebert.benchmark.page import STYLE, render, svg_of
from squeezebert.data.glue import GLUE, overall
from squeezebert.files.errors import FolderError
from squeezebert.workflows.glue.options import GlueReportOptions
from squeezebert.workflows.glue.results import MEASURED, TaskResult, lost, summarise, unfinished

SUBSET = "*"
_SHOWN = 3
# As `data.glue.load_glue` warns of a table of another size
_ROWS = re.compile(r"(\S+ \S+): (\d+) rows, officially (\d+)")
_NOTE = (
    "Dev rows. Median over seeds (best), number of seeds, where there are several. Scores are GLUE's: Matthews for "
    "CoLA, the mean of accuracy and F1 for MRPC and QQP, of Pearson and Spearman for STS-B, of both tables for MNLI, "
    "accuracy else. Learning rate, epoch and best seed were chosen on these very rows: scores are too high by that, "
    "and only the leaderboard's test rows compare with published test figures."
)
_VARIANT_NOTE = (
    "Rows with [...] are runs of other options, rows or checkpoints under one name; they are not put together."
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
    begun = unfinished(folder)
    if not results and not gone:
        there = f"{_told_begun(begun, folder)}, and no results yet" if begun else "no results there"
        raise FolderError(f"{folder}: {there}; `squeezebert glue run --output {folder}` makes some")
    if not results:
        raise FolderError(f"{folder}: every run there diverged ({_told_lost(gone)}): lower the learning rate")
    measured = _measured(folder)
    tables = [scores_table(results), runs_table(results)]
    if gone:
        tables[0].notes.append(f"Diverged, and left out: {_told_lost(gone)}.")
    if begun:
        tables[0].notes.append(f"Left out: {_told_begun(begun, folder)}.")
    told = dict.fromkeys(line for result in results for run in result.grid for line in run.get("warnings", []))
    tables[0].notes.extend(_condensed(told))
    if measured:
        tables.insert(1, sizes_table(measured))
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


def _told_begun(begun: Sequence[Path], folder: Path) -> str:
    shown = "; ".join(", ".join(path.relative_to(folder).parts) for path in begun[:_SHOWN])
    more = f" and {len(begun) - _SHOWN} more" if len(begun) > _SHOWN else ""
    return f"{len(begun)} {'run' if len(begun) == 1 else 'runs'} begun and not finished ({shown}{more})"


def _condensed(warnings: Iterable[str]) -> list[str]:
    """Warnings of runs, those of numbers of rows in one line."""
    sizes: dict[str, None] = {}
    others = []
    for line in warnings:
        found = _ROWS.match(line)
        if found is None:
            others.append(line)
        else:
            sizes[f"{found[1]} {int(found[2]):,} of {int(found[3]):,}"] = None
    return [*([f"Rows, of those that are official: {'; '.join(sizes)}."] if sizes else []), *others]


# --- tables -------------------------------------------------------------------------------------------------

_SCORES, _SIZES, _RUNS = "Scores", "Size, arithmetic and latency", "All training runs"
_LAYERS, _PUBLISHED = "GFLOPs by layer", "Published figures (not ours)"


def scores_table(results: Sequence[TaskResult]) -> Table:
    """A row a model and recipe, a column a task, and the mean over tasks with and without WNLI."""
    groups: dict[tuple[str, str], dict[str, TaskResult]] = {}
    for result in results:
        groups.setdefault(_row(result), {})[result.task] = result
    tasks = [task for task in GLUE if any(task in found for found in groups.values())]
    rows = []
    for (model, recipe), found in groups.items():
        cells = [_score(found[task]) if task in found else "" for task in tasks]
        medians = {task: result.median for task, result in found.items()}
        marked = SUBSET if any(result.subsets for result in found.values()) else ""
        means = [overall(medians, wnli=wnli) for wnli in (False, True)]
        rows.append([model, recipe, *cells, *("" if mean is None else f"{mean:.1f}{marked}" for mean in means)])
    notes = [_NOTE, *([_SUBSET_NOTE] if any(result.subsets for result in results) else [])]
    notes += [_VARIANT_NOTE] if any(result.variant for result in results) else []
    return Table(_SCORES, ["model", "recipe", *tasks, "8 tasks", "9 with WNLI"], rows, notes)


def _row(result: TaskResult) -> tuple[str, str]:
    """What a result's row is called: runs that are not to be put together have rows of their own."""
    return result.model, f"{result.recipe} [{result.variant}]" if result.variant else result.recipe


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
            if found["score"] is not None and set(found["subsets"]) & set(result.subsets):
                score += SUBSET
            cells = [f"{found['learning_rate']:g}", dropout, str(found["seed"]), score, tables]
            rows.append([*_row(result), result.task, *cells])
    heads = ["model", "recipe", "task", "learning rate", "dropout", "seed", "score", "metrics"]
    return Table(_RUNS, heads, rows, [_SUBSET_NOTE] if any(result.subsets for result in results) else [])


def sizes_table(measured: dict[str, Any]) -> Table:
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
    groups = list(dict.fromkeys(map(_row, results)))
    tasks = [task for task in GLUE if any(result.task == task for result in results)]
    marked = {result.task for result in results if result.subsets}
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(max(6.0, 1.2 * len(tasks)), 4.2), layout="constrained")
        for place, group in enumerate(groups):
            shift = (place - (len(groups) - 1) / 2) * 0.7 / len(groups)
            mine = [result for result in results if _row(result) == group]
            xs = [tasks.index(result.task) + shift for result in mine for _ in result.scores]
            axes.plot(xs, [score for result in mine for score in result.scores], "o", color=f"C{place}", alpha=0.6)
            middles = [tasks.index(result.task) + shift for result in mine]
            medians = [result.median for result in mine]
            axes.plot(middles, medians, "_", color=f"C{place}", markersize=16, label=str(place))
        axes.set_xticks(range(len(tasks)), [task + SUBSET if task in marked else task for task in tasks])
        axes.set_ylabel("score on the dev rows")
        axes.grid(axis="y", alpha=0.25)
        _legend(axes, groups)
        told = "Scores of every model on every task; the table has the numbers"
        caption = "Every seed (dots) and their median (lines)."
        pictures.append((svg_of(figure, told), f"{caption} {_SUBSET_NOTE}" if marked else caption))
        if measured:
            pictures += _tradeoff(results, measured, groups)
    return pictures


def _legend(axes: Any, groups: Sequence[tuple[str, str]]) -> None:
    """Name the groups as they are: matplotlib hides labels that begin with `_`, and takes `$` for formulas."""
    legend = axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2)
    for text, group in zip(legend.get_texts(), groups, strict=True):
        text.set_parse_math(False)
        text.set_text(", ".join(group))


def _tradeoff(
    results: Sequence[TaskResult], measured: dict[str, Any], groups: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Mean score over the tasks that all models have, against latency."""
    from matplotlib import pyplot

    known = [group for group in groups if group[0] in measured["models"]]
    medians = {group: {r.task: r.median for r in results if _row(r) == group} for group in known}
    shared = [task for task in GLUE if known and all(task in medians[group] for group in known)]
    if len(known) < 2 or not shared:
        return []
    length = str(max(measured["lengths"]))
    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    for place, group in enumerate(known):
        mean = sum(medians[group][task] for task in shared) / len(shared)
        # fp32 alone: what int8 files answer was not scored
        x = measured["models"][group[0]]["latency"]["fp32"][length]["median_ms"]
        axes.plot(x, mean, "o", color=f"C{place}", label=str(place))
    axes.set_xlim(left=0)
    axes.set_xlabel(f"median latency of one text of {length} tokens in fp32, ms")
    axes.set_ylabel(f"mean score: {', '.join(shared)}")
    axes.grid(alpha=0.25)
    _legend(axes, known)
    told = "Mean score of each model against its latency"
    subset = any(r.subsets for r in results if _row(r) in known and r.task in shared)
    return [(svg_of(figure, told), "Higher and further left is better." + f" {_SUBSET_NOTE}" * subset)]


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
        if not found["models"] or not found["lengths"]:
            raise ValueError("no models in it")
        sizes_table(found), layers_table(found)
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise FolderError(f"{path}: damaged ({error}); run squeezebert glue measure {folder} again") from error
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
