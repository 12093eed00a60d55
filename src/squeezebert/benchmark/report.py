"""Measured rows in; a table for the terminal and a self-contained HTML page with a plot out. Serves the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from squeezebert.benchmark.page import STYLE, render, svg_of
from squeezebert.files.stopwatch import Timing


@dataclass(frozen=True)
class Row:
    """One model file and what was measured of it."""

    model: str
    """What it is, for people."""
    precision: str
    """fp32 or int8."""
    megabytes: float
    """Size of the file, in 10**6 bytes."""
    latency: Mapping[int, Timing]
    """Tokens -> how long one text of that length takes."""
    speedup: Mapping[int, float]
    """Tokens -> median of the named baseline divided by this median."""
    accuracy: float | None = None
    """Share of the evaluation rows answered rightly; None for random weights."""
    interval: tuple[float, float] | None = None
    """95 % interval of the accuracy."""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON takes it."""
        return asdict(self) | {
            "latency": {str(tokens): timing.to_dict() for tokens, timing in self.latency.items()},
            "speedup": {str(tokens): ratio for tokens, ratio in self.speedup.items()},
        }

    @property
    def name(self) -> str:
        """Model and precision."""
        return f"{self.model} {self.precision}"


@dataclass(frozen=True)
class Report:
    """What the page shows."""

    title: str
    """Its heading."""
    lead: str
    """What was done, in two or three sentences."""
    rows: Sequence[Row]
    """The measured files."""
    baseline: str
    """What speed-ups are relative to."""
    examples: Sequence[Mapping[str, Any]]
    """Texts with the label and probability that the model gave: `text`, `label`, `probability`."""
    facts: Mapping[str, str]
    """Data, seed, machine, versions, command: whatever a reader needs to repeat it."""


def header(rows: Sequence[Row]) -> list[str]:
    """Return the heads of the columns."""
    lengths = sorted(rows[0].latency)
    return [
        "model",
        "accuracy (95 % interval)",
        "size, MB",
        *(f"ms, {tokens} tokens" for tokens in lengths),
        *(f"speed-up, {tokens}" for tokens in lengths),
    ]


def cells(row: Row) -> list[str]:
    """Return a row as texts, in the order of `header`."""
    lengths = sorted(row.latency)
    accuracy = "random weights"
    if row.accuracy is not None and row.interval is not None:
        low, high = (f"{100 * bound:.1f}" for bound in row.interval)
        accuracy = f"{100 * row.accuracy:.1f} % ({low} to {high})"
    return [
        row.name,
        accuracy,
        f"{row.megabytes:.1f}",
        *(f"{row.latency[tokens].median_ms:.2f}" for tokens in lengths),
        *(f"{row.speedup[tokens]:.1f}x" for tokens in lengths),
    ]


def text_table(rows: Sequence[Row], baseline: str) -> str:
    """Return the table in aligned columns, numbers to the right, and what its speed-ups are relative to."""
    lines = [header(rows), *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def aligned(line: Sequence[str]) -> str:
        left = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        return "  ".join([*left, *right]).rstrip()

    rule = "  ".join("-" * width for width in widths)
    note = f"latency: median, one thread, batch 1; speed-up: {baseline}'s latency divided by the file's"
    return "\n".join([aligned(lines[0]), rule, *map(aligned, lines[1:]), "", note])


def plot_svg(rows: Sequence[Row], tokens: int) -> str:
    """Return an SVG picture of accuracy against latency at one length, with its intervals.

    Files of random weights have no accuracy: they are lines at their latency.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7.6, 4.4), layout="constrained")
        colours = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(row.model for row in rows))}
        markers = {"fp32": "o", "int8": "D"}
        for row in rows:
            x = row.latency[tokens].median_ms
            colour = colours[row.model]
            if row.accuracy is None or row.interval is None:
                axes.axvline(x, color=colour, linestyle="-" if row.precision == "fp32" else "--", linewidth=1.2)
                axes.annotate(
                    row.name,
                    (x, 0.02),
                    xycoords=("data", "axes fraction"),
                    rotation=90,
                    ha="right",
                    va="bottom",
                    color=colour,
                    xytext=(-3, 0),
                    textcoords="offset points",
                )
                continue
            y = 100 * row.accuracy
            below, above = y - 100 * row.interval[0], 100 * row.interval[1] - y
            axes.errorbar(
                x,
                y,
                yerr=[[below], [above]],
                fmt=markers[row.precision],
                color=colour,
                capsize=4,
                markersize=8,
                label=f"{row.name}, {row.megabytes:.0f} MB",
            )
        axes.set_xscale("log")
        axes.set_xlabel(f"median latency of one text of {tokens} tokens, ms, one thread (log scale)")
        axes.set_ylabel("accuracy on the evaluation rows, %")
        shown = sorted({row.latency[tokens].median_ms for row in rows})
        axes.set_xlim(shown[0] / 1.6, shown[-1] * 1.4)
        low, high = axes.get_xlim()
        ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500) if low <= tick <= high]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, frameon=False)
        return svg_of(figure, "Accuracy of each model against its latency; the table has the numbers")


_BODY = """<p>{{ report.lead }}</p>
<h2>What was measured</h2>
<div class="scroll"><table>
<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
<p>Latency: median for one text on one thread. Speed-up: {{ report.baseline }}'s latency divided by the file's.</p>
<figure>{{ plot | safe }}
<figcaption>Higher and further left is better. Bars are 95 % intervals of the accuracy.</figcaption></figure>
<h2>Three sentences, answered by the int8 student</h2>
<div class="scroll"><table>
<thead><tr><th scope="col">text</th><th scope="col">label</th><th scope="col">probability</th></tr></thead>
<tbody>
{% for example in report.examples %}<tr><td class="text">{{ example.text }}</td><td>{{ example.label }}</td>
<td>{{ "%.3f" | format(example.probability) }}</td></tr>
{% endfor %}</tbody>
</table></div>
<h2>How to repeat it</h2>
<dl>{% for name, fact in report.facts.items() %}<dt>{{ name }}</dt><dd>{{ fact }}</dd>
{% endfor %}</dl>
"""


def html_page(report: Report, tokens: int) -> str:
    """Return the page: one file, no script, nothing fetched. The plot is at `tokens` tokens."""
    return render(
        _BODY,
        report.title,
        report=report,
        heads=header(report.rows),
        lines=[cells(row) for row in report.rows],
        plot=plot_svg(report.rows, tokens),
    )
