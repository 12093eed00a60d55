"""What is said of a squeezed model: the record of its making in, its model card and the summary for people out.

Serves `squeeze.py`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from squeezebert.training.shapes import describe_shape

RECORD = "squeeze.json"


def card(record: dict[str, Any]) -> str:
    """Return the model card of a squeezed model: Markdown with a YAML head, as model hubs read it."""
    base, before, after = Path(record["base"]).name, *(record["parameters"][when] for when in ("before", "after"))
    classifies = record["head"] == "ForSequenceClassification"
    lines = [
        "---",
        "library_name: squeezebert",
        *(["pipeline_tag: text-classification"] if classifies else []),
        "---",
        f"# {base}, squeezed",
        "",
        f"{record['base']} with {before / after:.2f} times fewer weights in its blocks: {before} before, {after} now.",
        "",
        f"Shape: {describe_shape(record['shape'])} ({record['reason']}).",
    ]
    if classifies:
        lines += ["", "## Results", "", *_results(record)]
    lines += ["", "## Making", "", _conversion(record)]
    healing = record["healing"]
    if healing:
        held_out = healing["held_out"]
        lines += [
            "",
            f"Healed for {healing['steps']} steps on {healing['tokens']} tokens to have the dense model's inner "
            f"states; loss {held_out['held_out_loss']:.4f} on held-out text.",
        ]
    if record["command"]:
        lines += ["", "```sh", record["command"], "```"]
    if record.get("scores"):
        lines += [
            "",
            "The evaluation rows are in `evaluation.jsonl`: leave that file out where the texts are private.",
        ]
    return "\n".join([*lines, ""])


def summary(output: Path, record: dict[str, Any]) -> str:
    """Return what came of a job, and the command that comes next."""
    before, after = (record["parameters"][when] for when in ("before", "after"))
    lines = [f"{before / after:.2f} times fewer weights in the blocks than {record['base']}"]
    if record["healing"]:
        lines.append(f"healed for {record['healing']['steps']} steps")
    scores = record.get("scores") or {}
    for name, value in scores.get("after", {}).items():
        lines.append(f"{name.replace('_', ' ')}: {scores['before'][name]:.4f} before, {value:.4f} after")
    if record["head"] == "ForSequenceClassification" and not scores:
        lines.append(f"not scored: {record['scored']}")
    lines.append(f"written: {output}")
    folder = shlex.quote(str(output))
    if record["head"] == "ForSequenceClassification":
        lines.append(f"next: squeezebert export {folder} --output EXPORTED")
    elif record["head"] in ("Model", "ForMaskedLM"):
        lines.append(f"next: squeezebert train TABLE --base {folder} --output TRAINED")
    else:
        lines.append(f"next: squeezebert.model.SqueezeBert{record['head']}.from_pretrained({str(output)!r}) in Python")
    return "\n".join(lines)


def _results(record: dict[str, Any]) -> list[str]:
    scores = record.get("scores")
    if not scores:
        return [f"Not scored: {record['scored']}."]
    rows = [
        f"| {name.replace('_', ' ')} | {scores['before'][name]:.4f} | {value:.4f} |"
        for name, value in scores["after"].items()
    ]
    return [f"On {record['scored']}:", "", "| score | dense | squeezed |", "|---|---|---|", *rows]


def _conversion(record: dict[str, Any]) -> str:
    if record["conversion"] == "slices":
        return "Its blocks were cut out of the dense matrices."
    order = record["energy_in_blocks"]
    told = "" if order is None else f", after channels were put in an order in which blocks carry {order:.0%}"
    return f"Its matrices were fitted to what the dense model computes on {record['calibration_tokens']} tokens{told}."
