"""The configuration of a SqueezeBERT: sizes, the shape of each matrix, and the model type it is saved under.

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
# The ranks of their low-rank remainders, in the same order.
RANK_FIELDS = tuple(field.replace("_groups", "_rank") for field in GROUP_FIELDS)
QKV_RANKS = RANK_FIELDS[:3]
# What can be a list with one value a layer
_LAYER_FIELDS = (*GROUP_FIELDS, *RANK_FIELDS, "intermediate_size", "kept_heads", "intermediate_act")
# Model types whose weights are those of a SqueezeBERT with groups = 1, with the name people know.
TRANSLATED_TYPES = {"bert": "BERT", "electra": "ELECTRA"}
# The only epsilon that transformers' SqueezeBERT computes with inside its blocks, whatever its config says.
TRANSFORMERS_BLOCK_EPSILON = 1e-12


@strict
class SqueezeBertConfig(PreTrainedConfig):
    r"""Configuration of a SqueezeBERT model.

    Sizes and defaults are those of transformers' `SqueezeBertConfig`. Beyond it:

    - the *shape* of a matrix is its number of groups (1 dense, 0 no blocks at all) and the rank of a low-rank
      remainder that is added to the blocks (0 none): the six `*_groups` and the six `*_rank`, each one number for
      all layers or a list with one number a layer;
    - `shared_qkv_rank` lets query, key and value share the first factor of their remainders, so that one product
      makes the reduced input of all three: at equal multiply-adds the rank is 1.5 times as large;
    - `intermediate_size` may be a list with one width a layer, and `kept_heads` says how many of the
      `num_attention_heads` each layer has (all by default); a head's size stays `hidden_size / num_attention_heads`.
      0 leaves the feed-forward network, or attention, of a layer out: what it reads is what it hands on;
    - `intermediate_act` is the activation of the feed-forward networks, one for all layers or one a layer, where it
      is not `hidden_act`;
    - `channel_order` notes, for a model whose channels were put in another order when it was squeezed, which channel
      of the original's hidden states each of its own is; it changes nothing that is computed;
    - `layer_norm_eps` is used in every LayerNorm;
    - `embedding_size` may differ from `hidden_size` (factorised embeddings, as in ALBERT);
    - `word_rank` makes the table of words the product of a narrow table and one matrix, before positions and token
      types are added: unlike ALBERT's form it can be fitted to a table that is there already. A head that scores words
      reads that table, so models with one have none.

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
    intermediate_size: int | list[int] = 3072
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
    # None: all of num_attention_heads
    kept_heads: int | list[int] | None = None
    # None: hidden_act
    intermediate_act: str | list[str] | None = None
    # None: as wide as hidden_size
    embedding_size: int | None = None
    # None: the word table is as wide as embedding_size
    word_rank: int | None = None
    q_groups: int | list[int] = 4
    k_groups: int | list[int] = 4
    v_groups: int | list[int] = 4
    post_attention_groups: int | list[int] = 1
    intermediate_groups: int | list[int] = 4
    output_groups: int | list[int] = 4
    q_rank: int | list[int] = 0
    k_rank: int | list[int] = 0
    v_rank: int | list[int] = 0
    post_attention_rank: int | list[int] = 0
    intermediate_rank: int | list[int] = 0
    output_rank: int | list[int] = 0
    shared_qkv_rank: bool = False
    channel_order: list[int] | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.embedding_size is None:
            self.embedding_size = self.hidden_size
        for field in _LAYER_FIELDS:
            value = getattr(self, field)
            if isinstance(value, (list, tuple)) and len(set(value)) == 1 and len(value) == self.num_hidden_layers:
                setattr(self, field, value[0])  # a uniform list and its number are one configuration
        # What is as it is without saying so is one configuration with what is not said
        if self.kept_heads == self.num_attention_heads:
            self.kept_heads = None
        if self.intermediate_act == self.hidden_act:
            self.intermediate_act = None
        super().__post_init__(**kwargs)

    def check_sizes(self) -> None:
        """Check that heads and groups divide the widths they split, and that every matrix has groups or a rank.

        Every model class does so when it is built. Raises `ValueError` naming the option, its value and what is wrong.
        """
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        for field in _LAYER_FIELDS:
            value = getattr(self, field)
            if isinstance(value, (list, tuple)) and len(value) != self.num_hidden_layers:
                raise ValueError(
                    f"{field} lists {len(value)} layers, but the model has {self.num_hidden_layers}: "
                    "give one number for all layers, or one a layer"
                )
        width = self.embedding_size or self.hidden_size
        if self.word_rank is not None and not 1 <= self.word_rank < width:
            raise ValueError(f"word_rank {self.word_rank}: expected a number from 1 to below embedding_size {width}")
        for layer in range(self.num_hidden_layers):
            heads, width = self.heads(layer), self.width(layer)
            if not 0 <= heads <= self.num_attention_heads:
                raise ValueError(
                    f"kept_heads = {heads} in layer {layer}: expected 0 to {self.num_attention_heads}, the "
                    "num_attention_heads"
                )
            if width < 0:
                raise ValueError(f"intermediate_size = {width} in layer {layer}: expected 0 or more")
            for field, rank_field in zip(GROUP_FIELDS, RANK_FIELDS, strict=True):
                self._check_shape(field, rank_field, layer)
            ranks = [self.rank(field, layer) for field in QKV_RANKS]
            if self.shared_qkv_rank and len(set(ranks)) > 1:
                raise ValueError(
                    f"{', '.join(QKV_RANKS)} = {ranks} in layer {layer}: with shared_qkv_rank the three are one number"
                )

    def _check_shape(self, field: str, rank_field: str, layer: int) -> None:
        groups, rank = self.groups(field, layer), self.rank(rank_field, layer)
        feed_forward = field in ("intermediate_groups", "output_groups")
        widths = [self.hidden_size, self.width(layer) if feed_forward else self.attention_width(layer)]
        if not widths[1]:
            return  # left out
        if groups < 0 or rank < 0:
            raise ValueError(f"{field} = {groups} and {rank_field} = {rank} in layer {layer}: expected 0 or more")
        if groups == 0 and rank == 0:
            raise ValueError(
                f"{field} = 0 leaves the matrix of layer {layer} without blocks, and {rank_field} = 0 without a rank: "
                "give one of them"
            )
        if groups and any(width % groups for width in widths):
            raise ValueError(
                f"{field} = {groups} does not divide {' and '.join(map(str, sorted(set(widths))))}: "
                "the groups of a layer must divide its input and its output channels"
            )
        if rank > min(widths):
            raise ValueError(f"{rank_field} = {rank}: no matrix of this model has a rank above {min(widths)}")

    def groups(self, field: str, layer: int) -> int:
        """Return the number of groups of one matrix: `field` of `GROUP_FIELDS` in block `layer`, from 0."""
        return self._of_layer(field, layer)

    def rank(self, field: str, layer: int) -> int:
        """Return the rank of one matrix's remainder: `field` of `RANK_FIELDS` in block `layer`, from 0."""
        return self._of_layer(field, layer)

    def width(self, layer: int) -> int:
        """Return how many channels the feed-forward network of block `layer` has between its halves."""
        return self._of_layer("intermediate_size", layer)

    def heads(self, layer: int) -> int:
        """Return how many attention heads block `layer` has."""
        return self.num_attention_heads if self.kept_heads is None else self._of_layer("kept_heads", layer)

    def attention_width(self, layer: int) -> int:
        """Return how many channels the heads of block `layer` have together."""
        return self.heads(layer) * (self.hidden_size // self.num_attention_heads)

    def activation(self, layer: int) -> str:
        """Return the name of the activation in the feed-forward network of block `layer`."""
        value = self.hidden_act if self.intermediate_act is None else self.intermediate_act
        return value[layer] if isinstance(value, (list, tuple)) else value

    def _of_layer(self, field: str, layer: int) -> int:
        value = getattr(self, field)
        return int(value[layer] if isinstance(value, (list, tuple)) else value)

    @property
    def fits_transformers(self) -> bool:
        """Whether transformers' own SqueezeBERT class computes the same function from this configuration."""
        return (
            self.embedding_size == self.hidden_size
            and self.word_rank is None
            and self.layer_norm_eps == TRANSFORMERS_BLOCK_EPSILON
            and isinstance(self.intermediate_size, int)
            and self.kept_heads is None
            and self.intermediate_act is None
            and all(isinstance(getattr(self, field), int) and getattr(self, field) > 0 for field in GROUP_FIELDS)
            and all(getattr(self, field) == 0 for field in RANK_FIELDS)
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
        """Read a saved configuration; those of our own types, of BERT and of ELECTRA, in this class's terms.

        Raises `ValueError` for any other model type: its weights would not fit.
        """
        config, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        return cls.translate(config), kwargs

    @classmethod
    def translate(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a saved configuration of our own types, `bert` or `electra` in this class's terms.

        Raises `ValueError` for another model type, and for a decoder or relative positions.
        """
        translated = dict(config)
        kind = model_kind(translated)
        if kind in TRANSLATED_TYPES:
            name = TRANSLATED_TYPES[kind]
            if translated.pop("is_decoder", False) or translated.pop("add_cross_attention", False):
                raise ValueError(f"this {name} is a decoder; SqueezeBERT is an encoder and cannot express it")
            if translated.pop("position_embedding_type", "absolute") != "absolute":
                raise ValueError(f"this {name} has relative positions; SqueezeBERT has absolute ones only")
            translated.pop("use_cache", None)
            if kind == "bert":  # its embeddings are as wide as its layers
                translated.pop("embedding_size", None)
            for field in [field for field in translated if field.startswith("summary_")]:
                translated.pop(field)  # of ELECTRA's other heads
            translated.update(dict.fromkeys(GROUP_FIELDS, 1))
        elif kind not in (cls.model_type, cls.transformers_model_type):
            raise ValueError(
                f"model type {kind!r} is not a SqueezeBERT, a BERT or an ELECTRA: its weights do not fit these "
                "classes. Load it with transformers' AutoModel instead."
            )
        translated["model_type"] = cls.model_type
        return translated


def model_kind(config: Mapping[str, Any]) -> str:
    """Return the model type of a saved configuration; one of BERT's first years, as TinyBERT's, does not name it."""
    if config.get("model_type"):
        return str(config["model_type"])
    sizes = "hidden_size" in config and "intermediate_size" in config
    return "bert" if sizes and not any(name in config for name in GROUP_FIELDS) else SqueezeBertConfig.model_type
