"""transformers' own shared model tests against our classes.

Not collected by default: the mixins are in the source distribution of transformers, not in its wheel.
`make test-upstream` fetches the source of the installed version and runs this file.
"""

from __future__ import annotations

import sys
import types
import unittest

# The shared tests import three neighbours that the source distribution leaves out; what they need of them is this
for name, contents in {
    "tests.exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "tests.generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "tests.utils.test_configuration_utils": {
        "config_common_kwargs": {
            "return_dict": False,
            "output_hidden_states": True,
            "chunk_size_feed_forward": 5,
            "architectures": ["SqueezeBertModel"],
            "id2label": {0: "label"},
            "label2id": {"label": "0"},
            "problem_type": "regression",
        }
    },
}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)

# ruff: noqa: E402
import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask

from squeezebert.model import (
    SqueezeBertConfig,
    SqueezeBertForMaskedLM,
    SqueezeBertForMultipleChoice,
    SqueezeBertForPreTraining,
    SqueezeBertForQuestionAnswering,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
    SqueezeBertModel,
)

torch.set_num_threads(2)


class SqueezeBertModelTester:
    """A tiny model and a batch, in the form that the mixin asks for."""

    batch_size = 5
    seq_length = 7
    num_labels = 3
    num_choices = 4
    vocab_size = 99
    is_training = True
    config_options: dict = {}  # noqa: RUF012

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent
        self.hidden_size = 32
        self.num_hidden_layers = 2
        self.num_attention_heads = 4
        self.encoder_seq_length = self.key_length = self.seq_length

    def get_config(self) -> SqueezeBertConfig:
        return SqueezeBertConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=64,
            max_position_embeddings=64,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            **self.config_options,
        )

    def prepare_config_and_inputs_for_common(self):
        inputs = {
            "input_ids": ids_tensor([self.batch_size, self.seq_length], self.vocab_size),
            "attention_mask": random_attention_mask([self.batch_size, self.seq_length]),
        }
        return self.get_config(), inputs


class SqueezeBertModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (
        SqueezeBertModel,
        SqueezeBertForPreTraining,
        SqueezeBertForMaskedLM,
        SqueezeBertForMultipleChoice,
        SqueezeBertForQuestionAnswering,
        SqueezeBertForSequenceClassification,
        SqueezeBertForTokenClassification,
    )
    test_resize_embeddings = True
    test_resize_position_embeddings = False
    has_attentions = True
    make_tester = SqueezeBertModelTester

    def setUp(self) -> None:
        self.model_tester = self.make_tester(self)
        self.config_tester = ConfigTester(self, config_class=SqueezeBertConfig, hidden_size=32)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is SqueezeBertForPreTraining:  # not in transformers' mappings
            shape = (self.model_tester.batch_size, self.model_tester.seq_length)
            inputs["labels"] = torch.zeros(shape, dtype=torch.long)
            inputs["sentence_order_label"] = torch.zeros(shape[0], dtype=torch.long)
        return inputs

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class GeneralTester(SqueezeBertModelTester):
    """A configuration that only our classes know: groups per layer, factorised embeddings, an epsilon of its own."""

    config_options = {  # noqa: RUF012
        "q_groups": [4, 2],
        "output_groups": [1, 4],
        "embedding_size": 16,
        "layer_norm_eps": 1e-6,
    }


class SqueezeBertGeneralModelTest(SqueezeBertModelTest):
    make_tester = GeneralTester
