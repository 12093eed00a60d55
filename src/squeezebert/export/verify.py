"""What an exported model answered, next to the reference: probabilities in, a `Verification` out. Serves the exporter.

Legend: N rows, L labels. The reference is torch for fp32 and the fp32 file for int8. `places.py` has what is compared
of models that answer for words of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from squeezebert.data.statistics import (
    Interval,
    correlation_interval,
    mean_interval,
    paired_correlation_interval,
    paired_interval,
    pearson,
    rows_to_decide,
)
from squeezebert.export.checkpoint import Checkpoint, EvaluationRow
from squeezebert.export.options import ExportOptions
from squeezebert.files.errors import SqueezeBertError
from squeezebert.files.manifest import Task, Verification
from squeezebert.runtime.tokens import Text, Tokenizer, Tokens

Array = NDArray[np.float64]

# The largest difference of a probability between torch and the fp32 file that rounding explains, with room
TOLERANCE = 1e-4
EVALUATION_ROWS, BUILT_IN_TEXT = "evaluation rows", "built-in text"
_METRICS = {
    "single_label": "accuracy",
    "multi_label": "mean share of labels right",
    "regression": "Pearson correlation",
    "embedding": "cosine with the reference",
    "masked-lm": "share of hidden words guessed",
    "token-labels": "share of words and signs right",
}
# The least share of labels that agrees with fp32, where nobody says another. Of 30,000 words, two that are as likely
# change places by rounding; most words of a text have the same label in any case
_LEAST_AGREEMENT: dict[str, float] = {"masked-lm": 0.9, "token-labels": 0.99}
_USUAL_AGREEMENT = 0.98
_FEWEST = 3  # rows of a correlation
_TORCH_BATCH = 32


@dataclass(frozen=True)
class Evidence:
    """The texts that are compared, and what is known about them."""

    task: Task
    """what the model answers"""
    labels: tuple[str, ...]
    """in the order of its outputs"""
    thresholds: tuple[float, ...] | None
    """multi-label: least probability of each label"""
    rows: Sequence[EvaluationRow]
    """what is compared"""
    source: str
    """where the rows came from"""

    @property
    def texts(self) -> list[Text]:
        """The rows' texts as the runtime takes them."""
        return [row.as_text for row in self.rows]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which rows have a label, (N,)."""
        return np.array([row.label is not None for row in self.rows], dtype=bool)

    def reference(self, source: Checkpoint, predictor: Any) -> Array:
        """Return the checkpoint's own answers (N, L), computed by torch. Raises what `torch_logits` does."""
        logits = torch_logits(source, self.texts, predictor.tokenizer)
        return np.asarray(predictor.probabilities(logits / source.temperature))

    def answers(self, predictor: Any) -> Array:
        """Return the answers of an exported file (N, L)."""
        return np.asarray(predictor.probabilities(predictor.logits(self.texts)))

    def differences(self, first: Array, second: Array) -> Array:
        """Return how far apart two answers are, number by number, in their shape."""
        return np.abs(first - second)

    def losses(self, answers: Array) -> Array | None:
        """Return the mean cross-entropy of each row, (N,); None for a task that is not verified by it."""
        return None

    def given(self, probabilities: Array) -> NDArray[np.bool_]:
        """Return which labels an answer gives, (N, L)."""
        if self.task == "multi_label":
            return np.asarray(probabilities >= np.array(self.thresholds or (0.5,) * len(self.labels)))
        return np.asarray(np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, None])

    def agreement(self, first: Array, second: Array) -> Array:
        """Return for each row the share of labels on which two answers agree, (N,); of vectors, their cosine."""
        if self.task == "embedding":
            return np.asarray((first * second).sum(axis=1).clip(0.0, 1.0), dtype=float)
        same = self.given(first) == self.given(second)
        return np.asarray(same.all(axis=1) if self.task == "single_label" else same.mean(axis=1), dtype=float)

    def targets(self) -> Array:
        """Return the labelled rows' answers: one-hot or many-hot (N, L), or numbers (N,)."""
        known = [row.label for row in self.rows if row.label is not None]
        if self.task == "regression":
            return np.array(known, dtype=float)
        return np.array([[label in (k if isinstance(k, tuple) else (k,)) for label in self.labels] for k in known])

    def scores(self, probabilities: Array) -> Array:
        """Return how right each labelled row's answer is, 0 to 1, (N,); not for regression."""
        same = self.given(probabilities[self.labelled]) == self.targets()
        return np.asarray(same.all(axis=1) if self.task == "single_label" else same.mean(axis=1), dtype=float)


