"""SqueezeBERT: embeddings, attention, grouped encoder and pooler, to be read top to bottom; heads are in `heads.py`.

In: token ids (B, T). Out: hidden states (B, T, C). Serves training (finetune, distil, pretrain) and export.

Legend: B batch, T tokens, C channels, E embedding channels, G groups, R rank, H heads, D channels of a head,
N = B * T tokens of the whole batch. Layout is token-major, (B, T, C), throughout.

Parameter names and shapes are those of transformers' SqueezeBERT, so that weights go both ways; what differs is how
they are computed with. The architecture is Iandola et al. 2020 (arXiv 2006.11316); BERT is its case groups = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from squeezebert.model.bert import load_bert
from squeezebert.model.configuration import SqueezeBertConfig


def split_groups(x_BTC: Tensor, groups: int) -> Tensor:
    """Return (B, T, C) as group-major (G, N, C / G).

    A contiguous copy: it costs less than batched products on strided memory, forward and backward. Under autocast it
    is made in the type that the products take.
    """
    if torch.is_autocast_enabled(x_BTC.device.type):
        x_BTC = x_BTC.to(torch.get_autocast_dtype(x_BTC.device.type))
    return x_BTC.reshape(-1, groups, x_BTC.shape[-1] // groups).transpose(0, 1).contiguous()


def merge_groups(y_GNC: Tensor, leading: torch.Size) -> Tensor:
    """Return group-major (G, N, C / G) as token-major (*leading, C)."""
    if y_GNC.requires_grad and not torch.compiler.is_compiling():
        # Its gradient comes back strided, and the widest product of the backward pass is slower on strided memory
        y_GNC.register_hook(Tensor.contiguous)
    return y_GNC.transpose(0, 1).reshape(*leading, -1)


class GroupedLinear(nn.Module):
    """A position-wise fully connected layer of a chosen shape: block-diagonal groups, a low-rank remainder, or both.

    The blocks compute what a Conv1d with kernel 1 and `groups` computes, with weights of the same shape
    (C_out, C_in / G, 1), as a matrix product batched over groups: on CPUs a grouped Conv1d is several times slower.
    With groups = 0 there are no blocks. The remainder of `rank` R adds up (C_out, R) times down (R, C_in); without
    `own_down` the reduced input comes from outside, one for several layers.
    """

    def __init__(self, in_features: int, out_features: int, groups: int, rank: int = 0, own_down: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features, self.groups, self.rank = in_features, out_features, groups, rank
        self.weight = nn.Parameter(torch.empty(out_features, in_features // groups, 1)) if groups else None
        self.bias = nn.Parameter(torch.empty(out_features))
        self.down = nn.Parameter(torch.empty(rank, in_features)) if rank and own_down else None
        self.up = nn.Parameter(torch.empty(out_features, rank)) if rank else None

    def reduce(self, x: Tensor, group_major: bool = False) -> Tensor | None:
        """Return the remainder's reduced input (N, R) of (..., C_in) or (G, N, C_in / G); None without `down`."""
        if self.down is None:
            return None
        if group_major:
            down_GCR = self.down.view(self.rank, self.groups, -1).permute(1, 2, 0)
            return torch.bmm(x, down_GCR).sum(dim=0)
        return F.linear(x.reshape(-1, self.in_features), self.down)

    def forward(self, x: Tensor, group_major: bool = False, reduced_NR: Tensor | None = None) -> Tensor:
        """Map (..., C_in) to (..., C_out), or, `group_major`, (G, N, C_in / G) to (G, N, C_out / G).

        `reduced_NR` is what `reduce` made of the input, where it is there already.
        """
        G = self.groups
        if self.up is not None and reduced_NR is None:
            reduced_NR = self.reduce(x, group_major)
        if self.weight is None:
            return F.linear(cast(Tensor, reduced_NR), cast(Tensor, self.up), self.bias).view(*x.shape[:-1], -1)
        if G == 1 and not group_major:
            y = F.linear(x, self.weight.squeeze(-1), self.bias)
            return y if self.up is None else y + F.linear(cast(Tensor, reduced_NR), self.up).view_as(y)
        x_GNC = x if group_major else split_groups(x, G)
        w_GCC = self.weight.view(G, self.out_features // G, -1).transpose(1, 2)
        y_GNC = torch.baddbmm(self.bias.view(G, 1, -1), x_GNC, w_GCC)
        if self.up is not None:
            up_GRC = self.up.view(G, self.out_features // G, -1).transpose(1, 2)
            y_GNC = torch.baddbmm(y_GNC, cast(Tensor, reduced_NR).expand(G, -1, -1), up_GRC)
        return y_GNC if group_major else merge_groups(y_GNC, x.shape[:-1])

    def written_out(self, down_RC: Tensor | None = None) -> Tensor:
        """Return the dense matrix (C_out, C_in) that the layer multiplies by; `down_RC` is the factor from outside."""
        down_RC = self.down if down_RC is None else down_RC
        matrix = self.bias.new_zeros(self.out_features, self.in_features)
        if self.weight is not None:
            matrix = torch.block_diag(*self.weight.squeeze(-1).chunk(self.groups))
        return matrix if self.up is None else matrix + self.up @ cast(Tensor, down_RC)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, groups={self.groups}, rank={self.rank}"
        )


class Dropout(nn.Dropout):
    """nn.Dropout with a faster mask on CPUs (`benchmarks/train_block.py` has what it gives).

    It draws one 64-bit number for four elements instead of one for each; p is rounded to a multiple of 2**-16, and
    the scale of what is kept uses the rounded p, so the expectation is exact.
    """

    def forward(self, input: Tensor) -> Tensor:
        threshold = round(self.p * 2**16)
        plain = input.device.type != "cpu" or self.inplace or torch.compiler.is_compiling()
        if not self.training or plain or threshold in (0, 2**16):
            return super().forward(input)
        drawn = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.int16)[: input.numel()].view(input.shape) >= threshold - 2**15
        return input * kept.to(input.dtype).mul_(2**16 / (2**16 - threshold))


class SqueezeBertEmbeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised; projected to C when E differs from C.

    With a `word_rank` R the word table is (V, R), and a matrix brings its rows to E.
    """

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        E = cast(int, config.embedding_size)
        R = E if config.word_rank is None else config.word_rank
        self.word_embeddings = nn.Embedding(config.vocab_size, R, padding_idx=config.pad_token_id)
        self.word_projection = None if config.word_rank is None else nn.Linear(R, E, bias=False)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, E)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, E)
        self.LayerNorm = nn.LayerNorm(E, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.projection = nn.Linear(E, config.hidden_size) if config.hidden_size != E else None
        self.position_ids = nn.Buffer(torch.arange(config.max_position_embeddings).expand((1, -1)), persistent=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        x_BTE = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if self.word_projection is not None:
            x_BTE = self.word_projection(x_BTE)
        B, T = x_BTE.shape[:2]
        if self.position_embeddings.num_embeddings < T:
            raise ValueError(
                f"{T} tokens, but the model has positions for {self.position_embeddings.num_embeddings}: "
                "truncate the text (max_length of the tokenizer)"
            )
        if position_ids is None:
            position_ids = self.position_ids[:, :T]
        if token_type_ids is None:
            token_type_ids = torch.zeros(B, T, dtype=torch.long, device=x_BTE.device)
        x_BTE = x_BTE + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        x = self.dropout(self.LayerNorm(x_BTE))
        return cast(Tensor, x if self.projection is None else self.projection(x))


def eager_attention(
    module: nn.Module,
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention in plain products: returns the output (B, T, H, D) and the probabilities (B, H, T, T).

    `attention_mask` is additive, or boolean with True where attention is allowed; it broadcasts to (B, H, T, T).
    """
    scores_BHTT = torch.matmul(query_BHTD * scaling, key_BHTD.transpose(2, 3))
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores_BHTT = scores_BHTT.masked_fill(~attention_mask, torch.finfo(scores_BHTT.dtype).min)
    elif attention_mask is not None:
        scores_BHTT = scores_BHTT + attention_mask
    probabilities_BHTT = scores_BHTT.softmax(dim=-1)
    if dropout:
        probabilities_BHTT = cast(SqueezeBertSelfAttention, module).dropout(probabilities_BHTT)
    return torch.matmul(probabilities_BHTT, value_BHTD).transpose(1, 2), probabilities_BHTT


