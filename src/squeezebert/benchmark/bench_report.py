"""What `bench` measured in; a Markdown table and a page with a picture out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from squeezebert.benchmark.page import STYLE, render, svg_of


def columns(record: Mapping[str, Any]) -> list[str]:
    """Return the heads of the table of latencies."""
    first = record["rows"][0]
    heads = ["model", "precision", "threads", "texts", "tokens", "median ms", "tenths ms"]
    heads += [f"faster than {record['baseline']} {precision}" for precision in first["faster"]]
    if "limit_ms" in first:
        heads += ["products alone, ms", "share of limit"]
    return heads


def cells(record: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Return a row as texts, in the order of `columns`."""
    told = [row["model"], row["precision"], str(row["threads"]), str(row["batch"]), str(row["tokens"])]
    told += [f"{row['median_ms']:.2f}", f"{row['low_ms']:.2f} to {row['high_ms']:.2f}"]
    told += [f"{ratio:.2f}x" for ratio in row["faster"].values()]
    if "limit_ms" in row:
        share = row["share_of_limit"]
        told += ["", ""] if share is None else [f"{row['limit_ms']:.2f}", f"{share:.0%}"]
    return told


def labels(models: Sequence[str]) -> dict[str, str]:
    """Return what a picture calls each model: the last parts of its path, as many as tell it from the others."""
    parts = {name: name.rstrip("/").split("/") for name in models}
    told: dict[str, str] = {}
    for name in models:
        for count in range(1, len(parts[name]) + 1):
            told[name] = "/".join(parts[name][-count:])
            if sum(other[-count:] == parts[name][-count:] for other in parts.values()) == 1:
                break
    return {name: label.replace("$", r"\$") for name, label in told.items()}  # or matplotlib would read a formula


