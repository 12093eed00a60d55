"""A table of text and an exported folder in, answers as JSON lines or CSV out: the job behind `squeezebert predict`.

It needs no torch, holds a bounded number of rows, and shows progress when somebody watches.
"""

from __future__ import annotations

import csv
import select
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import UnsupportedOperation
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from squeezebert.data.options import DataOptions
from squeezebert.data.reading import Example, read_examples
from squeezebert.files.errors import OptionError, SqueezeBertError, TableError
from squeezebert.runtime.predictor import Prediction, Predictor, load
from squeezebert.workflows.job_options import PredictOptions
from squeezebert.workflows.outputs import check_output, json_line, open_part, watched

# How often a waiting reader of the output gets what there is, in rows
_FLUSH_EVERY = 256
_CSV_COLUMNS = ("source", "line", "text", "text_pair", "label", "probability", "value", "truncated")


def predict_table(options: PredictOptions) -> str:
    """Answer every row of a table; return how much was read and padded, and what was skipped or cut.

    A run that was cut off goes on when it is repeated (`open_part`). Raises `FolderError` for the model, `TableError`
    for a bad row unless they are skipped, and `OptionError` for an output that cannot be written.
    """
    if options.engine == "ray":
        from squeezebert.workflows.cluster import predict_on_cluster

        return predict_on_cluster(options)
    model = load(options.folder, options.threads, options.precision)
    pair = model.manifest.pair
    reading = DataOptions(
        text=options.text,
        text_pair=options.text_pair,
        encoding=options.encoding,
        skip_bad_rows=options.skip_bad_rows,
    )
    skipped: list[TableError] = []

    def skip(error: TableError) -> None:
        skipped.append(error)

    examples = checked(read_examples(options.file, reading, on_skip=skip), pair)
    total = _lines_of(options.file)
    cut = count = before = 0

    def kept(row: Mapping[str, Any]) -> None:
        nonlocal before, cut
        before += 1
        cut += row["truncated"] in (True, "True")

    check_output(options.output, options.overwrite, options.file)
    made_by = ["predict", model.digest, options.text, options.text_pair, options.encoding, options.batch_size]
    made_by += [options.top]
    with open_part(
        options.output, options.file, made_by, overwrite=options.overwrite, form=options.format, kept=kept
    ) as part:
        write = writer(part.stream, options, header=part.last is None)
        new = (example for example in examples if part.is_new(example.source, example.line))
        quiet = None if options.output != "-" else not watched(part.stream)
        with tqdm(total=total, initial=before, unit=" texts", disable=quiet) as bar:
            windows = as_they_come(new) if options.file == "-" else (new,)
            for window in windows:
                for example, answer in answered(model, window, options.batch_size):
                    write(example, answer)
                    count += 1
                    cut += answer.truncated
                    bar.update()
                    if count % _FLUSH_EVERY == 0:
                        part.stream.flush()
                part.stream.flush()
    padding = model.padding / max(1, model.tokens + model.padding)
    said = [f"{count} texts of {model.tokens} tokens; {padding:.1%} of what was computed is padding"]
    if before:
        said.append(f"{before} texts had been answered before")
    if skipped:
        said.append(f"skipped {len(skipped)} rows, the first: {skipped[0]}")
    if cut:
        said.append(f"{cut} texts were longer than the model's {model.manifest.max_length} tokens and were cut")
    return "\n".join(said)


def answered(
    model: Predictor, examples: Iterable[Example], batch_size: int | None
) -> Iterator[tuple[Example, Prediction]]:
    """Pair each example with its answer, holding only those that the model holds."""
    waiting: list[Example] = []

    def texts() -> Iterator[str | tuple[str, str]]:
        for example in examples:
            waiting.append(example)
            yield example.text if example.text_pair is None else (example.text, example.text_pair)

    for answer in model.predict(texts(), batch_size=batch_size):
        yield waiting.pop(0), answer


def as_they_come(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Part what is read from standard input wherever the next would have to be waited for.

    What stands before a row that cannot be read comes before its error does.
    """
    window: list[Example] = []
    try:
        for example in examples:
            window.append(example)
            if len(window) == _FLUSH_EVERY or not _more_has_come():
                yield window
                window = []
    except SqueezeBertError:
        yield window
        raise
    yield window


def _more_has_come() -> bool:
    """Whether standard input can be read without waiting; what cannot be asked is not waited for either."""
    try:
        return bool(select.select([sys.stdin], [], [], 0)[0])
    except (UnsupportedOperation, TypeError):  # a program's own stream, all of which is there
        return True
    except (OSError, ValueError):
        return False


def checked(examples: Iterable[Example], pair: bool | None) -> Iterator[Example]:
    """Refuse single texts for a model of pairs, and the second text nobody asked for, at the first row."""
    for example in examples:
        if pair is True and example.text_pair is None:
            raise OptionError(f"{example.place}: the model reads pairs of texts: name the second column, --text-pair")
        if pair is False and example.text_pair is not None:
            raise OptionError(f"{example.place}: the model reads single texts: name the column to read, --text")
        yield example


def writer(stream: TextIO, options: PredictOptions, *, header: bool = True) -> Callable[[Example, Prediction], None]:
    """Return what writes a row and its answer to a stream."""
    if options.format == "csv":
        table = csv.DictWriter(_UnixLines(stream), _CSV_COLUMNS, lineterminator="\r\n")
        if header:
            table.writeheader()
        return lambda example, answer: table.writerow(csv_row(example, answer))
    return lambda example, answer: print(json_line(json_row(example, answer, options.top)), end="", file=stream)


@dataclass(frozen=True)
class _UnixLines:
    """What csv writes to, a row at a time: it puts a lone CR into quotes where rows end in CRLF, and only there."""

    stream: TextIO

    def write(self, row: str) -> None:
        self.stream.write(row.removesuffix("\r\n") + "\n")


def json_row(example: Example, answer: Prediction, top: int | None = None) -> dict[str, Any]:
    """The place and text of a row and its answer, as JSON takes them."""
    row: dict[str, Any] = {"source": example.source, "line": example.line, "text": example.text}
    if example.text_pair is not None:
        row["text_pair"] = example.text_pair
    row.update(answer.to_dict())
    if top is not None and row.get("probabilities"):
        largest = sorted(row["probabilities"].items(), key=lambda item: -item[1])[:top]
        row["probabilities"] = dict(largest)
    return row


def csv_row(example: Example, answer: Prediction) -> dict[str, Any]:
    """The same as cells; several labels are joined by |."""
    return {
        "source": example.source,
        "line": example.line,
        "text": example.text,
        "text_pair": example.text_pair,
        "label": "|".join(answer.labels) if answer.label is None else answer.label,
        "probability": answer.probability,
        "value": answer.value,
        "truncated": answer.truncated,
    }


def _lines_of(name: str) -> int | None:
    """Lines of a plain text file, close to its number of texts; None where there is no such file."""
    path = Path(name)
    if not path.is_file() or path.suffix.lower() in (".gz", ".parquet", ".json"):
        return None
    count, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
    return max(count - (path.suffix.lower() in (".csv", ".tsv")), 1) if size else None