class SqueezeBertSelfAttention(nn.Module):
    """Multi-head self-attention with grouped query, key and value; returns context and probabilities (or None)."""

    def __init__(self, config: SqueezeBertConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        C = config.hidden_size
        self.head_size = C // config.num_attention_heads
        self.heads, width = config.heads(layer), config.attention_width(layer)
        self.scaling = self.head_size**-0.5
        self.is_causal = False
        rank = config.rank("q_rank", layer)
        # The first factor of all three remainders, where they share one
        self.down = nn.Parameter(torch.empty(rank, C)) if config.shared_qkv_rank and rank else None
        self.query, self.key, self.value = (
            GroupedLinear(
                C, width, config.groups(f"{name}_groups", layer), config.rank(f"{name}_rank", layer), self.down is None
            )
            for name in "qkv"
        )
        groups = self.query.groups if self.query.groups == self.key.groups == self.value.groups else 0
        whole_heads = groups > 1 and self.heads % groups == 0
        self.shared_groups = groups if whole_heads else None
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def forward(
        self, x_BTC: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        B, T, C = x_BTC.shape
        shared_NR = None if self.down is None else F.linear(x_BTC.reshape(-1, C), self.down)
        if self.shared_groups:
            # One split for all three, and each group makes whole heads: (G, N, C / G) -> (B, G, H / G, T, D)
            x_GNC = split_groups(x_BTC, self.shared_groups)
            query_BHTD, key_BHTD, value_BHTD = (
                layer(x_GNC, True, layer.reduce(x_BTC) if shared_NR is None else shared_NR)
                .view(self.shared_groups, B, T, -1, self.head_size)
                .permute(1, 0, 3, 2, 4)
                .reshape(B, -1, T, self.head_size)
                for layer in (self.query, self.key, self.value)
            )
        else:
            query_BHTD, key_BHTD, value_BHTD = (
                layer(x_BTC, False, shared_NR).view(B, T, -1, self.head_size).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )

        implementation = self.config._attn_implementation
        dropout = self.dropout.p if self.training else 0.0
        # The fused kernel never holds the probabilities that are asked for. On CPUs it has no dropout (torch falls
        # back to plain products with a slower mask than ours), and its backward pass in bf16 is several times slower
        slow = dropout or (query_BHTD.dtype == torch.bfloat16 and torch.is_grad_enabled())
        if implementation == "sdpa" and (kwargs.get("output_attentions") or (slow and x_BTC.device.type == "cpu")):
            implementation = "eager"
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            implementation, eager_attention
        )
        context_BTHD, probabilities_BHTT = attend(
            self,
            query_BHTD,
            key_BHTD,
            value_BHTD,
            attention_mask,
            scaling=self.scaling,
            dropout=dropout,
            **kwargs,
        )
        return context_BTHD.reshape(B, T, -1), probabilities_BHTT


class SqueezeBertResidual(nn.Module):
    """Grouped layer, dropout, residual sum and LayerNorm: the end of both halves of a block."""

    def __init__(self, config: SqueezeBertConfig, in_features: int, groups: int, rank: int) -> None:
        super().__init__()
        self.conv1d = GroupedLinear(in_features, config.hidden_size, groups, rank)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual_BTC: Tensor, group_major: bool = False) -> Tensor:
        y = self.conv1d(x, group_major)
        y_BTC = merge_groups(y, residual_BTC.shape[:-1]) if group_major else y
        return cast(Tensor, self.layernorm(self.dropout(y_BTC) + residual_BTC))


class SqueezeBertIntermediate(nn.Module):
    """The widening half of the feed-forward network (FFN2 in the paper) and its activation."""

    def __init__(self, config: SqueezeBertConfig, layer: int, groups: int, rank: int) -> None:
        super().__init__()
        self.conv1d = GroupedLinear(config.hidden_size, config.width(layer), groups, rank)
        self.act = ACT2FN[config.activation(layer)]

    def forward(self, x: Tensor, group_major: bool = False, reduced_NR: Tensor | None = None) -> Tensor:
        return cast(Tensor, self.act(self.conv1d(x, group_major, reduced_NR)))


