"""A table of text and an exported folder in, answers as JSON lines or CSV out: the job behind `squeezebert predict`.

It needs no torch, holds a bounded number of rows, and shows progress when somebody watches.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from squeezebert.data.options import DataOptions
from squeezebert.data.reading import Example, read_examples
from squeezebert.files.errors import OptionError, TableError
from squeezebert.files.places import check_place
from squeezebert.runtime.predictor import Prediction, Predictor, load
from squeezebert.workflows.job_options import PredictOptions

# How often a waiting reader of the output gets what there is, in rows
_FLUSH_EVERY = 256
_CSV_COLUMNS = ("source", "line", "text", "text_pair", "label", "probability", "value", "truncated")


def predict_table(options: PredictOptions) -> str:
    """Answer every row of a table; return how much was read and padded, and what was skipped or cut.

    Raises `FolderError` for the model, `TableError` for a bad row unless they are skipped (what was answered before
    it is in the output), and `OptionError` for an output that cannot be written.
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
    cut = count = 0
    check_output(options.output, options.overwrite, options.file)
    with open_output(options.output) as stream:
        write = writer(stream, options)
        bar = tqdm(total=total, unit=" texts", disable=None if options.output != "-" else not watched(stream))
        with bar:
            for count, (example, answer) in enumerate(answered(model, examples, options.batch_size), start=1):
                write(example, answer)
                cut += answer.truncated
                bar.update()
                if count % _FLUSH_EVERY == 0:
                    stream.flush()
    padding = model.padding / max(1, model.tokens + model.padding)
    said = [f"{count} texts of {model.tokens} tokens; {padding:.1%} of what was computed is padding"]
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


def checked(examples: Iterable[Example], pair: bool | None) -> Iterator[Example]:
    """Refuse single texts for a model of pairs, and the second text nobody asked for, at the first row."""
    for example in examples:
        if pair is True and example.text_pair is None:
            raise OptionError(f"{example.place}: the model reads pairs of texts: name the second column, --text-pair")
        if pair is False and example.text_pair is not None:
            raise OptionError(f"{example.place}: the model reads single texts: name the column to read, --text")
        yield example


def writer(stream: TextIO, options: PredictOptions) -> Callable[[Example, Prediction], None]:
    """Return what writes a row and its answer to a stream."""
    if options.format == "csv":
        table = csv.DictWriter(stream, _CSV_COLUMNS, lineterminator="\n")
        table.writeheader()
        return lambda example, answer: table.writerow(csv_row(example, answer))
    return lambda example, answer: print(json_line(json_row(example, answer, options.top)), end="", file=stream)


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


def json_line(row: dict[str, Any]) -> str:
    """Return a row as a line of JSON that UTF-8 can hold: half a surrogate pair becomes JSON's escape for it."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


def check_output(written: str, overwrite: bool, *others: str | None) -> None:
    """As `check_place`, but that - is standard output, and a device can be written to."""
    if written != "-":
        check_place(written, overwrite=overwrite, others=others, at_once=False)


@contextmanager
def open_output(name: str, append: bool = False) -> Iterator[TextIO]:
    """Open a file to write lines to, anew or behind what is there, or standard output for -.

    Raises `OptionError` where it cannot be written. Half a surrogate pair, as in the name of a file that is not
    UTF-8, becomes its escape, which JSON reads.
    """
    if name == "-":
        if hasattr(sys.stdout, "reconfigure"):
            # Whatever the locale says, as files are
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(name)
    try:
        stream = path.open("a" if append else "w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise OptionError(f"--output {name}: {error.strerror}") from error
    with stream:
        yield stream


def watched(stream: TextIO) -> bool:
    """Whether a bar on standard error would be seen, and not between the answers."""
    return sys.stderr.isatty() and not stream.isatty()


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
