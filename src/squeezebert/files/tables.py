"""A file, folder, dataset or standard input in, a stream of rows out, each knowing the line it came from.

The data room makes examples of the rows, the runtime scores them; a table is never held in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from squeezebert.files.columnar import hub_parts, hub_rows, hub_splits, parquet_rows, saved_rows, saved_splits
from squeezebert.files.errors import EmptyTableError, TableError
from squeezebert.files.formats import Row, read_format, read_stdin
from squeezebert.files.lines import STDIN, Lines, RowError, StrayFile, open_bytes

__all__ = ["SUFFIXES", "OnSkip", "Row", "RowError", "StrayFile", "read_rows", "skip_or_raise", "table_splits"]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt")
"""File name endings that are read; all but `.parquet` also with `.gz` behind them."""

OnSkip = Callable[[TableError], None]

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "validation"),
    "test": "test",
}


def read_rows(
    path: str | Path,
    *,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    on_skip: OnSkip | None = None,
    odd: bool = False,
) -> Iterator[Row]:
    """Stream the rows of a table of text.

    `path` is a file (`SUFFIXES`; `.json` is one array of objects, or JSON lines), a folder with a sub-folder
    of `.txt` files per label (columns `text`, `label`), a folder written by `datasets`' `save_to_disk`, a
    dataset of the Hub (`owner/name[:configuration][#split]`), or `-` for standard input (JSON lines if the
    first line starts with `{`, otherwise one text a line). A `.txt` file is one text a line, column `text`.
    Blank lines are not rows. A `.tsv` takes quotes for ordinary characters unless its first lines clearly
    quote as a CSV does. A byte-order mark outranks `encoding`.

    With `skip_bad_rows`, rows that cannot be read (wrong number of fields, invalid JSON, bad encoding, bad
    quoting) are passed over, each handed to `on_skip` as a `RowError`. Files of a folder of texts that belong
    to no label are handed to `on_skip` as a `StrayFile` in either case. A row with a NUL, or with a control character
    in a string of JSON lines, is bad too, unless `odd` rows are asked for.

    Raises:
        TableError: nothing readable at `path`, no rows, or a bad row; names file, line, cause and way out.
        DependencyError: the format needs a package of the train extra.
    """
    items = _items(str(path), encoding, odd)
    return _settled(items, str(path), skip_bad_rows, on_skip)


def skip_or_raise(error: RowError, skip_bad_rows: bool, on_skip: OnSkip | None) -> None:
    """Hand a bad row to `on_skip` if bad rows are skipped, otherwise raise it with the way out."""
    if not skip_bad_rows:
        raise TableError(f"{error} (mend the row, or pass over such rows with --skip-bad-rows)") from error
    if on_skip is not None:
        on_skip(error)


def table_splits(path: str | Path) -> dict[str, str]:
    """Where the splits of a source are: split name to a path `read_rows` takes; empty for a single table.

    A saved `DatasetDict`, a dataset of the Hub, and a folder that holds `train.csv`, `dev.tsv` and the like
    or `train/<label>/*.txt` have splits. Their usual names become `train`, `validation` and `test`; others
    stay as they are.

    Raises:
        TableError: two sources for one split, or a Hub dataset that cannot be loaded.
    """
    source = str(path)
    folder = Path(source)
    found: list[tuple[str, str]] = []
    if source == STDIN or folder.is_file():
        return {}
    if folder.is_dir():
        saved = saved_splits(folder)
        found = _folder_splits(folder) if saved is None else [(name, str(folder / name)) for name in saved]
    elif not folder.exists() and _may_be_hub_id(source):
        found = [(name, f"{source}#{name}") for name in hub_splits(source)]
    splits: dict[str, str] = {}
    for name, place in found:
        split = _SPLITS.get(name.lower(), name)
        if split in splits:
            raise TableError(f"{source}: two sources for the split {split!r}: {splits[split]} and {place}; remove one")
        splits[split] = place
    return splits


def _items(source: str, encoding: str, odd: bool) -> Iterator[Row | RowError | StrayFile]:
    """Choose the reader. What can be said without reading is said here, before the first row is asked for."""
    if source == STDIN:
        return read_stdin(encoding, odd)
    path = Path(source)
    if not path.exists() and not _may_be_hub_id(source):
        raise TableError(f"{source}: no such file or folder")
    if path.exists() and not path.is_dir():
        suffix = _suffix(path)
        if suffix not in SUFFIXES:
            raise TableError(f"{source}: cannot tell its format by its name; it has to end in {', '.join(SUFFIXES)}")
        return parquet_rows(source) if suffix == ".parquet" else read_format(source, suffix, encoding, odd)
    if path.is_dir() and saved_splits(path) == []:
        return saved_rows(source)
    if not path.exists() and (parts := hub_parts(source)) and parts[2]:
        return hub_rows(source)
    splits = table_splits(source)
    if len(splits) == 1:
        return _items(next(iter(splits.values())), encoding, odd)
    if splits:
        raise TableError(f"{source}: holds several tables, so name one: {', '.join(splits.values())}")
    if _is_label_folder(path):
        return _label_folder_rows(path, encoding, odd)
    raise TableError(
        f"{source}: no table in this folder; it has to hold a sub-folder of .txt files per label, or "
        "train.csv and test.csv (or another format), or a dataset saved by save_to_disk"
    )


def _settled(
    items: Iterator[Row | RowError | StrayFile], source: str, skip_bad_rows: bool, on_skip: OnSkip | None
) -> Iterator[Row]:
    """Only the rows; the rest is handed to `on_skip` or raised. A table of nothing at all is an error."""
    empty = True
    for item in items:
        if isinstance(item, Row):
            empty = False
            yield item
        elif isinstance(item, RowError):
            empty = False
            skip_or_raise(item, skip_bad_rows, on_skip)
        elif on_skip is not None:
            on_skip(item)
    if empty:
        raise EmptyTableError(f"{'standard input' if source == STDIN else source}: empty: it holds no rows")


# --- folders ------------------------------------------------------------------------------------------


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    return "" if suffix == ".parquet" and path.suffix.lower() == ".gz" else suffix


def _may_be_hub_id(source: str) -> bool:
    return hub_parts(source) is not None and _suffix(Path(source)) not in SUFFIXES


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise TableError(f"{folder}: cannot be listed: {error.strerror or error}") from error


def _is_label_folder(folder: Path) -> bool:
    """Whether some sub-folder holds `.txt` files."""
    return any(
        entry.is_dir() and any(_suffix(file) == ".txt" and file.is_file() for file in _visible(entry))
        for entry in _visible(folder)
    )


def _folder_splits(folder: Path) -> list[tuple[str, str]]:
    """Tables of a folder in which at least one is named as a split; none if no name says so."""
    found = []
    for entry in _visible(folder):
        is_table = entry.is_file() and _suffix(entry) in SUFFIXES
        if is_table or (entry.is_dir() and (saved_splits(entry) == [] or _is_label_folder(entry))):
            name = entry.name if entry.is_dir() else entry.name.split(".")[0]
            found.append((name, str(entry)))
    return found if any(name.lower() in _SPLITS for name, _ in found) else []


def _label_folder_rows(folder: Path, encoding: str, odd: bool) -> Iterator[Row | RowError | StrayFile]:
    """One row a file: its whole text without the last line break, and the name of its folder."""
    for entry in _visible(folder):
        if not entry.is_dir():
            yield StrayFile(f"{entry}: not in the sub-folder of a label, so it is not read")
            continue
        read = False
        for file in _visible(entry):
            if not file.is_file() or file.suffix.lower() != ".txt":
                yield StrayFile(f"{file}: no .txt file, so it is not read")
                continue
            read = True
            with open_bytes(str(file)) as stream:
                lines = Lines(stream, str(file), encoding, odd)
                text = "".join(lines).rstrip("\r\n")
            yield lines.take_problem() or Row({"text": text, "label": entry.name}, str(file), 1)
        if not read:
            yield StrayFile(f"{entry}: no .txt file in this folder, so the label {entry.name!r} has no examples")
