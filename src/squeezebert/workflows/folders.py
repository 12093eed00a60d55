"""Examples learned into a sorter, messages sorted by it, folders shown and forgotten: the jobs of `folders`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from squeezebert.data.options import DataOptions
from squeezebert.data.reading import Example, read_examples
from squeezebert.files.atomic import settle_leftovers
from squeezebert.files.errors import FolderError, OptionError, TableError
from squeezebert.files.lines import printable
from squeezebert.files.lock import only_run
from squeezebert.runtime.folders import RECORD, Folders, Sorted, encoder_place
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.workflows.job_options import (
    FoldersForgetOptions,
    FoldersLearnOptions,
    FoldersSortOptions,
    SorterPlace,
)
from squeezebert.workflows.options import LabelledColumns
from squeezebert.workflows.outputs import check_output, json_line, open_part, stamp_of, watched

# Messages of a file that are sorted together; of standard input each is answered as it comes
_AT_A_TIME = 256


def learn_folders(
    place: SorterPlace, options: FoldersLearnOptions, columns: LabelledColumns, report: Callable[[str], None]
) -> str:
    """Learn a table of examples into a sorter, which is made where there is none; return what was learned.

    Raises `FolderError` for the encoder or sorter, `TableError` for the rows, and `OptionError` where a sorter is new
    and no encoder was named, and for examples of one folder only.
    """
    if columns.label_separator is not None:
        raise OptionError("--label-separator: a message is in one folder")
    folder = Path(place.sorter)
    with only_run(folder):
        _settle(folder)
        sorter = _open_or_begin(place, options)
        examples = _examples(options, columns, report)
        before = len(sorter.folders)
        texts, names = [example.text for example in examples], [str(example.label) for example in examples]
        learned = sorter.learn(texts, names, partial(tqdm, unit=" examples", disable=None))
        sorter.save(folder, overwrite=True)
    contrary = learned.contradicted
    done = f"{learned.new} new examples, {learned.moved} moved to another folder, {learned.known} known already"
    return "\n".join(
        [
            f"{done}; {len(sorter)} in {len(sorter.folders)} folders, which were {before}",
            *([f"{contrary} texts are given in several folders, and are in the last of them"] if contrary else []),
            *_quality(sorter),
            f"written: {folder}",
        ]
    )


def forget_folders(place: SorterPlace, options: FoldersForgetOptions) -> str:
    """Leave folders and their examples out of a sorter; return what is left.

    Raises `FolderError` for the encoder or sorter, and `OptionError` for a folder that is not known.
    """
    folder = Path(place.sorter)
    with only_run(folder):
        _settle(folder)
        sorter = open_sorter(place)
        gone = sorter.forget(*options.names)
        sorter.save(folder, overwrite=True)
    return f"{gone} examples forgotten; {len(sorter)} in {len(sorter.folders)} folders are left\nwritten: {folder}"


def show_folders(place: SorterPlace) -> str:
    """Return a table of a sorter's folders, and how it does on examples that were left out. Raises `FolderError`."""
    sorter = open_sorter(place)
    width = max(len("folder"), *(len(printable(name)) for name in sorter.folders))
    lines = [f"{'folder':{width}}  examples  left out  of them right"]
    rows = zip(sorter.counts().items(), sorter.quality.left_out, sorter.quality.right, strict=True)
    for (name, count), left_out, right in rows:
        lines.append(f"{printable(name):{width}}  {count:8}  {left_out:8}  {right:13}")
    return "\n".join([*lines, "", *_quality(sorter), f"encoder: {sorter.encoder.folder}, {sorter.encoder.precision}"])