class SqueezeBertLayer(GradientCheckpointingLayer):
    """One block: attention and its output projection (FFN1), then the feed-forward network (FFN2, FFN3).

    A half that the configuration leaves out is None.
    """

    def __init__(self, config: SqueezeBertConfig, layer: int) -> None:
        super().__init__()

        def shape(name: str) -> tuple[int, int]:
            return config.groups(f"{name}_groups", layer), config.rank(f"{name}_rank", layer)

        A, F = config.attention_width(layer), config.width(layer)
        self.attention = SqueezeBertSelfAttention(config, layer) if A else None
        self.post_attention = SqueezeBertResidual(config, A, *shape("post_attention")) if A else None
        self.intermediate = SqueezeBertIntermediate(config, layer, *shape("intermediate")) if F else None
        self.output = SqueezeBertResidual(config, F, *shape("output")) if F else None

    def forward(self, x_BTC: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        if self.attention is not None and self.post_attention is not None:
            context_BTC, _ = self.attention(x_BTC, attention_mask, **kwargs)
            x_BTC = self.post_attention(context_BTC, x_BTC)
        if self.intermediate is None or self.output is None:
            return x_BTC
        groups = self.intermediate.conv1d.groups
        if groups <= 1 or groups != self.output.conv1d.groups:
            return cast(Tensor, self.output(self.intermediate(x_BTC), x_BTC))
        # FFN2's group g feeds FFN3's group g: the wide middle never changes its layout
        reduced_NR = self.intermediate.conv1d.reduce(x_BTC)
        wide_GNC = self.intermediate(split_groups(x_BTC, groups), True, reduced_NR)
        return cast(Tensor, self.output(wide_GNC, x_BTC, group_major=True))


class SqueezeBertEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SqueezeBertLayer(config, i) for i in range(config.num_hidden_layers))

    def forward(self, x_BTC: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        for layer in self.layers:
            x_BTC = layer(x_BTC, attention_mask, **kwargs)
        return BaseModelOutput(last_hidden_state=cast(Any, x_BTC))


class SqueezeBertPooler(nn.Module):
    """The first token's state through a dense layer and tanh."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return torch.tanh(self.dense(x_BTC[:, 0]))


class SqueezeBertPreTrainedModel(PreTrainedModel):
    """What all SqueezeBERT classes share: configuration, loading, initialisation."""

    config_class = SqueezeBertConfig
    config: SqueezeBertConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    # Trainer would multiply the loss by process count and accumulation steps of a forward that takes **kwargs
    accepts_loss_kwargs = False
    _uses_pooler = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["SqueezeBertEmbeddings", "SqueezeBertLayer"]
    _can_record_outputs = {
        "hidden_states": SqueezeBertLayer,
        "attentions": SqueezeBertSelfAttention,
    }
    _keys_to_ignore_on_load_unexpected = [r"position_ids"]

    def __init__(self, config: SqueezeBertConfig, *args: Any, **kwargs: Any) -> None:
        config.check_sizes()
        super().__init__(config, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal weights of standard deviation `initializer_range`, zero biases, LayerNorms at identity."""
        super()._init_weights(module)
        if isinstance(module, (GroupedLinear, SqueezeBertSelfAttention)) and module.down is not None:
            # The reduced input is as large as the input, so that `up` starts as any other weight does
            init.normal_(module.down, mean=0.0, std=module.down.shape[-1] ** -0.5)
        if isinstance(module, GroupedLinear):
            for weight in (module.weight, module.up):
                if weight is not None:
                    init.normal_(weight, mean=0.0, std=self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(getattr(module, "decoder", None), nn.Linear):  # the masked-LM head's own bias
            init.zeros_(cast(Tensor, module.bias))
        elif isinstance(module, SqueezeBertEmbeddings):
            init.copy_(module.position_ids, torch.arange(module.position_ids.shape[-1]).expand((1, -1)))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Load a SqueezeBERT checkpoint, or a BERT one as groups = 1, from a folder or a Hub id.

        Arguments are transformers'. Raises `ValueError` for a checkpoint of another architecture.
        """
        loaded = load_bert(cls, pretrained_model_name_or_path, *args, **kwargs)
        if loaded is None:
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze_unused()  # loading makes new, trainable parameters
        return loaded

    def freeze_unused(self) -> None:
        """Exempt the pooler from training under a head that reads every token.

        It stays in the checkpoint, as in published ones, but gets no gradient: distributed training would wait for it.
        """
        if not self._uses_pooler:
            cast(SqueezeBertModel, self.base_model).pooler.requires_grad_(False)


class SqueezeBertModel(SqueezeBertPreTrainedModel):
    """Embeddings, encoder and pooler."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.embeddings = SqueezeBertEmbeddings(config)
        self.encoder = SqueezeBertEncoder(config)
        self.pooler = SqueezeBertPooler(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.word_embeddings = cast(nn.Embedding, value)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Return hidden states (B, T, C) and the pooled first token (B, C).

        `attention_mask` (B, T) is 1 for text and 0 for padding. With `output_attentions=True`, `attentions` holds
        each layer's probabilities (B, H, T, T).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if input_ids is not None:
            self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        x_BTC = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=x_BTC, attention_mask=attention_mask)
        x_BTC = self.encoder(x_BTC, mask, **kwargs).last_hidden_state
        return BaseModelOutputWithPooling(last_hidden_state=x_BTC, pooler_output=self.pooler(x_BTC))
