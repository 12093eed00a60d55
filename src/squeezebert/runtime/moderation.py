"""A classifier and a policy in, a decision about each post out: allow, review or block, with its reasons.

It needs no torch. A policy is a YAML file; `squeezebert policy` writes one, its thresholds chosen on labelled rows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from squeezebert.files.errors import OptionError
from squeezebert.files.settings import read_settings, write_settings
from squeezebert.runtime.disguise import undisguised
from squeezebert.runtime.predictor import Prediction, Predictor
from squeezebert.runtime.summary import sentence_spans
from squeezebert.runtime.tokens import TextError

FORMAT = 1
# A line, white space around it left out
_LINE = re.compile(r"\S(?:[^\n]*\S)?")
OUTCOMES = ("allow", "review", "block")

Outcome = Literal["allow", "review", "block"]
Reading = Literal["as written", "undisguised"]


class Highest(NamedTuple):
    """The highest probability of a label, and what has it."""

    probability: float
    """of all windows, sentences and readings"""
    start: int
    """where the window or sentence starts, in characters of the reading"""
    words: str
    """the window or sentence"""
    reading: Reading
    """which reading of the post it stands in"""


class Readings(NamedTuple):
    """What a model says of a post."""

    highest: dict[str, Highest]
    """label -> its highest probability of all windows, sentences and readings; empty for a post that was not read"""
    whole: dict[str, Highest]
    """the same of the windows alone, without sentences by themselves"""
    windows: int
    """windows and sentences that were read"""


@dataclass(frozen=True)
class Rule:
    """From which probability on a label makes a post be reviewed, and from which on it is blocked."""

    review: float | None = None
    """least probability for review; None: never by this label"""
    block: float | None = None
    """least probability to block; None: never by this label"""


@dataclass(frozen=True)
class Policy:
    """What is done about which label."""

    labels: Mapping[str, Rule]
    """label -> rule; other labels decide nothing"""
    disguises: bool = True
    """whether a text is also read with its disguises undone, and the worse reading counts"""
    longest: int = 100_000
    """characters of a post, as written and with its disguises undone; a longer one is not read, and goes to review"""
    model: str | None = None
    """`Predictor.digest` of the model that the thresholds were chosen for; None for any"""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """how the thresholds were chosen and what they reached, for people"""
    sentences: bool = True
    """whether each sentence and line of a text is also read by itself, and the worst counts"""

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as its file has it."""
        rules = {
            label: {name: value for name in ("review", "block") if (value := getattr(rule, name)) is not None}
            for label, rule in self.labels.items()
        }
        told: dict[str, Any] = {"format": FORMAT, "labels": rules}
        told |= {name: getattr(self, name) for name in ("disguises", "sentences", "longest", "model")}
        return told | ({"chosen": dict(self.chosen)} if self.chosen else {})

    @property
    def digest(self) -> str:
        """A hash of what decides: audit lines name it."""
        told = {name: value for name, value in self.to_dict().items() if name != "chosen"}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Reason:
    """What made a decision."""

    outcome: Outcome
    """review or block"""
    label: str | None
    """the label that reached its threshold; None for a post that was too long to be read"""
    probability: float | None
    """of the label, the highest of all windows, sentences and readings"""
    threshold: float | None
    """what it reached"""
    start: int
    """where the window or sentence with that probability starts, in characters of the reading"""
    end: int
    """and where it ends"""
    reading: Reading
    """which reading of the post it was found in; places of an undisguised one are not the post's"""
    words: str | None
    """the window or sentence as it was read; None for a post that was too long to be read"""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with a post."""

    outcome: Outcome
    """allow, review or block"""
    reasons: tuple[Reason, ...]
    """what made it, the gravest first; none for allow"""
    probabilities: dict[str, float]
    """label -> highest probability of all windows, sentences and readings; empty for a post that was not read"""
    windows: int
    """windows and sentences that were read, of all readings"""
    text: str
    """SHA-256 of the post in UTF-8"""

    def to_dict(self, words: bool = False) -> dict[str, Any]:
        """Return the decision as plain JSON values; with `words`, those that made it, and else nothing of the text."""
        names = [name for name in Reason.__dataclass_fields__ if words or name != "words"]
        reasons = [{name: getattr(reason, name) for name in names} for reason in self.reasons]
        return {
            "outcome": self.outcome,
            "reasons": reasons,
            "probabilities": self.probabilities,
            "windows": self.windows,
            "text_sha256": self.text,
        }


class Moderator:
    """A model and a policy at work. Safe to share between threads."""

    def __init__(self, model: Predictor, policy: Policy, overlap: int = 16) -> None:
        """Take an exported classifier of single texts; windows of long posts share `overlap` tokens.

        Raises `OptionError` for a model without labels or of pairs, and a policy of other labels or another model.
        """
        if not model.labels or model.manifest.pair or model.task == "token-labels":
            kind = (
                "pairs of texts"
                if model.manifest.pair
                else {"regression": "a number", "embedding": "vectors"}.get(model.task, "words")
            )
            raise OptionError(f"{model.folder}: moderation needs a classifier of single texts, and this is of {kind}")
        unknown = [label for label in policy.labels if label not in model.labels]
        if unknown:
            raise OptionError(
                f"the policy has rules for {', '.join(unknown)}, and the model knows {', '.join(model.labels)}"
            )
        own = model.digest
        if policy.model is not None and policy.model != own:
            raise OptionError(
                f"the policy's thresholds were chosen for another model file ({policy.model[:12]}, this is "
                f"{own[:12]}): choose them again with `squeezebert policy`, or take its line `model` out to use them"
            )
        self.model, self.policy, self.overlap = model, policy, overlap

    def decide(self, text: str) -> Decision:
        """Return what is done with a post, all of which is read. Raises `TextError` for what is no str."""
        if not isinstance(text, str):
            raise TextError(f"expected a str, not {type(text).__name__}")
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        readings = self._readings(text)
        for reading, words in readings:
            if len(words) > self.policy.longest:
                reason = Reason("review", None, None, None, 0, len(words), reading, None)
                return Decision("review", (reason,), {}, 0, digest)
        highest, _, windows = self._read(readings)
        reasons = []
        for label, rule in self.policy.labels.items():
            probability, start, words, reading = highest[label]
            for outcome, threshold in (("block", rule.block), ("review", rule.review)):
                if threshold is not None and probability >= threshold:
                    place = start, start + len(words), reading, words
                    reasons.append(Reason(cast(Outcome, outcome), label, probability, threshold, *place))
                    break
        reasons.sort(key=lambda reason: (-OUTCOMES.index(reason.outcome), -(reason.probability or 0.0)))
        outcome = reasons[0].outcome if reasons else "allow"
        probabilities = {label: found.probability for label, found in highest.items()}
        return Decision(outcome, tuple(reasons), probabilities, windows, digest)

    def read(self, text: str) -> Readings:
        """Return each label's highest probability with its place and reading; a post that is too long has none."""
        readings = self._readings(text)
        if any(len(words) > self.policy.longest for _, words in readings):
            return Readings({}, {}, 0)
        return self._read(readings)

    def _readings(self, text: str) -> list[tuple[Reading, str]]:
        """The text as written and with its disguises undone, where that is another."""
        readings: list[tuple[Reading, str]] = [("as written", text)]
        if self.policy.disguises and len(text) <= self.policy.longest:
            longest, part = self.policy.longest, self.model.tokenizer.separate_unknown
            found = undisguised(text, longest)
            plain = dict.fromkeys(words if len(words) > longest else part(words) for words in found)
            readings += [("undisguised", words) for words in plain if words != text]
        return readings

    def _read(self, readings: Sequence[tuple[Reading, str]]) -> Readings:
        highest: dict[str, Highest] = {}
        windows = 0

        def note(answer: Prediction, start: int, words: str, reading: Reading) -> None:
            nonlocal windows
            windows += 1
            for label, probability in answer.probabilities.items():
                if label not in highest or probability > highest[label].probability:
                    highest[label] = Highest(probability, start, words, reading)

        # Each once: most sentences are the same in all readings
        sentences: dict[str, tuple[int, Reading]] = {}
        for reading, words in readings:
            for start, end, answer in self.model.predict_windows(words, self.overlap):
                note(answer, start, words[start:end], reading)
            for start, end in _parts(words) if self.policy.sentences else ():
                sentences.setdefault(words[start:end], (start, reading))
        whole = dict(highest)
        for _, words in readings:
            sentences.pop(words, None)
        for (sentence, (start, reading)), answer in zip(
            sentences.items(), self.model.predict(list(sentences)), strict=True
        ):
            if not answer.truncated:
                note(answer, start, sentence, reading)
                continue
            for first, last, part in self.model.predict_windows(sentence, self.overlap):
                note(part, start + first, sentence[first:last], reading)
        return Readings(highest, whole, windows)


