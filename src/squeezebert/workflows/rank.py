"""Items and what a reader liked in, the items in the order of the reader's taste out: the job behind `rank`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from squeezebert.data.options import DataOptions
from squeezebert.data.reading import Example, read_examples
from squeezebert.files.errors import OptionError, TableError
from squeezebert.files.lock import only_run
from squeezebert.files.places import check_place
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.runtime.ranking import Ranker, VectorStore
from squeezebert.workflows.job_options import RankOptions
from squeezebert.workflows.outputs import check_output, json_line, open_output

# Texts read at a time, and how many of them a run that is killed can lose
_AT_A_TIME, _SAVED_EVERY = 64, 4096


def rank_table(options: RankOptions, report: Callable[[str], None]) -> str:
    """Rank the items of a table, write a line of JSON for each, and return how many there were and were read anew.

    Raises `FolderError` for the encoder or the file of vectors, `TableError` for a bad row unless they are skipped,
    and `OptionError` for files without an item, and an output that cannot be written.
    """
    others = (options.file, options.liked, options.disliked, options.vectors)
    check_output(options.output, options.overwrite, *others)
    if options.vectors is not None:
        check_place(options.vectors, "--vectors", others=others[:-1])
    model = load(options.folder, options.threads, options.precision)
    with open_output(options.output, options.overwrite) as stream:
        return _rank(options, model, stream, report)


def _rank(options: RankOptions, model: Predictor, stream: TextIO, report: Callable[[str], None]) -> str:
    path = None if options.vectors is None else Path(options.vectors)
    with nullcontext() if path is None else only_run(path, option="--vectors", launched=False):
        store = VectorStore(model, path)
        known = len(store)
        liked, disliked, items = (
            _items(source, options, report) for source in (options.liked, options.disliked, options.file)
        )
        texts = [example.text for example in [*liked, *disliked, *items]]
        if options.new:
            rated = {example.text for example in [*liked, *disliked]}
            items = [item for item in items if item.text not in rated]
        try:
            _read(store, [example.text for example in [*liked, *disliked, *items]])
        finally:
            if path is not None and len(store) > known:
                store.save()
        read = len(store) - known
        gone = store.keep(texts) if options.forget else 0
        if gone:
            store.save()
    ranker = Ranker(store)
    ranker.learn([example.text for example in liked], [example.text for example in disliked])
    best = ranker.rank([item.text for item in items], options.top) if items else []
    for number, (place, score) in enumerate(best, start=1):
        item = items[place]
        about = {"rank": number, "score": score, "source": item.source, "line": item.line, "text": item.text}
        stream.write(json_line(about))
    said = f"{len(items)} items ranked by {len(liked)} liked and {len(disliked)} disliked; {read} read"
    if options.forget:
        said += f"; vectors of {gone} texts forgotten"
    cut = model.tokenizer.count_cut({*texts})
    if cut:
        longest = model.manifest.max_length
        said += f"\n{cut} texts were longer than the model's {longest} tokens: they were ranked by their beginnings"
    return said


def _items(source: str | None, options: RankOptions, report: Callable[[str], None]) -> list[Example]:
    if source is None:
        return []
    skipped: list[TableError] = []
    # Plain text has no columns, and may stand beside a table that has
    column = None if source.lower().removesuffix(".gz").endswith(".txt") else options.text
    reading = DataOptions(text=column, encoding=options.encoding, skip_bad_rows=options.skip_bad_rows)
    examples = list(read_examples(source, reading, on_skip=skipped.append))
    for example in examples:
        if example.text_pair is not None:
            raise OptionError(f"{example.place}: an item is one text: name its column, --text")
    if skipped:
        report(f"skipped {len(skipped)} rows, the first: {skipped[0]}")
    if not examples:
        raise TableError(f"{source}: no usable rows")
    return examples


def _read(store: VectorStore, texts: Sequence[str]) -> None:
    """Have the store read what it does not know, saving now and then."""
    saved = len(store)
    with tqdm(total=len(texts), unit=" items", disable=None) as bar:
        for start in range(0, len(texts), _AT_A_TIME):
            some = texts[start : start + _AT_A_TIME]
            store.vectors(some)
            bar.update(len(some))
            if store.path is not None and len(store) - saved >= _SAVED_EVERY:
                store.save()
                saved = len(store)
