"""BERT weights as SqueezeBERT weights with groups = 1.

In: a BERT checkpoint's folder or Hub id and a SqueezeBERT class. Out: that class with the same outputs.
Serves `from_pretrained` of every class in `modeling.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig

from squeezebert.model.configuration import GROUP_FIELDS, SqueezeBertConfig

if TYPE_CHECKING:
    from squeezebert.model.modeling import SqueezeBertPreTrainedModel

# BERT's parameter names -> ours; the first expression that matches wins
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^bert\.", "transformer."),
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
    """Return BERT's parameters under SqueezeBERT's names and shapes: (C_out, C_in) becomes (C_out, C_in, 1)."""
    converted = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in _RENAMES:
            new = pattern.sub(replacement, new)
        converted[new] = tensor.unsqueeze(-1) if _GROUPED.search(new) else tensor
    return converted


def load_bert(cls: type[SqueezeBertPreTrainedModel], name: Any, *args: Any, **kwargs: Any) -> Any:
    """Return `cls` with the weights of the BERT checkpoint `name`, or None when it is not a BERT checkpoint.

    The checkpoint is read by transformers' own BERT class of the same task, so every format it reads is read here.
    Raises `ValueError` when the BERT has no class for the task.
    """
    if name is None or kwargs.get("state_dict") is not None:
        return None
    given = kwargs.get("config")
    hub = {k: kwargs[k] for k in ("cache_dir", "revision", "token", "local_files_only", "subfolder") if k in kwargs}
    saved, _ = PreTrainedConfig.get_config_dict(name, **hub)
    if saved.get("model_type") != "bert":
        return None
    bert_class = getattr(transformers, cls.__name__.replace("SqueezeBert", "Bert"))
    kwargs.pop("config", None)
    if isinstance(given, SqueezeBertConfig):
        if any(given.groups(name, layer) != 1 for name in GROUP_FIELDS for layer in range(given.num_hidden_layers)):
            raise ValueError(f"{name} is a BERT: its weights are those of groups = 1; load it so, then squeeze it")
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
    model = cls(config).to(bert.dtype)
    with torch.no_grad():
        missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected:
        raise ValueError(f"the BERT checkpoint {name} has weights without a place in SqueezeBERT: {unexpected[:5]}")
    model.tie_weights()
    if any(key.startswith(("pooler", "transformer.pooler")) for key in missing):
        transformers.logging.get_logger(__name__).warning(
            "%s has no pooler: it starts from random weights and needs training", name
        )
    model.eval()
    return (model, info) if wants_info else model
