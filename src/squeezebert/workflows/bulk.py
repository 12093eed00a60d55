"""Tables too large for one process in, a folder of answers in parts out, resumable: `predict --engine ray`.

Files are shared out among workers here, without Ray; `workflows.cluster` runs the workers. A part is a number of rows
of one file; it is there whole or not at all, so what a killed run has answered is not answered again.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from squeezebert.data.options import DataOptions
from squeezebert.data.reading import Example, read_examples
from squeezebert.files.errors import EmptyTableError, FolderError, OptionError, TableError
from squeezebert.files.formats import allow_long_cells
from squeezebert.files.lock import only_run
from squeezebert.files.tables import SUFFIXES
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.workflows.job_options import PredictOptions
from squeezebert.workflows.predict import answered, checked, writer

RECORD = "answers.json"
FORMAT = 2
# Options that decide what is in a part
_DECIDING = ("text", "text_pair", "format", "top", "batch_size", "encoding", "skip_bad_rows", "part_rows")


@dataclass(frozen=True)
class Shard:
    """What one worker does in one go: every so-many-th part of a file, all of which it reads."""

    path: str
    """the file, absolute"""
    name: str
    """the file as answers name it"""
    file: int
    """its number among the files"""
    number: int
    """the first of its parts"""
    of: int
    """how many shards the file has, which is the step from part to part"""


@dataclass(frozen=True)
class Done:
    """What came of a shard in this run."""

    answered: int = 0
    """rows answered"""
    kept: int = 0
    """rows of parts that an earlier run had answered"""
    cut: int = 0
    """rows, answered or kept, whose text was cut"""
    skipped: int = 0
    """rows that could not be read; counted by the first shard of a file"""
    first_skipped: str = ""
    """the first of them"""
    empty: int = 0
    """files without a row; counted by the first shard of a file"""
    error: str = ""
    """why it ended early"""

    def __add__(self, other: Done) -> Done:
        return Done(
            self.answered + other.answered,
            self.kept + other.kept,
            self.cut + other.cut,
            self.skipped + other.skipped,
            self.first_skipped or other.first_skipped,
            self.empty + other.empty,
            self.error or other.error,
        )


Run = Callable[[Sequence[Shard], PredictOptions, Path], Iterable[Done]]
"""Answers shards, in any order and any number at a time."""


@dataclass(frozen=True)
class Job:
    """A run that nothing is known to speak against."""

    model: Predictor
    """the model that answers"""
    files: Sequence[Path]
    """the tables whose rows are answered"""
    record: dict[str, Any]
    """what the run is, as its folder will say"""


def prepared(options: PredictOptions) -> Job:
    """Check what can be checked before there are workers, and write nothing.

    Raises `FolderError` for the model and an output folder that is not this run's or finished, `TableError` where
    there is no table, `OptionError` for an output that is no place for a folder.
    """
    if options.output == "-":
        raise OptionError("--output: answers in parts go into a folder: name one")
    output = Path(options.output)
    read = Path(options.file)
    if read.is_dir() and output.resolve().is_relative_to(read.resolve()):
        raise OptionError(f"--output {output}: lies in the folder that is read; name another")
    files = tables(options.file)
    model = load(options.folder, 1, options.precision)
    record = {
        "format": FORMAT,
        "model": model.digest,
        "options": {name: getattr(options, name) for name in _DECIDING},
        "files": [_told(path) for path in files],
        "finished": False,
    }
    with only_run(output):
        _is_begun(output, record)
    return Job(model, files, record)


def predict_in_parts(options: PredictOptions, run: Run, workers: int, job: Job | None = None) -> str:
    """Answer every row of a file or of a folder of them, in parts; return what was done.

    `job` is what `prepared` makes of the options, where that was done before. Raises as it does, `TableError` for the
    tables, `OptionError` for an output that cannot be written, and what `run` raises.
    """
    job = job or prepared(options)
    output, model, files, record = Path(options.output), job.model, job.files, job.record
    with only_run(output):
        _begin(output, record)
        done = Done()
        with _progress(output):
            for one in run(shards(files, workers), options, output):
                if one.error:
                    raise TableError(one.error)
                done += one
        if done.empty == len(files):
            raise TableError(f"{options.file}: empty: no file of it holds a row")
        _write_record(output, record | {"finished": True, "rows": done.answered + done.kept})
    rows = done.answered + done.kept
    of = f"{len(files)} files" if len(files) > 1 else "1 file"
    said = [f"{rows} rows of {of}, answered in {_parts(output)} parts: {output}"]
    if done.kept:
        said.append(f"{done.kept} of them had been answered before")
    if done.empty:
        said.append(f"{done.empty} files hold no rows" if done.empty > 1 else "1 file holds no rows")
    if done.skipped:
        said.append(f"skipped {done.skipped} rows, the first: {done.first_skipped}")
    if done.cut:
        said.append(f"{done.cut} texts were longer than the model's {model.manifest.max_length} tokens and were cut")
    return "\n".join(said)


def tables(source: str) -> list[Path]:
    """Return the tables that a name stands for: a file, or all in a folder but hidden ones, in order of their names.

    Raises `TableError` where there is none, `OptionError` for standard input.
    """
    if source == "-":
        raise OptionError("standard input cannot be shared out among workers: name a file or a folder of them")
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise TableError(f"{source}: no such file or folder")
    every = (one for one in sorted(path.rglob("*")) if one.is_file())
    found = [one for one in every if not any(part.startswith(".") for part in one.relative_to(path).parts)]
    found = [one for one in found if one.name.lower().removesuffix(".gz").endswith(SUFFIXES)]
    if not found:
        raise TableError(f"{source}: no table in it ({', '.join(SUFFIXES)})")
    return found


def shards(files: Sequence[Path], workers: int) -> list[Shard]:
    """Share files out: a file has as many shards as its share of all bytes is worth workers, one at the least.

    A shard reads all of its file and answers its parts alone: reading is some hundred times as fast as answering.
    """
    sizes = [path.stat().st_size for path in files]
    found = []
    for file, (path, size) in enumerate(zip(files, sizes, strict=True)):
        of = max(1, math.ceil(size * workers / max(sum(sizes), 1)))
        found += [Shard(str(path.resolve()), str(path), file, number, of) for number in range(of)]
    return found


def part_place(output: Path, file: int, part: int, options: PredictOptions) -> Path:
    """Return where a part's answers are; in the order of names, parts are in the order of files and rows."""
    return output / f"{file:05d}-{part:06d}.{options.format}"