def torch_logits(checkpoint: Checkpoint, texts: Sequence[Text], tokenizer: Tokenizer) -> Array:
    """Return the checkpoint's own outputs (N, L), its text read by transformers' tokenizer.

    Raises `SqueezeBertError` when the runtime's `tokenizer` reads a text differently: its answers would be others.
    """
    encoded = []
    for text in texts:
        first, second = (text, None) if isinstance(text, str) else text
        encoded.append(read_alike(checkpoint, tokenizer, first, second))
    outputs = np.zeros((len(texts), checkpoint.outputs))
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i].ids))
    for start in range(0, len(order), _TORCH_BATCH):
        batch = order[start : start + _TORCH_BATCH]
        ids, types, mask = torch.zeros((3, len(batch), len(encoded[batch[-1]].ids)), dtype=torch.long)
        for row, i in enumerate(batch):
            length = len(encoded[i].ids)
            ids[row, :length] = torch.tensor(encoded[i].ids)
            types[row, :length] = torch.tensor(encoded[i].types)
            mask[row, :length] = 1
        outputs[batch] = checkpoint.answer(ids, mask, types).double().numpy()
    return outputs


def read_alike(checkpoint: Checkpoint, tokenizer: Tokenizer, first: str, second: str | None = None) -> Tokens:
    """Return a text's tokens. Raises `SqueezeBertError` when the runtime reads others than transformers does."""
    # As lists of one: alone, an empty second text would count as none
    theirs = checkpoint.tokenizer(
        [_characters(first)],
        None if second is None else [_characters(second)],
        truncation=True,
        max_length=checkpoint.max_length,
        return_token_type_ids=checkpoint.token_types,
    )
    ours = tokenizer.encode(first, second)
    same_types = not checkpoint.token_types or theirs["token_type_ids"][0] == ours.types
    if theirs["input_ids"][0] != ours.ids or not same_types:
        raise SqueezeBertError(
            f"the runtime reads {first[:60]!r} as other tokens than transformers does; a tokenizer that truncates "
            "or pads on the left, or adds tokens in code, cannot be exported"
        )
    return ours


def verify_fp32(evidence: Evidence, reference: Array, answers: Array) -> Verification:
    """Compare the fp32 file with torch, both (N, L) probabilities (values, in regression).

    Refused above a difference of 1e-4, or where a label differs that is no tie within it.
    """
    found = _measure(evidence, reference, answers, reference)
    difference = evidence.differences(reference, answers)
    scale = np.maximum(1.0, np.abs(reference))
    if not np.isfinite(answers).all() or not np.isfinite(reference).all():
        return replace(found, refused="an output is NaN or infinite")
    if (difference > TOLERANCE * scale).any():
        return replace(found, refused=f"an output differs from torch's by {found.max_difference:.2g}")
    return found


def verify_int8(
    evidence: Evidence, reference: Array, fp32: Array, answers: Array, options: ExportOptions
) -> Verification:
    """Compare the int8 file with the fp32 one, all (N, L), and say whether it may stand in for it.

    Refused when the paired 95 % interval of the accuracy lost lies wholly above `max_accuracy_drop`, or when a smaller
    share of labels than `min_agreement` agrees with fp32. Single-label: accuracy is the share of rows right.
    Multi-label: the mean over rows of the share of labels right, or agreeing. Regression: accuracy is Pearson's r
    with the targets, lost points are its loss x 100, and agreement is Pearson's r between the two outputs. Masked-lm
    and token-labels: the mean over rows of the share of hidden words that are the likeliest, of words with the right
    label, and of those that agree; of hidden words the loss is told beside them.
    On built-in text, which is few and not the model's own, agreement must be certainly too small.
    """
    found = _measure(evidence, fp32, answers, reference)
    if not np.isfinite(answers).all():
        return replace(found, refused="an output is NaN or infinite")
    reasons: list[str] = []
    warnings: list[str] = []
    least = options.min_agreement
    least = _LEAST_AGREEMENT.get(evidence.task, _USUAL_AGREEMENT) if least is None else least
    if evidence.task == "regression" and not _can_correlate(fp32):
        warnings.append(
            f"agreement with fp32 not checked: {found.rows} {found.source} give no correlation; give more, and "
            "different ones"
        )
    elif found.agreement < least:
        if evidence.task == "embedding":
            shortfall = f"a mean cosine of {found.agreement:.4f} with fp32 on {found.rows} {found.source}"
            shortfall += f", below {least:.3f}"
        elif evidence.task == "regression":
            shortfall = f"a correlation of {found.agreement:.3f} with fp32 on {found.rows} {found.source}"
            shortfall += f", below {least:.3f}"
        else:
            shortfall = f"{found.agreement:.1%} agreement with fp32 on {found.rows} {found.source}"
            shortfall += f", below {least:.1%}"
        certain = evidence.source == EVALUATION_ROWS or (
            evidence.task != "regression" and mean_interval(evidence.agreement(fp32, answers)).high < least
        )
        (reasons if certain else warnings).append(shortfall)
    before, after = evidence.losses(fp32), evidence.losses(answers)
    if found.loss is not None and before is not None and after is not None:
        rise = paired_interval(after, before)
        found = replace(found, loss_rise=rise.estimate, loss_rise_interval=(rise.low, rise.high))
    drop = _drop(evidence, fp32, answers) if found.accuracy is not None else None
    if drop is not None:
        found = replace(found, drop=drop.estimate, drop_interval=(drop.low, drop.high))
        span = f"{drop.low:+.2f} to {drop.high:+.2f} points (95 %, {drop.rows} rows)"
        if drop.low > options.max_accuracy_drop:
            reasons.append(f"it loses {span} of {found.metric}, more than {options.max_accuracy_drop:g}")
        elif drop.high > options.max_accuracy_drop:
            needed = rows_to_decide(_unscaled(drop), options.max_accuracy_drop / 100)
            advice = (
                f"about {float(f'{needed:.2g}'):,.0f} rows would decide it"
                if needed
                else "no number of rows would decide it"
            )
            warnings.append(
                f"int8 loses {span} of {found.metric}: whether that is more than {options.max_accuracy_drop:g} "
                f"is open; at these rates {advice}"
            )
    return replace(found, refused="; ".join(reasons) or None, warnings=tuple(warnings))


