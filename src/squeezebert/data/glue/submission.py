"""Answers to the test rows in; the leaderboard's zip out, checked.

Serves `squeezebert glue submit`. A file a table: a line `index<TAB>prediction`, then one a row, in the rows' order.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from squeezebert.data.glue.tasks import GLUE, GlueSplit, GlueTask
from squeezebert.data.labels import natural_order
from squeezebert.files.errors import FolderError

FILES: dict[str, tuple[GlueTask, GlueSplit]] = {
    split.submission: (task, split) for task in GLUE.values() for split in task.test
}
"""The files of a complete submission, and what each answers."""
_HEADER = "index\tprediction"
_LOW, _HIGH = 0.0, 5.0
_NUMBER = re.compile(r"\d+(\.\d+)?")
# A fixed time of writing makes the zip of the same answers the same bytes
_TIME = (1980, 1, 1, 0, 0, 0)


def write_submission(path: Path, answers: Mapping[str, np.ndarray], rows: Mapping[str, int] | None = None) -> None:
    """Write the zip of `answers`: for a file's name, a score of each label (N, L), or numbers (N,).

    Labels are in their natural order; `rows` is that of `read_submission`, which checks what was written. Raises
    `FolderError` when it is not what the leaderboard takes; then nothing is left at `path`.
    """
    part = path.with_name(f".{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in answers.items():
                if not np.isfinite(values).all():
                    raise FolderError(f"{path}: {name} has answers that are no numbers: its run diverged")
                lines = [f"{row}\t{word}" for row, word in enumerate(_spelled(FILES[name][0], values))]
                text = "\n".join([_HEADER, *lines]) + "\n"
                archive.writestr(zipfile.ZipInfo(name, _TIME), text, zipfile.ZIP_DEFLATED)
        _read(part, path, rows)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_submission(path: Path, rows: Mapping[str, int] | None = None) -> dict[str, list[str]]:
    """Return the predictions of each file of a zip, checked: names, header, indices, labels, number of rows.

    `rows` are the numbers of rows to expect, by file; by default the official ones. Raises `FolderError` for the first
    thing that is wrong, naming file and line.
    """
    return _read(path, path, rows)


def _read(part: Path, path: Path, rows: Mapping[str, int] | None) -> dict[str, list[str]]:
    """Read and check `part`, which is or becomes `path`."""
    found: dict[str, list[str]] = {}
    try:
        with zipfile.ZipFile(part) as archive:
            names = archive.namelist()
            if not names or len(set(names)) != len(names):
                raise FolderError(f"{path}: {'the same file twice' if names else 'an empty zip'}")
            for name in names:
                if name not in FILES:
                    raise FolderError(f"{path}: {name} is no file of a submission; those are {', '.join(FILES)}")
                lines = archive.read(name).decode("utf-8").splitlines()
                found[name] = list(_checked(f"{path}: {name}", lines, name))
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise FolderError(f"{path}: no zip that can be read ({error})") from error
    for name, predictions in found.items():
        expected = FILES[name][1].rows if rows is None else rows[name]
        if len(predictions) != expected:
            raise FolderError(f"{path}: {name} has {len(predictions)} rows, and has to have {expected}")
    return found


def _spelled(task: GlueTask, values: np.ndarray) -> Iterator[str]:
    if task.task == "regression":
        # Similarities out of range are the range's ends
        yield from (f"{value:.4f}" for value in np.clip(values.reshape(-1), _LOW, _HIGH))
    else:
        labels = natural_order(task.words)
        yield from (labels[place] for place in values.argmax(-1))


def _checked(place: str, lines: Sequence[str], name: str) -> Iterator[str]:
    task, _ = FILES[name]
    if not lines or lines[0] != _HEADER:
        raise FolderError(f"{place}: has to begin with the line index<TAB>prediction")
    for number, line in enumerate(lines[1:]):
        index, tab, word = line.partition("\t")
        if not tab or index != str(number):
            raise FolderError(f"{place}, line {number + 2}: {line!r}, expected index {number}, a tab and a prediction")
        if task.words and word not in task.words:
            raise FolderError(f"{place}, line {number + 2}: {word!r} is none of {', '.join(task.words)}")
        if not task.words and not _is_similarity(word):
            raise FolderError(f"{place}, line {number + 2}: {word!r} is no number from {_LOW:g} to {_HIGH:g}")
        yield word


def _is_similarity(word: str) -> bool:
    return _NUMBER.fullmatch(word) is not None and _LOW <= float(word) <= _HIGH