def answer_shard(model: Predictor, shard: Shard, options: PredictOptions, output: Path) -> Done:
    """Answer the parts of a shard that are not there yet. Raises `TableError` for a bad row, unless it is skipped."""
    skipped: list[TableError] = []
    reading = DataOptions(
        text=options.text,
        text_pair=options.text_pair,
        encoding=options.encoding,
        skip_bad_rows=options.skip_bad_rows,
    )
    try:
        found = read_examples(shard.path, reading, on_skip=skipped.append)
    except EmptyTableError:
        return Done(empty=int(shard.number == 0))
    examples = checked(found, model.manifest.pair)
    rows = (replace(example, source=shard.name) for example in examples)
    done, told = Done(), Done()
    for part in itertools.count():
        some = itertools.islice(rows, options.part_rows)
        place = part_place(output, shard.file, part, options)
        first = next(some, None)
        if first is None:
            break
        if part % shard.of != shard.number:
            _pass_over(some)
        elif place.exists():
            done += Done(kept=1 + _pass_over(some), cut=_cut_in(place, options.format))
        else:
            done += _write_part(model, itertools.chain([first], some), options, place)
    if shard.number == 0 and skipped:
        told = Done(skipped=len(skipped), first_skipped=str(skipped[0]))
    return done + told


@contextmanager
def _progress(output: Path) -> Iterator[None]:
    """Show how many parts there are, whoever writes them, when somebody watches."""
    ended = threading.Event()
    with tqdm(unit=" parts", initial=_parts(output), disable=None) as bar:

        def look() -> None:
            while not ended.wait(1.0):
                bar.update(_parts(output) - bar.n)

        looking = threading.Thread(target=look, daemon=True)
        if not bar.disable:
            looking.start()
        try:
            yield
        finally:
            ended.set()
            if looking.ident is not None:
                looking.join()
                bar.update(_parts(output) - bar.n)


