"""What became of the rows of a data set: counts, leaks and conflicts, for people and for a JSON file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from squeezebert.data.options import Task
from squeezebert.data.reading import Example
from squeezebert.files.errors import TableError
from squeezebert.files.tables import RowError

SHOWN = 3
"""So many places are named for each finding; the rest is counted."""


@dataclass(frozen=True)
class DataReport:
    """Every row read is used or counted as skipped: rows_read = train_rows + evaluation_rows + skipped."""

    train_from: str
    """File, folder or dataset of the training rows."""
    evaluation_from: str
    """Where the evaluation rows come from: a table, or a share of the training table and the seed."""
    rows_read: int
    """Rows of both tables, the skipped ones included."""
    train_rows: int
    """Rows trained on."""
    evaluation_rows: int
    """Rows evaluated on."""
    skipped: dict[str, int]
    """Reason to number of rows passed over for it."""
    skipped_messages: tuple[str, ...]
    """The first few of the messages of skipped rows, with file and line."""
    train_labels: dict[str, int]
    """Label to number of training rows that have it; empty for regression."""
    evaluation_labels: dict[str, int]
    """Label to number of evaluation rows that have it; empty for regression."""
    duplicates_in_train: int
    """Training rows whose text (and pair) an earlier training row has."""
    conflicts_in_train: int
    """Distinct training texts that occur with different labels."""
    evaluation_texts_in_train: int
    """Evaluation rows whose text (and pair) is also trained on; they flatter the figures."""
    leaks: tuple[tuple[str, str], ...]
    """Up to three such pairs of places, training row first, each as file:line."""
    warnings: tuple[str, ...]
    """Findings the user should see, one sentence each."""

    def to_dict(self) -> dict[str, object]:
        """The report as what JSON can hold."""
        return asdict(self) | {
            "skipped_messages": list(self.skipped_messages),
            "leaks": [list(pair) for pair in self.leaks],
            "warnings": list(self.warnings),
        }


@dataclass
class Skips:
    """Collects what a reader passes over; hand it to `read_rows` as `on_skip`."""

    reasons: Counter[str] = field(default_factory=Counter)
    """Reason to number of rows."""
    messages: list[str] = field(default_factory=list)
    """Messages of the first skipped rows."""
    strays: list[str] = field(default_factory=list)
    """Messages of files that belong to no label."""

    def __call__(self, error: TableError) -> None:
        """Note one bad row or stray file."""
        if isinstance(error, RowError):
            self.reasons[error.reason] += 1
            if len(self.messages) < 5:
                self.messages.append(str(error))
        else:
            self.strays.append(str(error))


def report_on(
    train: Sequence[Example],
    evaluation: Sequence[Example],
    task: Task,
    labels: Sequence[str],
    skips: Skips,
    *,
    train_from: str,
    evaluation_from: str,
    warnings: Sequence[str],
) -> DataReport:
    """Count and compare training and evaluation rows."""
    by_text: dict[tuple[str, str | None], list[Example]] = {}
    for example in train:
        by_text.setdefault((example.text, example.text_pair), []).append(example)
    conflicts = [group for group in by_text.values() if len({example.label for example in group}) > 1]
    leaks = [
        (by_text[example.text, example.text_pair][0].place, example.place)
        for example in evaluation
        if (example.text, example.text_pair) in by_text
    ]
    train_labels, evaluation_labels = (
        _label_counts(train, task, labels),
        _label_counts(evaluation, task, labels),
    )
    skipped = dict(sorted(skips.reasons.items()))
    found = list(warnings)
    if skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        found.append(f"{_count(sum(skipped.values()), 'row')} skipped ({counts}), the first: {skips.messages[0]}")
    if skips.strays:
        strays = _count(len(skips.strays), "file or folder", "files or folders")
        found.append(f"{strays} not read, the first: {skips.strays[0]}")
    if leaks:
        places = ", ".join(f"{there} = {here}" for there, here in leaks[:SHOWN])
        rows = _count(len(leaks), "evaluation row has", "evaluation rows have")
        found.append(f"{rows} a text that is also trained on: {places}")
    if conflicts:
        places = "; ".join(_conflict(group) for group in conflicts[:SHOWN])
        texts = _count(len(conflicts), "training text occurs", "training texts occur")
        found.append(f"{texts} with different labels: {places}")
    for side, counts_of in (("training", train_labels), ("evaluation", evaluation_labels)):
        none = [label for label, count in counts_of.items() if not count]
        if none:
            listed = ", ".join(repr(label) for label in none[:SHOWN]) + (", ..." if len(none) > SHOWN else "")
            found.append(f"{_count(len(none), 'label is', 'labels are')} on no {side} row: {listed}")
    return DataReport(
        train_from=train_from,
        evaluation_from=evaluation_from,
        rows_read=len(train) + len(evaluation) + sum(skipped.values()),
        train_rows=len(train),
        evaluation_rows=len(evaluation),
        skipped=skipped,
        skipped_messages=tuple(skips.messages),
        train_labels=train_labels,
        evaluation_labels=evaluation_labels,
        duplicates_in_train=len(train) - len(by_text),
        conflicts_in_train=len(conflicts),
        evaluation_texts_in_train=len(leaks),
        leaks=tuple(leaks[:SHOWN]),
        warnings=tuple(found),
    )


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _label_counts(examples: Sequence[Example], task: Task, labels: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(labels, 0)
    if task != "regression":
        for example in examples:
            for name in example.names:
                counts[name] += 1
    return counts


def _conflict(group: Sequence[Example]) -> str:
    other = next(example for example in group if example.label != group[0].label)
    return f"{group[0].place} ({group[0].label!r}) and {other.place} ({other.label!r})"