def _parts(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a text and their lines start and end; none for a text of one."""
    parts = []
    for start, end in sentence_spans(text):
        parts.append((start, end))
        lines = [found.span() for found in _LINE.finditer(text, start, end)]
        parts += lines if len(lines) > 1 else []
    return parts if len(parts) > 1 else []


def read_policy(path: Path) -> Policy:
    """Read a policy's file. Raises `OptionError` that names file, field and what is expected."""
    told = read_settings(path, "policy")
    if not isinstance(told, dict) or not isinstance(told.get("labels"), dict) or not told["labels"]:
        raise OptionError(f"{path}: a policy has `labels:` with a rule each, as `toxic: {{review: 0.3, block: 0.9}}`")
    if told.get("format", FORMAT) != FORMAT:
        raise OptionError(f"{path}: format {told['format']}, and this squeezebert reads {FORMAT}: update squeezebert")
    unknown = sorted(map(str, set(told) - {"format", *Policy.__dataclass_fields__}))
    if unknown:
        raise OptionError(f"{path}: {unknown[0]} is none of {', '.join(Policy.__dataclass_fields__)}")
    rules = {str(label): _rule(path, label, rule) for label, rule in told["labels"].items()}
    values: dict[str, Any] = {}
    kinds: tuple[tuple[str, type, str], ...] = (
        ("disguises", bool, "true or false"),
        ("sentences", bool, "true or false"),
        ("longest", int, "a whole number of characters"),
        ("model", str, "a checksum"),
        ("chosen", dict, "notes"),
    )
    for name, kind, expected in kinds:
        value = told.get(name)
        if value is None:
            continue
        if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or cast(int, value) < 1)):
            raise OptionError(f"{path}: {name}: {value!r}: expected {expected}")
        values[name] = value
    return Policy(rules, **values)


def write_policy(path: Path, policy: Policy) -> None:
    """Write a policy's file, at once or not at all. Raises `OptionError` where it cannot be written."""
    write_settings(path, policy.to_dict())


def _rule(path: Path, label: object, told: object) -> Rule:
    if not isinstance(told, dict) or not told or not set(told) <= {"review", "block"}:
        raise OptionError(f"{path}: {label}: {told!r}: expected thresholds, as {{review: 0.3, block: 0.9}}")
    for name, value in told.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise OptionError(f"{path}: {label}: {name}: {value!r}: expected a probability from 0 to 1")
    rule = Rule(told.get("review"), told.get("block"))
    if rule.review is not None and rule.block is not None and rule.review > rule.block:
        raise OptionError(f"{path}: {label}: review {rule.review:g} lies above block {rule.block:g}: exchange them")
    return rule
