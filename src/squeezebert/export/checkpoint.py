"""A checkpoint folder in; its model, tokenizer, task and evaluation rows out. Serves the exporter."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
import transformers
from torch import Tensor
from torch.nn import functional

from squeezebert.files.english import units
from squeezebert.files.errors import FolderError, TableError
from squeezebert.files.manifest import MANIFEST, TASKS, Task, read_json
from squeezebert.model import (
    SqueezeBertConfig,
    SqueezeBertForMaskedLM,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
    SqueezeBertModel,
)
from squeezebert.runtime.tokens import MASK, Text

Pooling = Literal["mean", "first"]
Model = (
    SqueezeBertForSequenceClassification
    | SqueezeBertForTokenClassification
    | SqueezeBertForMaskedLM
    | SqueezeBertModel
)

DESCRIPTION = "squeezebert.json"
DESCRIPTION_FORMAT = 1
EVALUATION = "evaluation.jsonl"

_TASK_OF_PROBLEM = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
# What makes a text's vector, as sentence-transformers keeps it: the mean of all tokens, or the first one
POOLING = "1_Pooling/config.json"
PROBLEM_OF_TASK = {task: problem for problem, task in _TASK_OF_PROBLEM.items()}
# Ends of the names of heads, as config.json has them -> the class that reads the checkpoint
_HEADS: dict[str, Any] = {
    "ForSequenceClassification": SqueezeBertForSequenceClassification,
    "ForTokenClassification": SqueezeBertForTokenClassification,
    "ForMaskedLM": SqueezeBertForMaskedLM,
    "ForPreTraining": SqueezeBertForMaskedLM,
    "Model": SqueezeBertModel,
}


@dataclass(frozen=True)
class EvaluationRow:
    """One text whose answer is known, or not."""

    text: str
    """the text"""
    text_pair: str | None
    """its second text, for a model of pairs"""
    label: str | tuple[str, ...] | float | None
    """a label, all labels that apply, a label for each word and sign, a number, or None where nothing is known"""

    @property
    def as_text(self) -> Text:
        """The text or the pair as the runtime takes it."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be exported."""

    folder: Path
    """where it was read from"""
    model: Model
    """in fp32, for evaluation: a classifier of texts or tokens, an encoder that embeds, or one that guesses masked
    words"""
    tokenizer: Any
    """as transformers loads it"""
    task: Task
    """what the model answers"""
    labels: tuple[str, ...]
    """in the order of its outputs; empty for regression, embedding and masked-lm"""
    max_length: int
    """longest input in tokens"""
    pair: bool | None
    """whether it reads two texts; None when the checkpoint does not say"""
    temperature: float
    """what its logits are divided by"""
    thresholds: tuple[float, ...] | None
    """multi-label: least probability of each label"""
    pooling: Pooling = "mean"
    """embedding: what makes a text's vector"""

    @property
    def outputs(self) -> int:
        """How many numbers an answer has."""
        sizes = {"embedding": self.model.config.hidden_size, "masked-lm": self.model.config.vocab_size}
        return sizes.get(self.task, len(self.labels) or 1)

    @torch.no_grad()
    def answer(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Return the model's logits (B, L) or vectors of length 1 (B, C) for token ids, mask and types (B, T)."""
        found = self.model(ids, attention_mask=mask, token_type_ids=types)
        if self.task != "embedding":
            return cast(Tensor, found.logits)
        states_BTC = found.last_hidden_state
        if self.pooling == "first":
            return functional.normalize(states_BTC[:, 0], dim=-1)
        kept_BT1 = mask.unsqueeze(-1).to(states_BTC.dtype)
        return functional.normalize((states_BTC * kept_BT1).sum(1) / kept_BT1.sum(1), dim=-1)

    @torch.no_grad()
    def words(self, ids: Tensor, mask: Tensor, types: Tensor, positions: Tensor) -> Tensor:
        """Return a masked-lm's logits (P, V) at positions (P, 2), of text and token, of a batch (B, T)."""
        model = cast(SqueezeBertForMaskedLM, self.model)
        states_BTC = model.transformer(ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        return cast(Tensor, model.cls.predictions(states_BTC[positions[:, 0], positions[:, 1]]))

    @property
    def token_types(self) -> bool:
        """Whether the second text of a pair is marked by token type 1."""
        return "token_type_ids" in self.tokenizer.model_input_names and self.model.config.type_vocab_size > 1

    def config(self) -> dict[str, Any]:
        """Return `config.json` of the exported folder, under the model type that transformers.js has a class for."""
        config: dict[str, Any] = self.model.config.to_dict()
        names = self.labels or ("LABEL_0",)
        config.update(model_type=SqueezeBertConfig.transformers_model_type, architectures=[type(self.model).__name__])
        if self.task in PROBLEM_OF_TASK:
            config.update(
                id2label={str(i): label for i, label in enumerate(names)},
                label2id={label: i for i, label in enumerate(names)},
                problem_type=PROBLEM_OF_TASK[self.task],
            )
        for key in ("dtype", "_name_or_path"):  # of this load, not of the model
            config.pop(key, None)
        return config


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint that `save_pretrained` wrote, of our classes or of BERT's.

    It is a classifier of texts or of tokens, an encoder, or a masked-lm.

    `squeezebert.json` says what training knew; without it the task comes from `config.json`. An encoder embeds: the
    mean of its tokens, or what sentence-transformers' `1_Pooling` beside it says, is a text's vector. Of a pretraining
    checkpoint the masked-lm is read; its sentence-order head answers nothing that is asked later.
    Raises `FolderError` for a folder that is missing, of another kind, incomplete, damaged, or has another head.
    """
    _check_kind(folder)
    model = _read_model(folder)
    tokenizer = _read_tokenizer(folder)
    config = model.config
    tokens = max(tokenizer.get_vocab().values()) + 1
    if tokens > config.vocab_size:
        raise FolderError(
            f"{folder}: the tokenizer has {tokens} tokens, the model {config.vocab_size}: they do not belong together"
        )
    if isinstance(model, SqueezeBertModel):
        return _encoder(folder, model, tokenizer)
    if isinstance(model, SqueezeBertForMaskedLM):
        return _masked_lm(folder, model, tokenizer)
    about = _read_description(folder)
    count, names = model.classifier.out_features, cast(dict[int, str], config.id2label or {})
    tokens = isinstance(model, SqueezeBertForTokenClassification)
    task = "token-labels" if tokens else about.get("task") or _TASK_OF_PROBLEM.get(str(config.problem_type))
    task = task or ("regression" if count == 1 else "single_label")
    if task not in TASKS:
        raise FolderError(f"{folder / DESCRIPTION}: task {task!r} is none of {', '.join(TASKS)}")
    labels = tuple(about.get("labels") or [str(names.get(i, i)) for i in range(count)])
    labels = () if task == "regression" else labels
    expected = 1 if task == "regression" else len(labels)
    if expected != count:
        raise FolderError(f"{folder}: the model has {count} outputs, but {task} with these labels needs {expected}")
    if len(set(labels)) != len(labels):
        raise FolderError(f"{folder}: two labels have the same name")
    longest = min(int(about.get("max_length") or tokenizer.model_max_length), config.max_position_embeddings)
    columns = about.get("text_columns")
    thresholds = about.get("thresholds")
    temperature = float((about.get("calibration") or {}).get("temperature") or 1.0)
    temperature = 1.0 if task == "regression" else temperature
    if not 0 < temperature < math.inf:
        raise FolderError(f"{folder / DESCRIPTION}: calibration temperature {temperature}; it must be above 0")
    if thresholds is not None and len(thresholds) != len(labels):
        raise FolderError(f"{folder / DESCRIPTION}: {len(thresholds)} thresholds for {len(labels)} labels")
    return Checkpoint(
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        task=cast(Task, task),
        labels=labels,
        max_length=longest,
        pair=False if tokens else None if columns is None else columns.get("text_pair") is not None,
        temperature=temperature,
        thresholds=None if thresholds is None else tuple(float(value) for value in thresholds),
    )


def _encoder(folder: Path, model: SqueezeBertModel, tokenizer: Any) -> Checkpoint:
    """An encoder as a checkpoint, with the longest text and the pooling that sentence-transformers' files name."""
    limits = folder / "sentence_bert_config.json"
    told = read_json(limits) if limits.is_file() else {}
    longest = told.get("max_seq_length") if isinstance(told, dict) else None
    longest = min(int(longest or tokenizer.model_max_length), model.config.max_position_embeddings)
    pooling: Pooling = "mean"
    if (folder / POOLING).is_file():
        modes = read_json(folder / POOLING)
        chosen = [mode for mode, on in modes.items() if mode.startswith("pooling_mode_") and on is True]
        chosen = chosen or [f"pooling_mode_{modes.get('pooling_mode')}"]
        known: dict[str, Pooling] = {
            "pooling_mode_mean_tokens": "mean",
            "pooling_mode_cls_token": "first",
            "pooling_mode_mean": "mean",
            "pooling_mode_cls": "first",
        }
        if len(chosen) != 1 or chosen[0] not in known:
            raise FolderError(
                f"{folder / POOLING}: {', '.join(chosen)}; only the mean of tokens or the first one can be exported"
            )
        pooling = known[chosen[0]]
    return Checkpoint(folder, model, tokenizer, "embedding", (), longest, False, 1.0, None, pooling)


def _masked_lm(folder: Path, model: SqueezeBertForMaskedLM, tokenizer: Any) -> Checkpoint:
    """A masked-lm as a checkpoint. Raises `FolderError` for a vocabulary without a mask or not of WordPiece's kind."""
    if tokenizer.mask_token != MASK:
        raise FolderError(f"{folder}: the tokenizer has no {MASK}, which a model of masked words is asked with")
    kind = type(tokenizer.backend_tokenizer.model).__name__
    if kind != "WordPiece":
        raise FolderError(
            f"{folder}: the tokenizer is {kind}; words are put together from the pieces of WordPiece, BERT's kind"
        )
    longest = min(int(tokenizer.model_max_length), model.config.max_position_embeddings)
    return Checkpoint(folder, model, tokenizer, "masked-lm", (), longest, False, 1.0, None)


def read_rows(path: Path, checkpoint: Checkpoint) -> list[EvaluationRow]:
    """Read evaluation rows from JSON lines {"text", "text_pair", "label"}.

    Raises `TableError` naming file and line.
    """
    if not path.is_file():
        raise TableError(f"{path}: no such file; evaluation rows are JSON lines with text, text_pair and label")
    rows = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                try:
                    found = json.loads(line)
                except ValueError as error:
                    raise TableError(f"{path}:{number}: not JSON ({error})") from error
                rows.append(check_row(found, checkpoint, f"{path}:{number}"))
    return rows


def check_rows(examples: Sequence[Mapping[str, Any]], checkpoint: Checkpoint) -> list[EvaluationRow]:
    """Return examples as rows. Raises `TableError` naming the index of one that does not fit the model."""
    return [check_row(example, checkpoint, f"example {i}") for i, example in enumerate(examples)]


def check_row(found: Any, checkpoint: Checkpoint, place: str) -> EvaluationRow:
    """Return one row whose texts and label fit the checkpoint. Raises `TableError` beginning with `place`."""
    if not isinstance(found, Mapping) or not isinstance(found.get("text"), str):
        raise TableError(f"{place}: an evaluation row needs a `text`")
    text_pair, label = found.get("text_pair"), found.get("label")
    if text_pair is not None and not isinstance(text_pair, str):
        raise TableError(f"{place}: `text_pair` is {type(text_pair).__name__}, not text")
    if checkpoint.pair is not None and checkpoint.pair != (text_pair is not None):
        raise TableError(f"{place}: the model reads {'pairs of texts' if checkpoint.pair else 'single texts'}")
    if label is None or checkpoint.task in ("embedding", "masked-lm"):
        return EvaluationRow(found["text"], text_pair, None)
    if checkpoint.task == "regression":
        if not isinstance(label, (int, float)) or isinstance(label, bool) or not math.isfinite(label):
            raise TableError(f"{place}: label {label!r} is no number, and the model answers with one")
        return EvaluationRow(found["text"], text_pair, float(label))
    several = checkpoint.task in ("multi_label", "token-labels")
    given = tuple(label) if isinstance(label, (list, tuple)) and several else (label,)
    if checkpoint.task == "token-labels" and len(given) != len(units(found["text"])):
        raise TableError(f"{place}: {len(given)} labels for {len(units(found['text']))} words and signs of the text")
    unknown = [name for name in given if name not in checkpoint.labels]
    if unknown:
        known = ", ".join(checkpoint.labels[:8]) + (", ..." if len(checkpoint.labels) > 8 else "")
        raise TableError(f"{place}: label {unknown[0]!r} is none of the model's: {known}")
    return EvaluationRow(found["text"], text_pair, given if several else label)


def _check_kind(folder: Path) -> None:
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder; name the checkpoint folder that training wrote")
    if (folder / MANIFEST).is_file():
        raise FolderError(f"{folder}: exported already; name the checkpoint it was made from")
    if not (folder / "config.json").is_file():
        raise FolderError(f"{folder}: not a checkpoint: it has no config.json (as save_pretrained writes it)")
    config = read_json(folder / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in ("bert", SqueezeBertConfig.model_type, SqueezeBertConfig.transformers_model_type):
        raise FolderError(f"{folder}: a checkpoint of model type {kind!r}; only SqueezeBERT and BERT can be exported")
    for head in config.get("architectures") or ():
        if not head.endswith(tuple(_HEADS)):
            raise FolderError(
                f"{folder}: holds a {head}; only classifiers of texts and tokens, masked language models, and "
                "encoders without a head can be exported: finetune it first"
            )
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise FolderError(f"{folder}: no weights: expected model.safetensors beside config.json")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise FolderError(
            f"{folder}: no tokenizer: expected tokenizer.json beside config.json; "
            "copy it from the model that training started from"
        )


def _read_model(folder: Path) -> Model:
    heads: list[str] = read_json(folder / "config.json").get("architectures") or ["ForSequenceClassification"]
    kind = next(kind for head, kind in _HEADS.items() if heads[0].endswith(head))
    try:
        with quiet_transformers():
            model, info = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise FolderError(f"{folder}: the checkpoint cannot be loaded ({error})") from error
    # An encoder embeds, and a masked-lm scores, what is before the pooler
    pools = kind is not SqueezeBertModel and kind._uses_pooler
    absent = sorted(key for key in info["missing_keys"] if pools or "pooler." not in key)
    if absent:
        raise FolderError(
            f"{folder}: the weights lack {', '.join(absent[:3])}{' and more' if len(absent) > 3 else ''}: "
            "not a finished checkpoint of its kind; finetune it first"
        )
    model = model.float().eval()
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise FolderError(f"{folder}: the weights of {name} hold NaN or infinity; training went wrong before this")
    return cast(Model, model)


def _read_tokenizer(folder: Path) -> Any:
    try:
        with quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # as above
        raise FolderError(f"{folder}: the tokenizer cannot be loaded ({error})") from error
    if not tokenizer.is_fast:
        raise FolderError(f"{folder}: the tokenizer has no tokenizer.json form, which the runtime needs")
    return tokenizer


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        return {}
    about = read_json(path)
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise FolderError(f"{path}: damaged: no format version")
    if about["format"] > DESCRIPTION_FORMAT:
        raise FolderError(
            f"{path}: format {about['format']}, and this squeezebert reads up to {DESCRIPTION_FORMAT}: update it"
        )
    return about


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold back progress bars and loading reports, transformers' and ours; what they say is checked and told by us."""
    logs, own = transformers.logging, logging.getLogger(SqueezeBertConfig.__module__.rpartition(".")[0])
    verbosity, bars, level = logs.get_verbosity(), logs.is_progress_bar_enabled(), own.level
    own.setLevel(logging.CRITICAL)
    logs.set_verbosity(logging.CRITICAL)
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
        own.setLevel(level)
        if bars:
            logs.enable_progress_bar()
