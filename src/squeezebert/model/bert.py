"""BERT weights, and those of ELECTRA's encoder, as SqueezeBERT weights with groups = 1.

In: a checkpoint's folder or Hub id and a SqueezeBERT class. Out: that class with the same outputs.
Serves `from_pretrained` of every class in `modeling.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig

from squeezebert.model.configuration import GROUP_FIELDS, TRANSLATED_TYPES, SqueezeBertConfig, model_kind

if TYPE_CHECKING:
    from squeezebert.model.modeling import SqueezeBertPreTrainedModel

# BERT's parameter names -> ours; the first expression that matches wins
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^bert\.", "transformer."),
        (r"^embeddings_project\.", "embeddings.projection."),  # ELECTRA's
        (r"encoder\.layer\.(\d+)\.attention\.self\.", r"encoder.layers.\1.attention."),
        (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"encoder.layers.\1.post_attention.conv1d."),
        (
            r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.",
            r"encoder.layers.\1.post_attention.layernorm.",
        ),
        (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"encoder.layers.\1.intermediate.conv1d."),
        (r"encoder\.layer\.(\d+)\.output\.dense\.", r"encoder.layers.\1.output.conv1d."),
        (r"encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"encoder.layers.\1.output.layernorm."),
    )
)
_GROUPED = re.compile(r"encoder\.layers\.\d+\.(attention\.(query|key|value)|\w+\.conv1d)\.weight$")


def convert_bert_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return BERT's or ELECTRA's parameters under our names and shapes: (C_out, C_in) becomes (C_out, C_in, 1)."""
    converted = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in _RENAMES:
            new = pattern.sub(replacement, new)
        converted[new] = tensor.unsqueeze(-1) if _GROUPED.search(new) else tensor
    return converted


def load_bert(cls: type[SqueezeBertPreTrainedModel], name: Any, *args: Any, **kwargs: Any) -> Any:
    """Return `cls` with the weights of the BERT or ELECTRA checkpoint `name`, or None when it is neither.

    The checkpoint is read by transformers' own class, BERT's of the same task, so every format it reads is read here.
    Of an ELECTRA it is the encoder: its heads are other functions, and it has no pooler.
    Raises `ValueError` when the BERT has no class for the task, `OSError` for a folder without a configuration.
    """
    if name is None or kwargs.get("state_dict") is not None:
        return None
    given = kwargs.get("config")
    hub = {k: kwargs[k] for k in ("cache_dir", "revision", "token", "local_files_only", "subfolder") if k in kwargs}
    saved, _ = PreTrainedConfig.get_config_dict(name, **hub)
    if not saved and given is None:  # transformers would go on with the defaults, and random weights
        raise OSError(f"{name} has no config.json")
    kind = model_kind(saved)
    if kind not in TRANSLATED_TYPES:
        return None
    SqueezeBertConfig.translate(saved)  # a decoder is refused before its weights are read
    encoder_only = kind == "electra"
    theirs = "ElectraModel" if encoder_only else cls.__name__.replace("SqueezeBert", "Bert")
    # Their masked LM has no pooler; where the checkpoint has one, it is worth keeping
    bert_class = getattr(transformers, theirs.replace("ForMaskedLM", "ForPreTraining"))
    kwargs.pop("config", None)
    if isinstance(given, SqueezeBertConfig):
        if any(given.groups(name, layer) != 1 for name in GROUP_FIELDS for layer in range(given.num_hidden_layers)):
            raise ValueError(
                f"{name} is a {TRANSLATED_TYPES[kind]}: its weights are those of groups = 1; load it so, then squeeze "
                "it"
            )
        kwargs.update(num_labels=given.num_labels, id2label=given.id2label, label2id=given.label2id)
    elif given is not None:
        kwargs["config"] = given
    wants_info = kwargs.pop("output_loading_info", False)
    bert, info = bert_class.from_pretrained(name, *args, output_loading_info=True, **kwargs)
    if isinstance(given, SqueezeBertConfig):
        config = given
    else:
        translated = SqueezeBertConfig.translate(bert.config.to_dict())
        translated.pop("model_type")
        config = SqueezeBertConfig(**translated)
    config._attn_implementation = bert.config._attn_implementation
    config.name_or_path = str(name)
    state = convert_bert_weights(bert.state_dict())
    if bert_class is transformers.BertForPreTraining:
        # Next-sentence prediction is another question than sentence order: its head is not carried over
        state = {k: v for k, v in state.items() if "seq_relationship" not in k}
        order = {"cls.seq_relationship.weight", "cls.seq_relationship.bias"} if theirs.endswith("MaskedLM") else set()
        info["missing_keys"] = set(info["missing_keys"]) - order
    model = cls(config).to(bert.dtype)
    target = model.base_model if encoder_only else model
    with torch.no_grad():
        missing, unexpected = target.load_state_dict(state, strict=False)
    if unexpected:
        raise ValueError(f"the BERT checkpoint {name} has weights without a place in SqueezeBERT: {unexpected[:5]}")
    model.tie_weights()
    _warn_of_new_weights(name, model, {*missing, *info["missing_keys"]}, encoder_only)
    if encoder_only:
        new = {key for key in model.state_dict() if key.removeprefix("transformer.") not in state}
        info["missing_keys"] = {*info["missing_keys"], *new}
    model.eval()
    return (model, info) if wants_info else model


def _warn_of_new_weights(name: Any, model: Any, absent: set[str], encoder_only: bool) -> None:
    """Tell the user which parts the checkpoint has not."""
    log = transformers.logging.get_logger(__name__)
    if encoder_only and model.base_model is not model:
        log.warning(
            "%s is an ELECTRA: its encoder alone is carried over; pooler and head start from random weights and need "
            "training",
            name,
        )
    elif any(key.endswith("pooler.dense.weight") for key in absent):
        log.warning("%s has no pooler: it starts from random weights and needs training", name)
