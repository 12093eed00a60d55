"""Good text and an encoder in, a trained marker of wrong words out: the job behind `train-marker`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from transformers import set_seed
from transformers.utils import logging

from squeezebert.data.corpus import read_texts
from squeezebert.data.corruption import CorruptionOptions
from squeezebert.files.errors import FolderError
from squeezebert.files.lock import only_run
from squeezebert.training.classifiers import check_tokens, load_tokenizer
from squeezebert.training.marking import choose_sentences, load_marker, train_marker
from squeezebert.training.options import MarkerOptions
from squeezebert.workflows.options import MarkerPlaces


def train_on_text(
    places: MarkerPlaces,
    options: MarkerOptions,
    corruption: CorruptionOptions,
    command: str,
    report: Callable[[str], None],
) -> tuple[str, bool]:
    """Train a marker on text; return what came of it, and whether it is finished.

    A run that was killed goes on when the same call is made again. Raises what `train_marker`, `load_marker` and
    `read_texts` raise.
    """
    logging.disable_progress_bar()
    if Path(places.output).resolve() == Path(places.base).resolve():
        raise FolderError(f"--output {places.output}: that is the --base itself; choose another folder")
    set_seed(options.seed)  # a head that the checkpoint lacks starts from it
    model, tokenizer = load_marker(places.base), load_tokenizer(places.base)
    check_tokens(places.base, tokenizer, model)
    with only_run(places.output):
        report("reading the text")
        texts = read_texts(places.text, text=places.column, encoding=places.encoding)
        sentences = choose_sentences((part for one in texts for part in (one.text, one.text_pair) if part), options)
        result = train_marker(
            model, tokenizer, sentences, Path(places.output), options, corruption, command=command, report=report
        )
    if not result.finished:
        told = f"ended at step {result.steps} of {options.steps}, saved: the same command goes on from there"
        return told, False
    scores = result.scores
    folder = shlex.quote(places.output)
    lines = [
        f"on {len(sentences.held_out)} held-out sentences: of marked words {scores['precision']:.1%} are wrong, of "
        f"wrong words {scores['recall']:.1%} are marked, F0.5 {scores['f05']:.4f}",
        f"written: {places.output}",
        f"next: squeezebert export {folder} --output EXPORTED",
    ]
    return "\n".join(lines), True
