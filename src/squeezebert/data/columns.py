"""Column names of a table and the user's options in, the columns of text, pair and label out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from squeezebert.data.options import DataOptions
from squeezebert.files.errors import TableError

TEXT_NAMES = frozenset(
    [
        "text",
        "sentence",
        "message",
        "content",
        "body",
        "review",
        "comment",
        "post",
        "document",
        "utterance",
        "query",
        "question",
        "tweet",
        "headline",
        "description",
        "input",
    ]
)
"""Usual names of a column of text, in lower case."""

PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("text", "text_pair"),
)
"""Usual names of two columns that belong together."""

LABEL_NAMES = frozenset(
    [
        "label",
        "labels",
        "category",
        "class",
        "folder",
        "target",
        "intent",
        "topic",
        "score",
        "rating",
        "sentiment",
        "is_duplicate",
        "gold_label",
        "emotion",
        "stars",
    ]
)
"""Usual names of a column of labels, in lower case."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table that are used."""

    text: str
    """Column of the text."""
    text_pair: str | None = None
    """Column of the second text, if the task is on pairs."""
    labels: tuple[str, ...] = ()
    """Column of the label, several 0/1 columns, or none for a table that is only to be read."""

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are used."""
        pair = () if self.text_pair is None else (self.text_pair,)
        return (self.text, *pair, *self.labels)


def find_columns(names: Sequence[str], options: DataOptions, source: str, *, labelled: bool = True) -> Columns:
    """Choose columns: those the options name, otherwise those with a usual name (in any case).

    With `labelled=False` the label column is left out, and may be missing. A table with one column left
    beside its labels has its text there, whatever its name.

    Raises:
        TableError: a named column is not there, none has a usual name, or several have.
    """
    names = [str(name) for name in names]
    labels = _named_labels(options.label, names, source) if labelled or _all_there(options.label, names) else ()
    text = _named("--text", options.text, names, source)
    pair = _named("--text-pair", options.text_pair, names, source)
    if not labels:
        free = [name for name in names if name not in (text, pair)]
        found = [name for name in free if name.lower() in LABEL_NAMES]
        if labelled:
            found = [_only(found, "label", "--label", names, source)]
        labels = tuple(found)
    if text is None:
        # a column without a name is the index of a pandas frame
        text, pair = _find_text([name for name in names if name and name not in labels], pair, names, source)
    used = [name for name in (text, pair, *labels) if name is not None]
    twice = next((name for name in used if used.count(name) > 1), None)
    if twice is not None:
        raise TableError(f"{source}: column {twice!r} is used twice; check --text, --text-pair and --label")
    return Columns(text, pair, labels if labelled else ())


def require_columns(columns: Columns, names: Iterable[str], source: str) -> None:
    """Check that a further table has the columns chosen for the first.

    Raises:
        TableError: one is missing; names it and the columns there are.
    """
    there = list(names)
    for name in columns.names:
        if name not in there:
            columns_there = f"its columns are {_listed(there)}"
            raise TableError(f"{source}: no column {name!r}, which the training rows have; {columns_there}")


def _find_text(free: list[str], pair: str | None, names: Sequence[str], source: str) -> tuple[str, str | None]:
    by_lower: dict[str, list[str]] = {}
    for name in free:
        by_lower.setdefault(name.lower(), []).append(name)
    for first, second in PAIR_NAMES:
        firsts, seconds = by_lower.get(first, []), by_lower.get(second, [])
        if len(firsts) == len(seconds) == 1 and pair in (None, seconds[0]):
            members = firsts + seconds
            others = [name for name in free if name.lower() in TEXT_NAMES and name not in members]
            if others:
                _only(members + others, "text", "--text", names, source)
            return firsts[0], seconds[0]
    free = [name for name in free if name != pair]
    found = [name for name in free if name.lower() in TEXT_NAMES]
    if not found and len(free) == 1:
        _check_name(free[0], source)
        found = free
    return _only(found, "text", "--text", names, source), pair


def _check_name(name: str, source: str) -> None:
    """Raise `TableError` for the name of an only column that reads like a text: line 1 is not to be lost unseen."""
    if _reads_like_text(name):
        raise TableError(
            f"{source}: the only column that may be the text is named {_listed([name])}, which reads like a text. If "
            "line 1 is data, put a header line before it (text); if it is the name, repeat it with --text"
        )


def _reads_like_text(name: str) -> bool:
    return len(name) > 40 or len(name.split()) > 3 or name.endswith((".", "!", "?"))


def _named_labels(label: str | None, names: Sequence[str], source: str) -> tuple[str, ...]:
    if label is None:
        return ()
    if label in names:  # a column name may have a comma in it
        return (label,)
    parts = [part.strip() for part in label.split(",")]
    return tuple(name for part in parts if (name := _named("--label", part, names, source)) is not None)


def _all_there(label: str | None, names: Sequence[str]) -> bool:
    return label is not None and (label in names or all(part.strip() in names for part in label.split(",")))


def _named(option: str, name: str | None, names: Sequence[str], source: str) -> str | None:
    if name is None or name in names:
        return name
    lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    meant = f"; did you mean {lower[close[0]]!r}?" if close else ""
    raise TableError(f"{source}: no column {name!r} ({option}); the columns are {_listed(names)}{meant}")


def _only(found: Sequence[str], what: str, option: str, names: Sequence[str], source: str) -> str:
    if len(found) == 1:
        return found[0]
    if found:
        raise TableError(
            f"{source}: several columns may be the {what}: {_listed(found)}; name the one with {option} "
            f"(the columns are {_listed(names)})"
        )
    looks_like_data = any(_reads_like_text(name) or name.replace(".", "", 1).isdigit() for name in names)
    hint = "; if line 1 is data, put a header line before it, e.g. text,label" if looks_like_data else ""
    raise TableError(
        f"{source}: no column has a usual name for the {what}; name it with {option} "
        f"(the columns are {_listed(names)}){hint}"
    )


def _listed(names: Iterable[str]) -> str:
    shown = [name if len(name) <= 40 else name[:37] + "..." for name in names]
    return ", ".join(repr(name) for name in shown)
