"""A checkpoint and text in, the model with only the vocabulary that the text needs out: the job behind `prune`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from squeezebert.data.corpus import read_texts
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError
from squeezebert.files.lock import only_run
from squeezebert.training.checkpoint import carry_pooling, foreign_files
from squeezebert.training.dense import load_ours, matching_tokenizer
from squeezebert.training.rescore import carry_record
from squeezebert.training.runs import save_model
from squeezebert.training.vocabulary import count_pieces, factorise_words, pieces_to_keep, prune_model, prune_tokenizer
from squeezebert.workflows.options import PruneOptions

RECORD = "prune.json"


def prune(options: PruneOptions, command: str, report: Callable[[str], None]) -> str:
    """Write a checkpoint with the pieces that a text needs; return what came of it.

    A classifier of ours is scored on the rows that training held out, before and after. Raises `FolderError` for an
    output that holds something else and a checkpoint that is not there, `OptionError` for a tokenizer of another kind,
    and what `read_texts` raises.
    """
    logging.disable_progress_bar()
    output = Path(options.output)
    with only_run(output):
        _check_output(options)
        model = load_ours(options.checkpoint, report, verb="prune")
        tokenizer = matching_tokenizer(options.checkpoint, model)
        counts = count_pieces(_texts(options), tokenizer)
        kept = pieces_to_keep(tokenizer, counts, options.least)
        used = sum(1 for count in counts.values() if count >= options.least)
        report(
            f"the text has {sum(counts.values())} pieces, {used} different ones at least {options.least} times, of "
            f"{len(tokenizer)}; {len(kept)} are kept"
        )
        pruned, spelled = prune_model(model, kept), prune_tokenizer(tokenizer, kept)
        share = None
        if options.word_rank is not None:
            often = np.array([counts[int(piece)] + 1 for piece in kept])  # those that no text had are words too
            pruned, share = factorise_words(pruned, often, options.word_rank)
            report(
                f"{options.word_rank} channels a word hold {share:.1%} of the squares, frequent words counted often"
            )
        record: dict[str, Any] = {
            "command": command,
            "base": options.checkpoint,
            "pieces": {"before": len(tokenizer), "after": len(kept)},
            "words": {"rank": options.word_rank, "share_of_squares": share},
            "parameters": {
                "before": sum(parameter.numel() for parameter in model.parameters()),
                "after": sum(parameter.numel() for parameter in pruned.parameters()),
            },
        }
        with new_folder(output) as building:
            save_model(building, pruned, spelled)
            if type(model).__name__.endswith("Model"):
                carry_pooling(options.checkpoint, building)
            if type(model).__name__.endswith("ForSequenceClassification"):
                told = carry_record(Path(options.checkpoint), building, pruned, spelled, command, report)
                record["scores"], record["scored"] = told
            (building / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return _summary(output, record)


def _texts(options: PruneOptions) -> Iterator[str]:
    for item in read_texts(options.text, text=options.column, encoding=options.encoding):
        yield item.text
        if item.text_pair is not None:
            yield item.text_pair


def _check_output(options: PruneOptions) -> None:
    output = Path(options.output)
    if output.resolve() == Path(options.checkpoint).resolve():
        raise FolderError(f"--output {output}: that is the checkpoint itself; choose another folder")
    if output.is_file():
        raise FolderError(f"{output} is a file; --output takes a folder")
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if names and "config.json" not in names:
        raise FolderError(f"{output} is not empty and holds no model: choose another --output")
    if names and not options.overwrite:
        raise FolderError(f"{output} holds a model already: choose another --output, or --overwrite it")
    other = foreign_files(output)
    if other:
        raise FolderError(f"{output} holds {', '.join(other[:3])} beside a model, which --overwrite would delete")


def _summary(output: Path, record: dict[str, Any]) -> str:
    pieces, parameters = record["pieces"], record["parameters"]
    lines = [
        f"{pieces['after']} of {pieces['before']} pieces, {parameters['after'] / 1e6:.1f} of "
        f"{parameters['before'] / 1e6:.1f} million parameters"
    ]
    scores = record.get("scores") or {}
    for name, value in scores.get("after", {}).items():
        lines.append(f"{name.replace('_', ' ')}: {scores['before'][name]:.4f} before, {value:.4f} after")
    if "scored" in record and not scores:
        lines.append(f"not scored: {record['scored']}")
    folder = shlex.quote(str(output))
    return "\n".join([*lines, f"written: {output}", f"next: squeezebert export {folder} --output EXPORTED"])
