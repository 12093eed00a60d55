"""A document in, the sentences that say most of it out, with where they stand: the job behind `summarise`."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TextIO

from tqdm import tqdm

from squeezebert.files.errors import TableError
from squeezebert.files.lines import printable, read_document
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.runtime.summary import first_sentences, summarise
from squeezebert.workflows.job_options import SummariseOptions
from squeezebert.workflows.outputs import check_output, json_line, open_output


def summarise_file(options: SummariseOptions) -> str:
    """Write the chosen sentences of a document; return how much of it they are.

    Raises `FolderError` for the encoder, `TableError` for a document that cannot be read or has no sentence, and
    `OptionError` for a model that is no encoder and an output that cannot be written.
    """
    check_output(options.output, options.overwrite, options.file)
    model = None if options.encoder is None else load(options.encoder, options.threads, options.precision)
    with open_output(options.output, options.overwrite) as stream:
        return _summarise(options, model, stream)


def _summarise(options: SummariseOptions, model: Predictor | None, stream: TextIO) -> str:
    document = read_document(options.file, options.encoding)
    if options.first:
        chosen = first_sentences(document, options.sentences)
    else:
        chosen = summarise(model, document, options.sentences, partial(tqdm, unit=" sentences", disable=None))
    if not chosen:
        raise TableError(f"{'standard input' if options.file == '-' else options.file}: empty: it holds no sentence")
    for sentence in chosen:
        plain = " ".join(sentence.text.split())
        # A terminal would obey what a document has of control characters
        line = (printable(plain) if stream.isatty() else plain) + "\n"
        stream.write(json_line(asdict(sentence)) if options.format == "jsonl" else line)
    share = sum(sentence.end - sentence.start for sentence in chosen) / len(document)
    return f"{len(chosen)} sentences, {share:.0%} of the document"
