"""A checkpoint and labels in, a classifier for them out, with its tokenizer: any that transformers loads. No training.

Serves `finetune.py` and all that reads checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig

from squeezebert.data.examples import LabelledData
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from squeezebert.training.runs import first_line
from squeezebert.training.teacher import fits_ours

PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def load_base(
    base: str | Path,
    data: LabelledData,
    option: str = "--base",
    *,
    any_architecture: bool = False,
    dropout: float | None = None,
    spelled: Mapping[str, str] | None = None,
) -> tuple[Any, bool]:
    """Load a checkpoint folder or Hub id as a classifier for the labels of `data`, and say whether it has a head.

    A head that names the same labels in another order is put in that of `data`, and one for other labels is not taken
    over; one that names none is taken as it is. `spelled` is that of `label_order`.

    With `any_architecture`, what is neither BERT's nor ours is loaded as transformers' class for it. `dropout` is for
    all that the configuration has a dropout for; by default they are the checkpoint's.
    Raises `FolderError` when there is no such checkpoint, and `OptionError` for an architecture that does not fit.
    """
    names = data.labels or ("value",)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # a head that starts from nothing is what was asked for
    try:
        kind: Any = SqueezeBertForSequenceClassification
        if any_architecture and not fits_ours(base):
            kind = AutoModelForSequenceClassification
        named = _named_outputs(PreTrainedConfig.get_config_dict(str(base))[0])
        changed: dict[str, Any] = {}
        if dropout is not None:
            theirs = kind is AutoModelForSequenceClassification
            config = AutoConfig.from_pretrained(str(base)) if theirs else SqueezeBertConfig()
            changed = dict.fromkeys(_dropouts_of(config), dropout)
        model, info = kind.from_pretrained(
            str(base),
            output_loading_info=True,
            **changed,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
            problem_type=PROBLEM_TYPES[data.task],
            ignore_mismatched_sizes=True,
        )
        absent = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        weight = output_layer(model).weight
        head = next(name for name, parameter in model.named_parameters() if parameter is weight)
        return model, head not in absent and _is_for(model, named, data.labels, spelled or {})
    except (OSError, SafetensorError) as error:
        raise FolderError(
            f"{base}: no checkpoint there. {option} takes a folder with config.json and weights, or the id of a "
            f"model on the Hugging Face Hub, which has to be reachable ({first_line(error)})"
        ) from error
    except ValueError as error:
        raise OptionError(f"{option} {base}: {error}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)


def _named_outputs(config: Mapping[str, Any]) -> list[str]:
    """The labels that a configuration names, in the order of its outputs; none where it has placeholders."""
    named = config.get("id2label") or {}
    own = [str(label) for _, label in sorted(named.items(), key=lambda item: int(item[0]))]
    return [] if all(label == f"LABEL_{place}" for place, label in enumerate(own)) else own


@torch.no_grad()
def _is_for(model: Any, named: Sequence[str], labels: Sequence[str], spelled: Mapping[str, str]) -> bool:
    """Whether a head is for `labels`; puts its outputs in their order, or makes it new."""
    head = output_layer(model)
    found = [spelled.get(label.lower(), label) for label in named]
    if not named or not labels or found == list(labels):
        return True
    if sorted(found) != sorted(labels):
        torch.nn.init.normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02))
        if head.bias is not None:
            torch.nn.init.zeros_(head.bias)
        return False
    _put_in_order(head, [found.index(label) for label in labels])
    return True


@torch.no_grad()
def _put_in_order(head: torch.nn.Linear, order: Sequence[int]) -> None:
    for parameter in head.parameters():
        parameter.copy_(parameter[list(order)].clone())


def output_layer(model: Any) -> torch.nn.Linear:
    """Return the layer that makes a classifier's answers: the last linear one."""
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]


