"""Raw text in, a corpus out; a corpus in, a pretrained checkpoint out: the jobs behind `corpus` and `pretrain`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from transformers import set_seed
from transformers.utils import logging

from squeezebert.data.corpus import tokenizer_hash
from squeezebert.data.options import CorpusOptions
from squeezebert.data.pretraining.building import build_corpus
from squeezebert.data.pretraining.rows import PretrainingCorpus
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.lock import only_run
from squeezebert.model import SqueezeBertConfig, SqueezeBertForPreTraining
from squeezebert.training.classifiers import load_tokenizer
from squeezebert.training.options import PretrainOptions
from squeezebert.training.pretraining import pretrain
from squeezebert.training.runs import first_line
from squeezebert.workflows.options import CorpusPlaces, PretrainPlaces


def make_corpus(places: CorpusPlaces, options: CorpusOptions, report: Callable[[str], None]) -> str:
    """Tokenise text into a corpus; return what came of it. Raises what `build_corpus` raises."""
    for source in places.text:
        if Path(source).exists() and Path(places.output).resolve().is_relative_to(Path(source).resolve()):
            raise FolderError(f"--output {places.output}: it lies in {source}, which is read whole; choose another")
    with only_run(places.output):
        manifest = build_corpus(places.text, Path(places.output), options, report)
    train, held_out = manifest["splits"]["train"], manifest["splits"]["held_out"]
    left_out = manifest["left_out"]
    folder = shlex.quote(places.output)
    lines = [
        f"{train['documents']} documents of {train['tokens']} tokens to learn from, {held_out['documents']} of "
        f"{held_out['tokens']} held out",
        f"left out: {left_out['copies']} copies, {left_out['too_short']} too short, "
        f"{left_out['unreadable']} unreadable",
        f"vocabulary: {manifest['vocabulary_entries']} entries",
    ]
    if manifest["notices"]:
        lines.append(f"attribution and licences of the sources: {Path(places.output) / 'notices'}")
    return "\n".join([*lines, f"written: {places.output}", f"next: squeezebert pretrain {folder} --output PRETRAINED"])


def pretrain_corpus(
    places: PretrainPlaces, options: PretrainOptions, command: str, report: Callable[[str], None]
) -> tuple[str, bool]:
    """Pretrain a new model, or one that is there, on a corpus; return what came of it, and whether it is finished.

    Under torchrun the first process alone reports. Raises what `pretrain` raises, and `OptionError` or `FolderError`
    for a configuration or checkpoint that does not load.
    """
    logging.disable_progress_bar()
    first = os.environ.get("RANK", "0") == "0"
    if not first:
        report = lambda line: None  # noqa: E731
    corpus = PretrainingCorpus.open(Path(places.corpus))
    model = _model(places, corpus, options)
    with only_run(places.output):
        result = pretrain(model, corpus, Path(places.output), options, command=command, report=report)
    if not result.finished:
        told_so = f"ended at step {result.steps} of {options.steps}, saved: the same command goes on from there"
        return (told_so if first else ""), False
    folder = shlex.quote(places.output)
    told = {name.removeprefix("held_out_").replace("_", " "): value for name, value in result.held_out.items()}
    shown = [name for name in ("mlm loss", "mlm accuracy", "sop loss", "sop accuracy") if told[name] is not None]
    lines = [f"held-out {name}: {told[name]:.4f}" for name in shown]
    lines += [
        f"written: {places.output}",
        f"next: squeezebert train TABLE --base {folder} --output MODEL",
        f"or, to complete words: squeezebert export {folder} --output WORDS --eval TEXTS.txt",
    ]
    return ("\n".join(lines) if first else ""), True


def _model(places: PretrainPlaces, corpus: PretrainingCorpus, options: PretrainOptions) -> Any:
    """A new model of the configuration, or the checkpoint to go on from."""
    if places.base is not None:
        if places.config is not None:
            raise OptionError("--config is for a new model, and --base has a configuration: give one of them")
        set_seed(options.seed)  # heads that the checkpoint lacks start from it
        try:
            model = SqueezeBertForPreTraining.from_pretrained(places.base)
        except OSError as error:
            raise FolderError(f"--base {places.base}: no checkpoint there ({first_line(error)})") from error
        except ValueError as error:
            raise OptionError(f"--base {places.base}: {error}") from error
        if tokenizer_hash(load_tokenizer(places.base)) != corpus.manifest["tokenizer"]:
            raise OptionError(
                f"--base {places.base}: it was trained with another vocabulary than the corpus was made with: make "
                f"the corpus with --vocabulary {places.base}"
            )
        return _checked(model, f"--base {places.base}")
    tokenizer = corpus.tokenizer()
    told = {
        "vocab_size": corpus.manifest["vocabulary_entries"],
        "pad_token_id": tokenizer.pad_token_id,
        **_read_config(places.config),
    }
    if not isinstance(told["pad_token_id"], int) or not 0 <= told["pad_token_id"] < told["vocab_size"]:
        raise OptionError(f"--config {places.config}: pad_token_id {told['pad_token_id']}: no entry of the vocabulary")
    set_seed(options.seed)
    try:
        return _checked(SqueezeBertForPreTraining(SqueezeBertConfig(**told)), f"--config {places.config}")
    except OptionError:
        raise
    except Exception as error:  # configuration classes raise their own, and torch whatever it stumbles over
        raise OptionError(f"--config {places.config}: no model of it can be made: {first_line(error)}") from error


def _checked(model: Any, option: str) -> Any:
    """Raise `OptionError` for a model that cannot read pairs of segments, or has no layers."""
    if model.config.type_vocab_size < 2:
        raise OptionError(f"{option}: type_vocab_size {model.config.type_vocab_size}: pairs of segments need 2")
    if model.config.num_hidden_layers < 1:
        raise OptionError(f"{option}: num_hidden_layers {model.config.num_hidden_layers}: expected 1 or more")
    return model


def _read_config(path: str | None) -> dict[str, Any]:
    """Read the fields of a configuration that differ from the paper's."""
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
        told = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OptionError(f"--config {path}: cannot be read: {first_line(error)}") from error
    if not isinstance(told, dict):
        raise OptionError(f"--config {path}: expected fields and values, as `hidden_size: 256`")
    known = {field.name for field in fields(SqueezeBertConfig)}
    unknown = [name for name in told if name not in known]
    if unknown:
        raise OptionError(
            f"--config {path}: no field of the model's configuration: {', '.join(map(str, unknown[:5]))}"
        )
    return told