def about_columns(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of the table of sizes, starts and memory."""
    heads, rows = ["file", "what it is", "MB"], []
    starts = any("start" in told for told in record["models"].values())
    if starts:
        heads += ["first answer, s", "to", "memory, MB"]
    for name, told in record["models"].items():
        row = [name, told["kind"], f"{told['megabytes']:.1f}"]
        if starts:
            start = told["start"]
            row += [f"{start['seconds']:.2f}", start["answers"], f"{start['peak_bytes'] / 1e6:.0f}"]
        rows.append(row)
    return heads, rows


def profile_rows(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return kernels, their milliseconds and their shares, largest first, small ones together."""
    total = sum(row["kinds_ms"].values())
    shown = [(kind, ms) for kind, ms in row["kinds_ms"].items() if ms >= 0.01 * total]
    rest = total - sum(ms for _, ms in shown)
    return [(kind, f"{ms:.2f}", f"{ms / total:.0%}") for kind, ms in [*shown, ("others", rest)]]


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose columns are as wide as their widest cell, so that a terminal shows it well."""
    widths = [max(len(line[column]) for line in (heads, *rows)) for column in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(heads), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]


def markdown(record: Mapping[str, Any]) -> str:
    """Return all tables as Markdown."""
    lines = _markdown_table(columns(record), [cells(record, row) for row in record["rows"]])
    heads, rows = about_columns(record)
    lines += ["", *_markdown_table(heads, rows)]
    for row in record["rows"]:
        if "kinds_ms" in row:
            told = f"{row['model']} {row['precision']}, {row['tokens']} tokens, texts: {row['batch']}"
            lines += ["", f"{told}, threads: {row['threads']}, under the profiler:", ""]
            lines += _markdown_table(["kernel", "ms", "share"], profile_rows(row))
    lines += ["", _note(record)]
    return "\n".join(lines)


def _note(record: Mapping[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    told = (
        f"Medians of interleaved bursts in one process, {record['engine']} {versions['onnxruntime']}, "
        f"{machine['processor']}, {machine['cores']} cores."
    )
    if machine["integer_products_overflow"]:
        told += " This CPU's fast integer products overflow: all int8 files run with exact ones."
    return told


def plot_svg(record: Mapping[str, Any], threads: int, batch: int) -> str:
    """Return a picture of the latencies at each length, with the part that the products alone take."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in record["rows"] if (row["threads"], row["batch"]) == (threads, batch)]
    lengths = sorted({row["tokens"] for row in rows})
    called = labels(list(dict.fromkeys(row["model"] for row in rows)))
    names = list(dict.fromkeys(f"{called[row['model']]} {row['precision']}" for row in rows))
    with pyplot.rc_context(STYLE):
        figure, plots = pyplot.subplots(
            1,
            len(lengths),
            figsize=(4.8 * len(lengths) + 1.5, 0.8 + 0.32 * len(names)),
            layout="constrained",
            sharey=True,
        )
        for axes, length in zip([plots] if len(lengths) == 1 else plots, lengths, strict=True):
            own = [row for row in rows if row["tokens"] == length]
            places = range(len(own))
            colours = ["C0" if row["precision"] == "fp32" else "C1" for row in own]
            axes.barh(places, [row["median_ms"] for row in own], color=colours, alpha=0.55)
            for place, row in zip(places, own, strict=True):
                axes.plot([row["low_ms"], row["high_ms"]], [place, place], color="0.2", linewidth=1)
                axes.annotate(
                    f"{row['median_ms']:.1f}" if row["median_ms"] >= 1 else f"{row['median_ms']:.2g}",
                    (row["high_ms"], place),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
                if row.get("limit_ms"):
                    axes.plot([row["limit_ms"]] * 2, [place - 0.4, place + 0.4], color="0.1", linewidth=2)
            axes.set_yticks(list(places), names)
            axes.set_ylim(len(own) - 0.4, -0.6)  # the first model on top
            axes.margins(x=0.14)
            axes.set_xlim(left=0)
            axes.set_title(f"{length} tokens")
            axes.grid(axis="x", alpha=0.25)
        figure.supxlabel(f"median ms; threads: {threads}, texts at a time: {batch}", fontsize=10)
        return svg_of(figure, "Latency of each model; the table has the numbers")


_BODY = """<p>{{ note }}</p>
{% for plot in plots %}<figure>{{ plot | safe }}
<figcaption>Bars are medians, thin lines go from the fastest to the slowest tenth{% if limits %}; thick marks are what
the file's products take alone, timed after the models, which it can hardly beat{% endif %}.</figcaption></figure>
{% endfor %}<h2>Latency</h2>
<div class="scroll"><table>
<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for line in lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<h2>Size, start and memory</h2>
<div class="scroll"><table>
<thead><tr>{% for head in about_heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for line in about %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% for title, kinds in profiles %}<h2>{{ title }}</h2>
<div class="scroll"><table><thead><tr><th scope="col">kernel</th><th scope="col">ms</th><th scope="col">share</th></tr>
</thead><tbody>{% for kind in kinds %}<tr>{% for cell in kind %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}<h2>How to repeat it</h2>
<p><code>{{ command }}</code></p>
"""


def html_page(record: Mapping[str, Any]) -> str:
    """Return the page: one file, no script, nothing fetched."""
    ways = dict.fromkeys((row["threads"], row["batch"]) for row in record["rows"])
    about_heads, about = about_columns(record)
    profiles = [
        (
            f"{row['model']} {row['precision']}: where the time goes, {row['tokens']} tokens, "
            f"threads: {row['threads']}, texts: {row['batch']}",
            profile_rows(row),
        )
        for row in record["rows"]
        if "kinds_ms" in row
    ]
    return render(
        _BODY,
        "How fast the models are",
        width=72,
        note=_note(record),
        plots=[plot_svg(record, *way) for way in ways],
        limits="limit_ms" in record["rows"][0],
        heads=columns(record),
        lines=[cells(record, row) for row in record["rows"]],
        about_heads=about_heads,
        about=about,
        profiles=profiles,
        command=record["command"],
    )