def longest(model: Any) -> int:
    """Return how many tokens a model has positions for."""
    positions = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    table = next((module for module in positions if isinstance(module, torch.nn.Embedding)), None)
    if table is None:
        most = getattr(model.config, "max_position_embeddings", None)
        return int(most) if most and most > 0 else sys.maxsize  # XLNet has -1, for no limit
    # RoBERTa and its kin count from behind the padding token's number
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def load_task_teacher(
    name: str | Path,
    data: LabelledData,
    tokenizer: Any,
    *,
    any_architecture: bool = False,
    spelled: Mapping[str, str] | None = None,
) -> Any:
    """Load a model that was trained on the labels of `data`, to teach a student that reads with `tokenizer`.

    Its outputs are put in the order of the labels; `spelled` is that of `label_order`. Raises `FolderError` when there
    is none, `OptionError` when its labels or its vocabulary are others.
    """
    label_order(name, data.labels, spelled)
    teacher, trained_head = load_base(name, data, "--teacher", any_architecture=any_architecture, spelled=spelled)
    if not trained_head:
        raise OptionError(
            f"--teacher {name}: it has no head for {len(data.labels) or 1} outputs: train it on this table first"
        )
    if load_tokenizer(name).get_vocab() != tokenizer.get_vocab():
        raise OptionError(f"--teacher {name}: its vocabulary is not the student's, so it would read other words")
    return teacher.eval()


def label_order(name: str | Path, labels: Sequence[str], spelled: Mapping[str, str] | None = None) -> list[int]:
    """Return which output of a trained classifier stands for each of `labels`, as its configuration names them.

    `spelled` is labels by other spellings in small letters, for labels that others name as well; then a checkpoint
    that does not name its outputs is refused, because nothing tells their order. Without, they are in the order of
    `labels`. Raises `OptionError` when it was trained on others, `FolderError` when there is no such checkpoint.
    """
    try:
        saved = PreTrainedConfig.get_config_dict(str(name))[0].get("id2label") or {}
    except OSError as error:
        raise FolderError(
            f"{name}: no checkpoint there. --teacher takes a folder with config.json and weights, or the id of a "
            f"model on the Hugging Face Hub, which has to be reachable ({first_line(error)})"
        ) from error
    own = _named_outputs({"id2label": saved})
    generic = not own
    if not labels or (generic and spelled is None):
        return list(range(len(labels)))
    if generic:
        names = ", ".join(f'"{place}": "..."' for place in range(len(labels)))
        raise OptionError(
            f"--teacher {name}: its config.json does not name its outputs "
            f"({', '.join(map(str, saved.values())) or 'no id2label'}), and in "
            f'another order they would teach the wrong labels; write "id2label": {{{names}}} there, with '
            f"{', '.join(labels)} in the order that it was trained with"
        )
    found = [(spelled or {}).get(label.lower(), label) for label in own]
    if sorted(found) != sorted(labels):
        raise OptionError(
            f"--teacher {name}: it was trained on the labels {', '.join(own[:5])}, not on {', '.join(labels[:5])}"
        )
    return [found.index(label) for label in labels]


def load_tokenizer(base: str | Path) -> Any:
    """Load a checkpoint's tokenizer. Raises `FolderError` when it has none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(base))
    except (OSError, ValueError) as error:
        raise FolderError(f"{base}: no tokenizer there; copy its tokenizer.json beside the weights") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes up where there is none
        raise FolderError(f"{base}: no tokenizer there; copy its tokenizer.json beside the weights")
    return tokenizer


def check_tokens(checkpoint: str | Path, tokenizer: Any, model: Any) -> None:
    """Raise `OptionError` when a tokenizer has more tokens than the model has embeddings, or none to fill up with."""
    if tokenizer.pad_token_id is None or model.config.pad_token_id is None:
        raise OptionError(
            f"{checkpoint}: no padding token, without which texts of different length cannot be read at once: name "
            "one as pad_token in tokenizer_config.json, and its number as pad_token_id in config.json"
        )
    tokens = max(tokenizer.get_vocab().values()) + 1
    if tokens > model.config.vocab_size:
        raise OptionError(
            f"{checkpoint}: its tokenizer has {tokens} tokens, the model embeddings for {model.config.vocab_size}: "
            "they do not belong together; put the tokenizer beside it that the model was trained with"
        )


def set_dropout(model: Any, dropout: float) -> None:
    """Set every dropout of a model, and those that its configuration names."""
    for name in _dropouts_of(model.config):
        setattr(model.config, name, dropout)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        for name, value in vars(module).items():  # numbers, where a module calls dropout as a function
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, dropout)


def _dropouts_of(config: Any) -> list[str]:
    """Names of a configuration's dropouts; those of whole layers are another thing."""
    told = config.to_dict().items()
    return [
        name
        for name, value in told
        if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, float) and "layer" not in name
    ]