def sort_table(place: SorterPlace, options: FoldersSortOptions) -> str:
    """Sort every message of a table, write a line of JSON for each, and return how many were sure.

    Raises `FolderError` for the encoder or sorter, `TableError` for a bad row unless they are skipped, and
    `OptionError` for an output that cannot be written.
    """
    sorter = open_sorter(place)
    check_output(options.output, options.overwrite, options.file)
    skipped: list[TableError] = []
    reading = DataOptions(text=options.text, encoding=options.encoding, skip_bad_rows=options.skip_bad_rows)
    examples = _single(read_examples(options.file, reading, on_skip=skipped.append))
    counts: Counter[str] = Counter()

    def count(row: Mapping[str, Any]) -> None:
        counts["sorted" if row["folder"] is not None else "unsure"] += 1
        counts["out of scope"] += row["out_of_scope"]

    made_by = ["folders", stamp_of(place.sorter), sorter.encoder.digest, options.text, options.encoding, options.top]
    with open_part(options.output, options.file, made_by, overwrite=options.overwrite, kept=count) as part:
        quiet = None if options.output != "-" else not watched(part.stream)
        new = (example for example in examples if part.is_new(example.source, example.line))
        with tqdm(initial=counts["sorted"] + counts["unsure"], unit=" messages", disable=quiet) as bar:
            while some := list(islice(new, 1 if options.file == "-" else _AT_A_TIME)):
                for example, answer in zip(some, sorter.sort([e.text for e in some], options.top), strict=True):
                    row = sorted_row(example, answer)
                    part.stream.write(json_line(row))
                    count(row)
                part.stream.flush()
                bar.update(len(some))
    said = [f"{counts['sorted']} sorted, {counts['unsure']} unsure, {counts['out of scope']} of those out of scope"]
    if skipped:
        said.append(f"skipped {len(skipped)} rows, the first: {skipped[0]}")
    return "\n".join(said)


def sorted_row(example: Example, answer: Sorted) -> dict[str, Any]:
    """The place and text of a message and where it belongs, as JSON takes them."""
    return {
        "source": example.source,
        "line": example.line,
        "text": example.text,
        "folder": answer.folder,
        "likely": [{"folder": name, "probability": round(share, 6)} for name, share in answer.likely],
        "out_of_scope": answer.out_of_scope,
        "similarity": round(answer.similarity, 6),
    }


def open_sorter(place: SorterPlace) -> Folders:
    """Open a sorter with the encoder that it was made with, or where that is said to be now. Raises `FolderError`."""
    folder = Path(place.sorter)
    encoder, precision = encoder_place(folder)
    if place.encoder is not None:
        return Folders.open(folder, load(place.encoder, place.threads, precision))
    try:
        model = load(encoder, place.threads, precision)
    except FolderError as error:
        raise FolderError(f"{error}; the encoder of {folder} was there: say where it is now, --encoder") from error
    return Folders.open(folder, model)


def _settle(folder: Path) -> None:
    """Put back a sorter that a killed run had moved aside, before it is missed."""
    place = folder.resolve()
    if place.parent.is_dir():
        settle_leftovers(place)


def _open_or_begin(place: SorterPlace, options: FoldersLearnOptions) -> Folders:
    folder = Path(place.sorter)
    if (folder / RECORD).exists():
        sorter = open_sorter(place)
        if options.precision not in (None, sorter.encoder.precision):
            raise OptionError(
                f"--precision {options.precision}: the examples of {folder} were read in {sorter.encoder.precision}"
            )
        if options.sure_precision is not None or options.scope_share is not None:
            sorter.retune(options.sure_precision, options.scope_share)
        return sorter
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError(f"{folder}: is there already, and is no sorter: name another folder")
    if place.encoder is None:
        raise OptionError(f"--encoder: {folder} is a new sorter: name the exported encoder that is to read for it")
    model: Predictor = load(place.encoder, place.threads, options.precision)
    shares = {"precision": options.sure_precision, "scope": options.scope_share}
    return Folders(model, **{name: share for name, share in shares.items() if share is not None})


def _examples(options: FoldersLearnOptions, columns: LabelledColumns, report: Callable[[str], None]) -> list[Example]:
    skipped: list[TableError] = []
    read = read_examples(options.data, columns.to_data_options(), task="single_label", on_skip=skipped.append)
    examples = list(_single(read))
    if skipped:
        report(f"skipped {len(skipped)} rows, the first: {skipped[0]}")
    if not examples:
        raise TableError(f"{options.data}: no usable rows to learn")
    return examples


def _single(examples: Iterable[Example]) -> Iterator[Example]:
    for example in examples:
        if example.text_pair is not None:
            raise OptionError(f"{example.place}: a message is one text: name its column, --text")
        yield example


def _quality(sorter: Folders) -> Iterator[str]:
    quality, left_out = sorter.quality, sum(sorter.quality.left_out)
    if not left_out:
        yield "every folder has one example: nothing is sure until some have more"
        return
    yield f"{quality.accuracy:.1%} right of {left_out} examples that were left out while learning"
    if quality.threshold > 1:
        yield (
            f"they do not show a probability from which on {sorter.precision:.0%} are right: every answer is unsure "
            "until there are more examples, or a lower --sure-precision"
        )
    else:
        wanted = f"for {sorter.precision:.0%} of the sure to be right"
        yield f"sure from a probability of {quality.threshold:.3f} on, {wanted}"
