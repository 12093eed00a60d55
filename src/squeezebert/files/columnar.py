"""Parquet files, saved `datasets` folders and datasets of the Hub in, rows out; serves `files.tables`.

Both packages belong to the train extra, so they are imported by name when first needed: the base install and
the runtime do without them.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from squeezebert.files.errors import DependencyError, TableError
from squeezebert.files.formats import Row

# owner/name, then optionally a configuration and a split: nyu-mll/glue:sst2#validation
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?(?:#([\w.-]+))?")


def _extra(package: str, source: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DependencyError(
            f"{source}: reading it needs {package}, which is not installed: pip install 'squeezebert[train]'"
        ) from error


def parquet_rows(source: str) -> Iterator[Row]:
    """Rows of a Parquet file, a thousand decoded at a time.

    Raises:
        DependencyError: pyarrow is not installed.
        TableError: the file is damaged, or two columns have one name.
    """
    arrow, parquet = _extra("pyarrow", source), _extra("pyarrow.parquet", source)
    number = 0
    try:
        with parquet.ParquetFile(source) as file:
            names: list[str] = file.schema_arrow.names
            duplicate = next((name for name in names if names.count(name) > 1), None)
            if duplicate is not None:
                raise TableError(f"{source}: duplicate column name {duplicate!r}; rename one")
            for batch in file.iter_batches(batch_size=1000):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, source, number)
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TableError(f"{source}:{number + 1}: no Parquet file, or damaged: {cause}") from error


def saved_splits(folder: Path) -> list[str] | None:
    """Split names of a folder written by `save_to_disk`: none for one dataset; None for any other folder."""
    listing = folder / "dataset_dict.json"
    if listing.is_file():
        try:
            return [str(name) for name in json.loads(listing.read_text("utf-8"))["splits"]]
        except (ValueError, KeyError, TypeError) as error:
            raise TableError(f"{listing}: damaged: {error!r}; save the dataset anew") from error
    return [] if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file() else None


def saved_rows(source: str) -> Iterator[Row]:
    """Rows of one dataset saved by `save_to_disk`."""
    datasets = _extra("datasets", source)
    try:
        dataset = datasets.load_from_disk(source)
    except Exception as error:  # pyarrow, fsspec and json each raise their own for a damaged folder
        raise TableError(f"{source}: damaged dataset folder: {error}; save the dataset anew") from error
    yield from _dataset_rows(dataset, source)


def hub_parts(source: str) -> tuple[str, str | None, str | None] | None:
    """(owner/name, configuration, split) of `owner/name[:configuration][#split]`; None for another text."""
    found = _HUB_ID.fullmatch(source)
    return None if found is None else (found[1], found[2], found[3])


def hub_splits(source: str) -> list[str]:
    """Names of the splits of a Hub dataset; none if `source` names one split already."""
    parts = hub_parts(source)
    if parts is None or parts[2] is not None:
        return []
    return [str(split) for split in _load(source, *parts)]


def hub_rows(source: str) -> Iterator[Row]:
    """Rows of the split of a Hub dataset that `source` names after a `#`."""
    parts = hub_parts(source)
    if parts is None:
        raise TableError(f"{source}: no such file or folder")
    yield from _dataset_rows(_load(source, *parts), source)


def _load(source: str, name: str, configuration: str | None, split: str | None) -> Any:
    datasets = _extra("datasets", f"{source}: no such file or folder, so taken for a dataset of the Hub")
    try:
        return datasets.load_dataset(name, configuration, split=split)
    except Exception as error:  # errors of the HTTP library come through, and the library changes
        if isinstance(error, datasets.exceptions.DatasetNotFoundError):
            cause = "and the Hub has no such dataset, or it is private or gated"
        elif isinstance(error, ConnectionError) or re.search("Offline|Connect|Timeout", type(error).__name__):
            cause = "and the Hugging Face Hub could not be reached to look for a dataset of that name"
        else:
            cause = "and the dataset of that name on the Hub could not be loaded"
        raise TableError(f"{source}: no such file or folder, {cause} ({type(error).__name__}: {error})") from error


def _dataset_rows(dataset: Any, source: str) -> Iterator[Row]:
    """Rows of a `datasets.Dataset`, class ids replaced by the names the dataset gives them."""
    decoders = {name: decode for name, feature in dataset.features.items() if (decode := _class_names(feature))}
    for number, values in enumerate(dataset.with_format(None), start=1):
        named = {name: decode(values[name]) for name, decode in decoders.items()}
        yield Row({**values, **named}, source, number)


def _class_names(feature: Any) -> Callable[[Any], object] | None:
    """A function from a cell of this feature to class names; None if the feature is not of classes."""
    names: list[str] | None = getattr(feature, "names", None)
    if names:
        by_id: Mapping[Any, str] = dict(enumerate(names))
        return by_id.get  # datasets mark an unlabelled row with -1, which becomes None: a missing label
    inner = getattr(feature, "feature", None)
    decode = None if inner is None else _class_names(inner)
    if decode is None:
        return None
    return lambda cell: None if cell is None else [decode(item) for item in cell]