def _parts(output: Path) -> int:
    return sum(path.name != RECORD and not path.name.startswith(".") for path in output.iterdir())


def _write_part(model: Predictor, rows: Iterator[Example], options: PredictOptions, place: Path) -> Done:
    unfinished = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    rows_answered = cut = 0
    try:
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            write = writer(stream, options)
            for example, answer in answered(model, rows, options.batch_size):
                write(example, answer)
                rows_answered, cut = rows_answered + 1, cut + answer.truncated
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(place)
    finally:
        unfinished.unlink(missing_ok=True)
    return Done(answered=rows_answered, cut=cut)


def _cut_in(place: Path, form: str) -> int:
    """How many answers of a part are of texts that were cut. Raises `FolderError` for a part that cannot be read."""
    try:
        with place.open(encoding="utf-8", newline="") as stream:
            if form == "csv":
                allow_long_cells()
            answers: Iterable[Any] = csv.DictReader(stream) if form == "csv" else map(json.loads, stream)
            return sum(answer["truncated"] in (True, "True") for answer in answers)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise FolderError(f"{place}: damaged ({error}): delete it, and repeat the command") from error


def _pass_over(rows: Iterator[Example]) -> int:
    return sum(1 for _ in rows)


def _begin(output: Path, record: dict[str, Any]) -> None:
    """Write what this run is into its folder, or tidy up what is there of the same run, unfinished."""
    if _is_begun(output, record):
        for leftover in output.glob(".*"):
            leftover.unlink()
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        _write_record(output, record)
    except OSError as error:
        raise OptionError(f"--output {output}: {error.strerror}") from error


def _is_begun(output: Path, record: dict[str, Any]) -> bool:
    """Whether the folder holds this run, unfinished. Raises `FolderError` where it holds anything else."""
    place = output / RECORD
    if output.exists() and not output.is_dir():
        raise FolderError(f"{output}: a file; answers in parts go into a folder: choose another --output")
    if not place.exists():
        if output.exists() and any(output.iterdir()):
            raise FolderError(f"{output}: holds something else; it is left alone: choose another --output")
        return False
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        finished, format_ = kept["finished"], kept["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{place}: damaged ({error}): choose another --output") from error
    if format_ != FORMAT:
        raise FolderError(f"{place}: format {format_}, and this squeezebert writes {FORMAT}: choose another --output")
    for name in ("model", "options", "files"):
        if kept.get(name) != record[name]:
            raise FolderError(
                f"{output}: holds the answers of another run ({_difference(name, kept.get(name), record[name])}): "
                "repeat its command, or choose another --output"
            )
    if finished:
        raise FolderError(f"{output}: is finished: choose another --output")
    return True


def _told(path: Path) -> dict[str, Any]:
    """What a file is known by: its time of change tells apart contents of one size."""
    found = path.stat()
    return {"name": str(path), "bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def _difference(name: str, kept: Any, now: Any) -> str:
    if name == "options" and isinstance(kept, dict):
        changed = [key for key in now if kept.get(key) != now[key]]
        return ", ".join(f"--{key.replace('_', '-')} was {kept.get(key)}" for key in changed)
    return {"model": "by another model file", "files": "of other files, or they have changed"}.get(name, name)


def _write_record(output: Path, record: dict[str, Any]) -> None:
    part = output / f".{RECORD}.part"
    # The name of a file need not be UTF-8; JSON's own escapes can hold it
    part.write_bytes(json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    part.replace(output / RECORD)


def to_row(done: Done) -> dict[str, Any]:
    """Return what came of a shard as a row of a dataset."""
    return asdict(done)


def from_row(row: dict[str, Any]) -> Done:
    """Return what `to_row` made a row of."""
    return Done(**{name: cast(Any, row[name]) for name in Done.__dataclass_fields__})
