"""A checkpoint of the BERT architecture in, our class for its head and its tokenizer out; what is no such is refused.

Serves `squeeze` and `prune`.
"""

from __future__ import annotations

from collections.abc import Callable
from logging import ERROR
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

import squeezebert.model as models
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import bert
from squeezebert.model.configuration import model_kind
from squeezebert.training.classifiers import check_tokens, load_tokenizer
from squeezebert.training.runs import first_line
from squeezebert.training.shapes import describe_shape
from squeezebert.training.squeeze import is_dense, shape_of

Report = Callable[[str], None]
# The heads that a checkpoint may come with, by the end of its architecture's name
_HEADS = {
    "ForSequenceClassification": models.SqueezeBertForSequenceClassification,
    "ForTokenClassification": models.SqueezeBertForTokenClassification,
    "ForQuestionAnswering": models.SqueezeBertForQuestionAnswering,
    "ForMultipleChoice": models.SqueezeBertForMultipleChoice,
    "ForMaskedLM": models.SqueezeBertForMaskedLM,
    "ForPreTraining": models.SqueezeBertForMaskedLM,
}


def load_dense(checkpoint: str, report: Report = lambda line: None) -> Any:
    """Load a dense checkpoint as `load_ours` does; raises `OptionError` when it is squeezed already."""
    model = load_ours(checkpoint, report)
    if not is_dense(model.config):
        shape = describe_shape(shape_of(model.config))
        raise OptionError(f"{checkpoint}: it is squeezed already ({shape}): squeeze the dense model it was made from")
    return model


def load_ours(checkpoint: str, report: Report = lambda line: None, verb: str = "squeeze") -> Any:
    """Load a BERT-architecture checkpoint as our class for its head, or as an encoder where it has none; in fp32.

    `report` is told what is left out or starts anew; `verb` is who asks. Raises `FolderError` when there is none or it
    cannot be read, `OptionError` when its architecture does not fit.
    """
    # What they would say is said below
    loggers = [logging.get_logger(name) for name in ("transformers", bert.__name__)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(ERROR)
    try:
        saved, _ = PreTrainedConfig.get_config_dict(checkpoint)
        name = str((saved.get("architectures") or [""])[0])
        kind = next((cls for end, cls in _HEADS.items() if name.endswith(end)), models.SqueezeBertModel)
        if model_kind(saved) == "electra":
            kind = models.SqueezeBertModel
        model, absent = _load(kind, checkpoint)
        if kind is not models.SqueezeBertModel and any(not _of_encoder(key) for key in absent):
            kind = models.SqueezeBertModel  # its name promised a head that is not there
            model, absent = _load(kind, checkpoint)
    except OSError as error:
        raise FolderError(
            f"{checkpoint}: no checkpoint there. {verb} takes a folder with config.json and weights, or the id of a "
            f"model on the Hugging Face Hub, which has to be reachable ({first_line(error)})"
        ) from error
    except ValueError as error:
        raise OptionError(
            f"{checkpoint}: {str(error).rstrip('.')}. {verb} takes BERT (MiniLM and TinyBERT are some), the "
            f"encoder of ELECTRA, and SqueezeBERT."
        ) from error
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise FolderError(f"{checkpoint}: the checkpoint cannot be loaded ({first_line(error)})") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    lost = sorted(key for key in absent if _of_encoder(key) and "pooler" not in key)
    if lost:
        shown = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        raise FolderError(f"{checkpoint}: its weights lack {shown} in the size that config.json says")
    for key, value in model.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise FolderError(f"{checkpoint}: {key} has values that are no finite numbers: the checkpoint is damaged")
    for line in _told_of(name, kind, absent, verb):
        report(f"{checkpoint}: {line}")
    return model


def _load(kind: Any, checkpoint: str) -> tuple[Any, set[str]]:
    """Load a model in fp32, and the names of the weights that the checkpoint has not, or not in their size."""
    model, info = kind.from_pretrained(
        checkpoint, output_loading_info=True, dtype=torch.float32, ignore_mismatched_sizes=True
    )
    return model.eval(), {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}


def _of_encoder(key: str) -> bool:
    """Whether a weight, by BERT's name or ours, is the encoder's and not a head's."""
    return key.removeprefix("bert.").removeprefix("transformer.").startswith(("embeddings", "encoder", "pooler"))


def _told_of(architecture: str, kind: Any, absent: set[str], verb: str) -> list[str]:
    """What of a checkpoint is carried over, where that is not everything."""
    lines = []
    carried = kind.__name__.removeprefix("SqueezeBert")
    if carried == "Model" and architecture and not architecture.endswith(("Model", "ForPreTraining")):
        lines.append(f"its encoder is taken; its head ({architecture}) is left out and has to be trained anew")
    elif carried == "ForMaskedLM" and verb == "squeeze":
        lines.append("its masked-LM head is carried over; its scores are learned with --logit-weight above 0 only")
    if carried not in ("ForTokenClassification", "ForQuestionAnswering") and any("pooler" in key for key in absent):
        lines.append("it has no pooler: the new model's starts from random weights, and training on a task sets it")
    return lines


def matching_tokenizer(checkpoint: str, dense: Any) -> Any:
    """Load a checkpoint's tokenizer. Raises `FolderError` without one, `OptionError` for one of more tokens."""
    tokenizer = load_tokenizer(checkpoint)
    check_tokens(checkpoint, tokenizer, dense)
    return tokenizer
