"""The configuration of a SqueezeBERT: sizes, groups per matrix and layer, and the model type it is saved under.

Serves `modeling.py` and every room that asks what a checkpoint is; a BERT configuration is the case groups = 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

# The matrices of one block whose groups can be chosen, by the name of their option, in the order of computation.
GROUP_FIELDS = (
    "q_groups",
    "k_groups",
    "v_groups",
    "post_attention_groups",
    "intermediate_groups",
    "output_groups",
)
# The only epsilon that transformers' SqueezeBERT computes with inside its blocks, whatever its config says.
TRANSFORMERS_BLOCK_EPSILON = 1e-12


@strict
class SqueezeBertConfig(PreTrainedConfig):
    r"""Configuration of a SqueezeBERT model.

    Sizes and defaults are those of transformers' `SqueezeBertConfig`. Beyond it:

    - each `*_groups` is one number for all layers or a list with one number a layer;
    - `layer_norm_eps` is used in every LayerNorm;
    - `embedding_size` may differ from `hidden_size` (factorised embeddings, as in ALBERT).

    A configuration that transformers' class can express is saved as `model_type: squeezebert` and loads there;
    any other is saved as `model_type: squeezebert-general`, which transformers' Auto classes refuse unless
    `squeezebert.model` has been imported.
    """

    model_type = "squeezebert-general"
    transformers_model_type: ClassVar[str] = "squeezebert"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    # None: as wide as hidden_size
    embedding_size: int | None = None
    q_groups: int | list[int] = 4
    k_groups: int | list[int] = 4
    v_groups: int | list[int] = 4
    post_attention_groups: int | list[int] = 1
    intermediate_groups: int | list[int] = 4
    output_groups: int | list[int] = 4
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.embedding_size is None:
            self.embedding_size = self.hidden_size
        for field in GROUP_FIELDS:
            value = getattr(self, field)
            if isinstance(value, (list, tuple)) and len(set(value)) == 1 and len(value) == self.num_hidden_layers:
                setattr(self, field, value[0])  # a uniform list and its number are one configuration
        super().__post_init__(**kwargs)

    def check_sizes(self) -> None:
        """Check that heads and groups divide the widths they split; every model class does so when it is built.

        Raises `ValueError` naming the option, its value and what it has to divide.
        """
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        for field in GROUP_FIELDS:
            value = getattr(self, field)
            if isinstance(value, (list, tuple)) and len(value) != self.num_hidden_layers:
                raise ValueError(
                    f"{field} lists {len(value)} layers, but the model has {self.num_hidden_layers}: "
                    "give one number for all layers, or one a layer"
                )
            widths = {self.hidden_size}
            if field in ("intermediate_groups", "output_groups"):
                widths.add(self.intermediate_size)
            for groups in set(value) if isinstance(value, (list, tuple)) else {value}:
                if groups < 1 or any(width % groups for width in widths):
                    raise ValueError(
                        f"{field} = {groups} does not divide {' and '.join(map(str, sorted(widths)))}: "
                        "the groups of a layer must divide its input and its output channels"
                    )

    def groups(self, field: str, layer: int) -> int:
        """Return the number of groups of one matrix: `field` of `GROUP_FIELDS` in block `layer`, from 0."""
        value = getattr(self, field)
        return int(value[layer] if isinstance(value, (list, tuple)) else value)

    @property
    def fits_transformers(self) -> bool:
        """Whether transformers' own SqueezeBERT class computes the same function from this configuration."""
        return (
            self.embedding_size == self.hidden_size
            and self.layer_norm_eps == TRANSFORMERS_BLOCK_EPSILON
            and all(isinstance(getattr(self, field), int) for field in GROUP_FIELDS)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as it is saved, under the model type that says who can load it."""
        output: dict[str, Any] = super().to_dict()
        if self.fits_transformers:
            output["model_type"] = self.transformers_model_type
        return output

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a saved configuration; `squeezebert` and `bert` ones are translated into this class's terms.

        Raises `ValueError` for any other model type: its weights would not fit.
        """
        config, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        return cls.translate(config), kwargs

    @classmethod
    def translate(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a saved `squeezebert`, `squeezebert-general` or `bert` configuration in this class's terms.

        Raises `ValueError` for another model type, and for a BERT that is a decoder or has relative positions.
        """
        translated = dict(config)
        kind = translated.get("model_type", cls.model_type)
        if kind == "bert":
            if translated.pop("is_decoder", False) or translated.pop("add_cross_attention", False):
                raise ValueError("this BERT is a decoder; SqueezeBERT is an encoder and cannot express it")
            if translated.pop("position_embedding_type", "absolute") != "absolute":
                raise ValueError("this BERT has relative positions; SqueezeBERT has absolute ones only")
            translated.pop("use_cache", None)
            translated.pop("embedding_size", None)
            translated.update(dict.fromkeys(GROUP_FIELDS, 1))
        elif kind not in ("", cls.model_type, cls.transformers_model_type):
            raise ValueError(
                f"model type {kind!r} is not a SqueezeBERT or a BERT: its weights do not fit these classes. "
                "Load it with transformers' AutoModel instead."
            )
        translated["model_type"] = cls.model_type
        return translated