def _measure(evidence: Evidence, compared: Array, answers: Array, torch_answers: Array) -> Verification:
    """Return differences, agreement and accuracy of `answers`, without a judgement."""
    found = Verification(
        rows=len(evidence.rows),
        source=evidence.source,
        max_difference=float(evidence.differences(torch_answers, answers).max()),
        agreement=0.0,
        metric=_METRICS[evidence.task],
    )
    if not np.isfinite(answers).all() or not np.isfinite(compared).all():
        return replace(found, max_difference=-1.0, reason="accuracy not checked: an output is NaN or infinite")
    regression = evidence.task == "regression"
    if regression and not _can_correlate(compared):
        agreement = float(np.allclose(compared, answers, rtol=TOLERANCE, atol=TOLERANCE))
    elif regression:
        agreement = pearson(compared[:, 0], answers[:, 0])
    else:
        agreement = float(evidence.agreement(compared, answers).mean())
    found = replace(found, agreement=agreement)
    labelled = evidence.labelled
    if evidence.source != EVALUATION_ROWS or not labelled.any():
        missing = "no evaluation rows" if evidence.source != EVALUATION_ROWS else "no evaluation row has a label"
        return replace(found, reason=f"accuracy not checked: {missing}")
    try:
        accuracy = (
            correlation_interval(evidence.targets(), answers[labelled, 0])
            if regression
            else mean_interval(evidence.scores(answers))
        )
    except ValueError as error:
        return replace(found, reason=f"accuracy not checked: {error}")
    losses = evidence.losses(answers)
    found = replace(found, loss=None if losses is None else float(losses.mean()))
    return replace(found, accuracy=accuracy.estimate, accuracy_interval=(accuracy.low, accuracy.high))


def _can_correlate(answers: Array) -> bool:
    """Whether others could correlate with these answers (N, 1): of two rows the correlation is always 1 or -1."""
    return len(answers) >= _FEWEST and bool(np.ptp(answers) > 0)


def _drop(evidence: Evidence, fp32: Array, int8: Array) -> Interval | None:
    """Return the accuracy lost from fp32 to int8, in points; None where there is no correlation to lose."""
    if evidence.task != "regression":
        return _scaled(paired_interval(evidence.scores(fp32), evidence.scores(int8)))
    labelled = evidence.labelled
    try:
        return _scaled(paired_correlation_interval(evidence.targets(), fp32[labelled, 0], int8[labelled, 0]))
    except ValueError:
        return None


def _scaled(interval: Interval, by: float = 100.0) -> Interval:
    return replace(interval, estimate=interval.estimate * by, low=interval.low * by, high=interval.high * by)


def _unscaled(interval: Interval) -> Interval:
    return _scaled(interval, 1 / 100)


def _characters(text: str) -> str:
    """Return `text` with halves of surrogate pairs replaced, which transformers' tokenizers refuse."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
