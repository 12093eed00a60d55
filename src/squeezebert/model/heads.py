"""SqueezeBERT with heads: pretraining, masked LM, sequence and token classification, multiple choice, questions.

In: token ids (B, T) and labels. Out: logits and loss. Serves training and export; `modeling.py` has the encoder.
Legend as there, and: V vocabulary, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import ModelOutput, can_return_tuple

from squeezebert.model.configuration import SqueezeBertConfig
from squeezebert.model.modeling import Dropout, SqueezeBertModel, SqueezeBertPreTrainedModel


class SqueezeBertLMTransform(nn.Module):
    """Dense layer, activation and LayerNorm before the vocabulary, from C to E."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        E = cast(int, config.embedding_size)
        self.dense = nn.Linear(config.hidden_size, E)
        self.transform_act_fn = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(E, eps=config.layer_norm_eps)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return cast(Tensor, self.LayerNorm(self.transform_act_fn(self.dense(x_BTC))))


class SqueezeBertLMHead(nn.Module):
    """Scores over the vocabulary; the decoder shares the word embeddings' weights."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.transform = SqueezeBertLMTransform(config)
        self.decoder = nn.Linear(cast(int, config.embedding_size), config.vocab_size, bias=True)
        # The decoder's bias, tied to this name as in published checkpoints
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_BTC: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.transform(x_BTC)))


class SqueezeBertPreTrainingHeads(nn.Module):
    """The masked-LM head and, where `sentence_order` is set, the sentence-order head on the pooled token."""

    def __init__(self, config: SqueezeBertConfig, sentence_order: bool) -> None:
        super().__init__()
        self.predictions = SqueezeBertLMHead(config)
        if sentence_order:
            self.seq_relationship = nn.Linear(config.hidden_size, 2)


class SqueezeBertWithLMHead(SqueezeBertPreTrainedModel):
    """What the two classes with a masked-LM head share."""

    _tied_weights_keys = {
        "cls.predictions.decoder.weight": "transformer.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    _sentence_order = False

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        if config.word_rank is not None:
            raise ValueError(f"word_rank {config.word_rank}: a masked-LM head scores words by a table of full width")
        self.transformer = SqueezeBertModel(config)
        self.cls = SqueezeBertPreTrainingHeads(config, self._sentence_order)
        self.post_init()
        self.freeze_unused()

    def get_output_embeddings(self) -> nn.Module:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.cls.predictions.decoder = cast(nn.Linear, new_embeddings)
        self.cls.predictions.bias = self.cls.predictions.decoder.bias

    def masked_lm_loss(self, logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
        """Mean cross-entropy over the positions whose label is not -100."""
        return F.cross_entropy(logits_BTV.view(-1, logits_BTV.shape[-1]), labels_BT.view(-1))


def cross_entropy(logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
    """Cross-entropy over the labels that are not -100, a mean or a sum; 0 where there are none."""
    total = F.cross_entropy(logits, labels, reduction="sum")
    return total if reduction == "sum" else total / (labels != -100).sum().clamp_min(1)


@dataclass
class SqueezeBertForPreTrainingOutput(ModelOutput):
    """Outputs of pretraining: MLM scores (B, T, V) or (asked, V), order scores (B, 2), both losses and their sum."""

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    prediction_loss: Tensor | None = None
    seq_relationship_loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class SqueezeBertForPreTraining(SqueezeBertWithLMHead):
    """Masked language modelling and sentence-order prediction, the paper's pretraining."""

    _sentence_order = True

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        sentence_order_label: Tensor | None = None,
        masked_only: bool = False,
        reduction: str = "mean",
        **kwargs: Any,
    ) -> SqueezeBertForPreTrainingOutput:
        """Score masked words and sentence order.

        `labels` (B, T) are token ids, `sentence_order_label` (B,) is 0 for two segments in their order and 1 for
        swapped ones; both are -100 where nothing is asked. The loss is the sum over the labels that are given, each a
        mean over what is asked, or with `reduction` "sum" a sum. With `masked_only`, the vocabulary is scored only
        where `labels` ask, (asked, V), in their order: the same loss for a seventh of the head's work.
        """
        outputs = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        states = outputs.last_hidden_state
        if masked_only:
            if labels is None:
                raise ValueError("masked_only scores what labels ask for: give labels")
            asked_BT = labels != -100
            states, labels = states[asked_BT], labels[asked_BT]
        prediction_logits = self.cls.predictions(states)
        order_logits = self.cls.seq_relationship(outputs.pooler_output)
        words = order = None
        if labels is not None:
            words = cross_entropy(prediction_logits.view(-1, prediction_logits.shape[-1]), labels.view(-1), reduction)
        if sentence_order_label is not None:
            order = cross_entropy(order_logits, sentence_order_label.view(-1), reduction)
        losses = [loss for loss in (words, order) if loss is not None]
        return SqueezeBertForPreTrainingOutput(
            loss=torch.stack(losses).sum() if losses else None,
            prediction_logits=prediction_logits,
            seq_relationship_logits=order_logits,
            prediction_loss=words,
            seq_relationship_loss=order,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class SqueezeBertForMaskedLM(SqueezeBertWithLMHead):
    """Masked language modelling."""

    _uses_pooler = False
    _keys_to_ignore_on_load_unexpected = [r"position_ids", r"cls\.seq_relationship"]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Score the vocabulary at every position, (B, T, V); `labels` (B, T) are token ids or -100."""
        outputs = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.cls.predictions(outputs.last_hidden_state)
        return MaskedLMOutput(
            loss=None if labels is None else cast(Any, self.masked_lm_loss(logits, labels)),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class SqueezeBertForSequenceClassification(SqueezeBertPreTrainedModel):
    """A linear layer on the pooled token: one label, several labels, or a number."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = SqueezeBertModel(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 0)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Score each text, (B, L).

        `labels` are ids (B,) for one label a text, 0/1 floats (B, L) for several, floats (B,) for a number; the
        first call with labels settles `config.problem_type` where it is not set.
        """
        outputs = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits_BL = self.classifier(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            if self.config.problem_type is None:
                self.config.problem_type = self._problem_type(labels)
            if self.config.problem_type == "regression":
                loss = F.mse_loss(logits_BL, labels.view_as(logits_BL))
            elif self.config.problem_type == "single_label_classification":
                loss = F.cross_entropy(logits_BL, labels.view(-1))
            else:
                loss = F.binary_cross_entropy_with_logits(logits_BL, labels)
        return SequenceClassifierOutput(
            loss=cast(Any, loss),
            logits=logits_BL,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _problem_type(self, labels: Tensor) -> Any:
        if self.num_labels == 1:
            return "regression"
        return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


class SqueezeBertForMultipleChoice(SqueezeBertPreTrainedModel):
    """A score for each of several candidate texts."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.transformer = SqueezeBertModel(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Score the choices of inputs (B, choices, T) as (B, choices); `labels` (B,) is the right choice."""
        given = input_ids if input_ids is not None else inputs_embeds
        if given is None:
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        choices = given.shape[1]

        def merge(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.flatten(0, 1)  # (B, choices, T, ...) -> (B * choices, T, ...)

        outputs = self.transformer(
            *map(merge, (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)), **kwargs
        )
        logits = self.classifier(self.dropout(outputs.pooler_output)).view(-1, choices)
        return MultipleChoiceModelOutput(
            loss=None if labels is None else cast(Any, F.cross_entropy(logits, labels)),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class SqueezeBertForTokenClassification(SqueezeBertPreTrainedModel):
    """A label for each token."""

    _uses_pooler = False

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = SqueezeBertModel(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 0)
        self.post_init()
        self.freeze_unused()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Score each token, (B, T, L); `labels` (B, T) are ids, -100 where nothing is asked."""
        outputs = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.view(-1))
        return TokenClassifierOutput(
            loss=cast(Any, loss),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class SqueezeBertForQuestionAnswering(SqueezeBertPreTrainedModel):
    """The start and end of an answer inside the text."""

    _uses_pooler = False

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.transformer = SqueezeBertModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()
        self.freeze_unused()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Score each token as start and as end, (B, T) each; positions (B,) outside the text are ignored."""
        outputs = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        start_BT, end_BT = (x.contiguous() for x in self.qa_outputs(outputs.last_hidden_state).unbind(-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            T = start_BT.shape[1]
            losses = [
                F.cross_entropy(scores_BT, positions.view(-1).clamp(0, T), ignore_index=T)
                for scores_BT, positions in ((start_BT, start_positions), (end_BT, end_positions))
            ]
            loss = (losses[0] + losses[1]) / 2
        return QuestionAnsweringModelOutput(
            loss=cast(Any, loss),
            start_logits=cast(Any, start_BT),
            end_logits=cast(Any, end_BT),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
