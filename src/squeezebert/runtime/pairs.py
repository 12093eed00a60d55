"""How alike two texts are, by an encoder's cosine or a classifier of pairs, and from what on they count as copies.

Serves `pairs` and `copies`; it needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.errors import OptionError
from squeezebert.files.settings import read_settings, write_settings
from squeezebert.runtime.copies import DEFAULT_THRESHOLD, normal_form
from squeezebert.runtime.predictor import Predictor

Array = NDArray[np.float64]
Measure = Literal["cosine", "probability", "value"]

FORMAT = 1
# Usual names of the label that says that two texts mean the same
POSITIVE = ("1", "true", "yes", "duplicate", "paraphrase", "equivalent", "copy", "same")


@dataclass(frozen=True)
class CopyRule:
    """From which score on two texts count as copies."""

    threshold: float
    """the least score"""
    measure: Measure = "cosine"
    """what a score is: a cosine, the probability of the label `positive`, or the number a model gives"""
    positive: str | None = None
    """the label that says that two texts mean the same, of a classifier"""
    model: str | None = None
    """`Predictor.digest` of the model that the threshold was chosen for; None for any"""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """on which rows it was chosen, and what it reaches on them"""


class PairScorer:
    """A model that says how alike two texts are."""

    def __init__(self, model: Predictor, positive: str | None = None) -> None:
        """Take an encoder, or a classifier or regression of pairs.

        `positive` is the classifier's label for two texts that mean the same, found by its name when not given.
        Raises `OptionError` for a model of single texts or several labels, and where no label or many could be it.
        """
        self.model = model
        self.positive: str | None = None
        self.measure: Measure = "cosine"
        if model.task == "embedding":
            return
        if model.manifest.pair is False or model.task == "multi_label":
            kind = "gives any number of labels" if model.task == "multi_label" else "reads single texts"
            raise OptionError(f"{model.folder}: pairs need an encoder or a model of pairs, and this one {kind}")
        self.measure = "value"
        if model.task == "single_label":
            self.measure, self.positive = "probability", _positive(model, positive)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> Array:
        """Return how alike the texts of each pair are, (N,), in terms of `measure`."""
        if self.measure == "cosine":
            texts = list(dict.fromkeys(text for pair in pairs for text in pair))
            place = {text: i for i, text in enumerate(texts)}
            vectors = self.model.encode(texts).astype(np.float64)
            first, second = (vectors[[place[pair[side]] for pair in pairs]] for side in (0, 1))
            return np.asarray(np.clip((first * second).sum(1), -1.0, 1.0))  # vectors of length 1 but for rounding
        answers = self.model.predict(list(pairs))
        if self.measure == "value":
            return np.array([answer.value for answer in answers], np.float64)
        return np.array([answer.probabilities[self.positive or ""] for answer in answers], np.float64)

    def rule(self, threshold: float | None = None) -> CopyRule:
        """Return the rule for a threshold; without one, the default of the measure. Raises `OptionError` for none."""
        if threshold is None and self.measure == "value":
            raise OptionError(
                f"{self.model.folder}: this model gives numbers: say from which on texts are copies, --threshold"
            )
        default = DEFAULT_THRESHOLD if self.measure == "cosine" else 0.5
        return CopyRule(default if threshold is None else threshold, self.measure, self.positive, self.model.digest)

    def check(self, rule: CopyRule) -> None:
        """Raise `OptionError` where a rule was chosen for another model or another label."""
        if rule.model is not None and rule.model != self.model.digest:
            raise OptionError(
                f"the threshold was chosen for another model file ({rule.model[:12]}, this is "
                f"{self.model.digest[:12]}): choose it again with `squeezebert pairs choose`"
            )
        if (rule.measure, rule.positive) != (self.measure, self.positive):
            raise OptionError(
                f"the threshold is of {_named(rule.measure, rule.positive)}, and this model gives "
                f"{_named(self.measure, self.positive)}: choose it again with `squeezebert pairs choose`"
            )


def exact_copies(first: str, second: str) -> bool:
    """Whether two texts are the same but for case, white space and forms of characters; no model is needed."""
    return normal_form(first) == normal_form(second)


def read_rule(path: Path) -> CopyRule:
    """Read a rule's file. Raises `OptionError` that names file, field and what is expected."""
    told = read_settings(path, "rule")
    if not isinstance(told, dict) or "threshold" not in told:
        raise OptionError(f"{path}: a rule has a line `threshold: 0.9`; `squeezebert pairs choose` writes one")
    if told.get("format", FORMAT) != FORMAT:
        raise OptionError(f"{path}: format {told['format']}, and this squeezebert reads {FORMAT}: update squeezebert")
    unknown = sorted(map(str, set(told) - {"format", *CopyRule.__dataclass_fields__}))
    if unknown:
        raise OptionError(f"{path}: {unknown[0]} is none of {', '.join(CopyRule.__dataclass_fields__)}")
    threshold, measure = told["threshold"], told.get("measure", "cosine")
    if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not np.isfinite(threshold):
        raise OptionError(f"{path}: threshold: {threshold!r}: expected a number")
    if measure not in ("cosine", "probability", "value"):
        raise OptionError(f"{path}: measure: {measure!r}: expected cosine, probability or value")
    kinds = (("positive", str, "a label"), ("model", str, "a checksum"), ("chosen", dict, "notes"))
    for name, kind, expected in kinds:
        if told.get(name) is not None and not isinstance(told[name], kind):
            raise OptionError(f"{path}: {name}: {told[name]!r}: expected {expected}")
    return CopyRule(float(threshold), measure, told.get("positive"), told.get("model"), told.get("chosen") or {})


def write_rule(path: Path, rule: CopyRule) -> None:
    """Write a rule's file, at once or not at all. Raises `OptionError` where it cannot be written."""
    told = {"format": FORMAT, **{name: getattr(rule, name) for name in CopyRule.__dataclass_fields__}}
    write_settings(path, {name: value for name, value in told.items() if value is not None and value != {}})


def _positive(model: Predictor, wanted: str | None) -> str:
    known = ", ".join(model.labels)
    if wanted is not None:
        if wanted not in model.labels:
            raise OptionError(f"--positive {wanted}: the model does not know it; it knows {known}")
        return wanted
    found = [label for label in model.labels if label.lower() in POSITIVE]
    if len(found) != 1:
        raise OptionError(f"--positive: say which label means that two texts are copies; the model knows {known}")
    return found[0]


def _named(measure: Measure, positive: str | None) -> str:
    return {"cosine": "cosines", "value": "numbers", "probability": f"probabilities of {positive}"}[measure]
