"""What a search found in, a page to look at out: the front, the network layer by layer, the latency model's errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from squeezebert.benchmark.page import STYLE, render, svg_of

_BODY = """
<p>{{ intro }}</p>
{% for name, found in found.items() %}
<h2>{{ name }}: {{ "%.2f"|format(found.timed.ms) }} ms</h2>
<p>Measured {{ "%.3f"|format(found.timed.ratio) }} of the dense network's
{{ "%.2f"|format(found.timed.anchor_ms) }} ms, for a budget of {{ "%.3f"|format(found.budget) }}. Error of its states:
{{ "%.4f"|format(found.errors.inherited) }} with the supernet's weights,
{{ "%.4f"|format(found.errors.fitted) }} fitted anew{% if found.errors.healed is not none %},
{{ "%.4f"|format(found.errors.healed) }} after {{ found.healing.steps }} steps of healing{% endif %}; on text that
nothing was chosen by.</p>
<div class="scroll"><table class="texts">
<tr><th>layer</th><th>heads</th><th>query</th><th>key</th><th>value</th><th>FFN1</th><th>width</th><th>activation</th>
<th>FFN2</th><th>FFN3</th></tr>
{% for row in found.layers %}<tr>{% for cell in row %}<td style="background: {{ cell.colour }}">{{ cell.text }}</td>
{% endfor %}</tr>
{% endfor %}</table></div>
<p>Beside networks that anyone would try without a search, all with the supernet's weights and on the same text. Times
are measured, and of other sizes than the budget: what is nearer to the dense model in less time is better.</p>
<div class="scroll"><table class="texts">
<tr><th>network</th><th>time</th><th>share of dense</th><th>error</th><th>parameters of blocks</th><th></th></tr>
{% for row in found.compared %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
<figure>{{ found.picture|safe }}
<figcaption>Dots are the networks that were judged, by their predicted time and their error with the supernet's
weights; the line joins those that none is better than, the Pareto front. All else is at its measured time: circles are
networks that the search had timed, the full one was taken, and those with names are uniform ones. Darker cells above
have more weights.</figcaption></figure>
{% endfor %}
<h2>How well latency is predicted</h2>
<p>{{ accuracy }}</p>
<figure>{{ latency|safe }}</figure>
<p><code>{{ command }}</code></p>
<p>{{ machine }}</p>
"""
_NONE = "–"


def write_report(record: Mapping[str, Any], path: Path) -> None:
    """Write the page of a finished search."""
    options, latency = record["options"], record["latency"]
    accuracy = latency["accuracy"]
    found = {
        name: {
            **one,
            "layers": _layers(one["shape"], record["hidden_size"]),
            "compared": _compared(one, record["dense"]["parameters"]),
            "picture": _front(name, one),
        }
        for name, one in record["found"].items()
    }
    page = render(
        _BODY,
        f"Networks searched in {Path(record['checkpoint']).name}",
        width=70,
        intro=(
            f"Engine {options['engine']}; threads: {options['threads']}; {options['tokens']} tokens, "
            f"{'the first one' if options['reads'] == 'first' else 'all'} read of the last layer; method "
            f"{options['method']}, {options['steps']} steps of supernet training. "
            f"{record['text']['sequences']} sequences of {record['text']['tokens']} tokens of text."
        ),
        found=found,
        accuracy=(
            f"On {accuracy['networks']} networks that the model was not fitted to it is off by "
            f"{accuracy['median']:.1%} (median) and {accuracy['worst']:.1%} (worst)."
            if accuracy
            else "Not checked."
        ),
        latency=_predictions(latency["rows"], accuracy["networks"] if accuracy else 0),
        command=record["command"],
        machine=", ".join(f"{name} {value}" for name, value in record["machine"].items()),
    )
    part = path.with_name(f".{path.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)


def _taken(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The network that was taken, as it was timed beside others."""
    timed = [row for one in found["rounds"] for row in one]
    return next(row for row in timed if row["shape"] == found["shape"])


def _compared(found: Mapping[str, Any], dense: int) -> list[list[str]]:
    """The network that was found and uniform ones, fastest first, and what the first has over the others."""
    own = {**_taken(found), "error": found["judged"], "parameters": found["parameters"]}
    rows = []
    for name, one in sorted({"found": own, **found["controls"]}.items(), key=lambda item: item[1]["ratio"]):
        told = ""
        if name != "found":
            speed = "faster" if own["ratio"] < one["ratio"] else "slower"
            told = f"found: {speed}, {'nearer' if own['error'] < one['error'] else 'farther'}"
        share = f"{one['parameters'] / 1e6:.1f} M ({one['parameters'] / dense:.0%})"
        rows.append([name, f"{one['ms']:.2f} ms", f"{one['ratio']:.3f}", f"{one['error']:.4f}", share, told])
    return rows


def _layers(shape: Mapping[str, Any], hidden: int) -> list[list[dict[str, str]]]:
    """One row of cells a layer: what each matrix is, darker for more weights."""
    rows = []
    for layer in range(len(shape["kept_heads"])):

        def matrix(name: str, there: int, rank: str = "", layer: int = layer) -> dict[str, str]:
            groups, r = shape[f"{name}_groups"][layer], shape[rank or f"{name}_rank"][layer]
            if not there:
                return {"text": _NONE, "colour": "#fff"}
            text = "dense" if groups == 1 else f"rank {r}" if not groups else f"{groups} groups"
            text += f" + rank {r}" if groups > 1 and r else ""
            share = min(1.0, (1 / groups if groups else 0.0) + 2 * r / hidden)
            return {"text": text, "colour": f"rgba(31, 119, 180, {0.08 + 0.35 * share:.2f})"}

        heads, width = shape["kept_heads"][layer], shape["intermediate_size"][layer]
        plain = {"colour": "#fff"}
        rows.append(
            [
                {"text": str(layer + 1), **plain},
                {"text": str(heads) if heads else _NONE, **plain},
                *(matrix(name, heads, "q_rank") for name in "qkv"),
                matrix("post_attention", heads),
                {"text": str(width) if width else _NONE, **plain},
                {"text": shape["intermediate_act"][layer] if width else _NONE, **plain},
                matrix("intermediate", width),
                matrix("output", width),
            ]
        )
    return rows


def _front(name: str, found: Mapping[str, Any]) -> str:
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(8, 4.6))
        times, errors = zip(*found["seen"], strict=True)
        axes.scatter(times, errors, s=7, color="#9bb7cf", label="judged (predicted)")
        axes.plot(*zip(*found["front"], strict=True), color="#1f4e79", linewidth=1.5, label="front")
        for number, (label, one) in enumerate(found["controls"].items()):
            place = [one["ratio"]], [one["error"]]
            axes.scatter(*place, marker="xD^vs*"[number % 6], s=34, color="#b4532a", label=f"{label} (measured)")
        timed = [row for one in found["rounds"] for row in one]
        places = [row["ratio"] for row in timed], [row["judged"] for row in timed]
        axes.scatter(*places, marker="o", s=36, facecolors="none", edgecolors="#000", label="found (measured)")
        taken = [_taken(found)["ratio"]], [found["judged"]]
        axes.scatter(*taken, marker="o", s=60, color="#000", label="taken (measured)")
        axes.axvline(found["budget"], color="#777", linestyle=":", linewidth=1, label="budget")
        axes.set_xlabel("time, as a share of the dense network's")
        axes.set_ylabel("error of the states, relative to variance")
        axes.set_title(f"{name}: error against time", fontsize=11)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        axes.grid(alpha=0.25)
        figure.tight_layout()
        return svg_of(figure, f"{name}: error of every judged network against its time")


def _predictions(rows: list[Mapping[str, float]], held_out: int) -> str:
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(5.2, 4.4))
        parts = (
            ("fitted to", rows[: len(rows) - held_out], "#9bb7cf"),
            ("not seen", rows[len(rows) - held_out :], "#b4532a"),
        )
        for label, some, colour in parts:
            if some:
                axes.scatter(
                    [r["measured"] for r in some], [r["predicted"] for r in some], s=14, color=colour, label=label
                )
        top = max(r["measured"] for r in rows) * 1.05
        axes.plot([0, top], [0, top], color="#555", linewidth=1)
        axes.set_xlabel("measured, as a share of the dense network's time")
        axes.set_ylabel("predicted")
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
        figure.tight_layout()
        return svg_of(figure, "Predicted against measured latency of random networks")
