"""The model card of a finished run: what the model does, how well, on what, and the command that made it."""

from __future__ import annotations

from pathlib import Path

from squeezebert import __version__
from squeezebert.data.calibration import BINS, Calibration
from squeezebert.data.examples import LabelledData
from squeezebert.training.options import FinetuneOptions

_TASKS = {
    "single_label": "one label a text",
    "multi_label": "any number of labels a text",
    "regression": "a number a text",
}


def write_card(
    folder: Path,
    data: LabelledData,
    options: FinetuneOptions,
    metrics: dict[str, float],
    calibration: Calibration,
    command: str,
    base: str,
    kind: str = "A SqueezeBERT-architecture text classifier",
) -> None:
    """Write `README.md` in the form that model hubs read."""
    card = model_card(data, options, metrics, calibration, command, base, kind)
    (folder / "README.md").write_text(card, encoding="utf-8")


def model_card(
    data: LabelledData,
    options: FinetuneOptions,
    metrics: dict[str, float],
    calibration: Calibration,
    command: str,
    base: str,
    kind: str = "A SqueezeBERT-architecture text classifier",
) -> str:
    """Return the card's text, Markdown with a YAML head."""
    report = data.report
    shown = ", ".join(f"`{name}`" for name in data.labels[:50])
    more = f" and {len(data.labels) - 50} more" if len(data.labels) > 50 else ""
    lines = [
        "---",
        "library_name: squeezebert",
        "pipeline_tag: text-classification",
        "---",
        f"# {_title(data)}",
        "",
        f"{kind}: {_TASKS[data.task]}" + (f", of {len(data.labels)}: {shown}{more}." if data.labels else "."),
        "",
        "## Results",
        "",
        f"On {report.evaluation_rows} evaluation rows ({report.evaluation_from}), with the weights of the best "
        "evaluation during training:",
        "",
        "| score | value |",
        "|---|---|",
        *(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in metrics.items()),
    ]
    if calibration.error_before is not None and calibration.error_after is not None:
        lines += [
            f"| expected calibration error, {BINS} bins, before | {calibration.error_before:.4f} |",
            f"| the same after temperature scaling (each half with the other's) | {calibration.error_after:.4f} |",
            "",
            f"Logits are divided by the temperature {calibration.temperature:.4f}, fitted on the evaluation rows.",
        ]
    if calibration.thresholds is not None:
        pairs = zip(data.labels, calibration.thresholds, strict=True)
        lines += [
            "",
            "A label applies from its threshold on, chosen for the best F1 on the evaluation rows; the scores above "
            "are of thresholds chosen on the other half of the rows: "
            + ", ".join(f"`{name}` {value:.3f}" for name, value in pairs)
            + ".",
        ]
    lines += [
        "",
        "## Training",
        "",
        f"{report.train_rows} rows from {report.train_from}, base model {base}, squeezebert {__version__}.",
        f"Learning rate {options.learning_rate:g}, {options.epochs:g} epochs at most, batch size "
        f"{options.batch_size * options.accumulate}, {options.max_length} tokens, seed {options.seed}.",
    ]
    if report.warnings:
        lines += ["", "The data had this to be said of them:", "", *(f"- {warning}" for warning in report.warnings)]
    if command:
        lines += ["", "```sh", command, "```"]
    lines += [
        "",
        "The evaluation rows are in `evaluation.jsonl`: leave that file out where the texts are private.",
        "",
    ]
    return "\n".join(lines)


def _title(data: LabelledData) -> str:
    """A heading for the card."""
    return "Text regression" if data.task == "regression" else f"Text classification into {len(data.labels)} labels"
