"""SqueezeBERT for torch: configuration, model classes, and their place in transformers' Auto classes.

Importing this module lets the Auto classes load `model_type: squeezebert-general`. Checkpoints of
`model_type: squeezebert` stay with transformers' own classes there; to get these classes, name them.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from squeezebert.model.configuration import SqueezeBertConfig
from squeezebert.model.heads import (
    SqueezeBertForMaskedLM,
    SqueezeBertForMultipleChoice,
    SqueezeBertForPreTraining,
    SqueezeBertForPreTrainingOutput,
    SqueezeBertForQuestionAnswering,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
)
from squeezebert.model.modeling import GroupedLinear, SqueezeBertModel, SqueezeBertPreTrainedModel

AutoConfig.register(SqueezeBertConfig.model_type, SqueezeBertConfig, exist_ok=True)
for auto_class, model_class in (
    (AutoModel, SqueezeBertModel),
    (AutoModelForPreTraining, SqueezeBertForPreTraining),
    (AutoModelForMaskedLM, SqueezeBertForMaskedLM),
    (AutoModelForSequenceClassification, SqueezeBertForSequenceClassification),
    (AutoModelForTokenClassification, SqueezeBertForTokenClassification),
    (AutoModelForQuestionAnswering, SqueezeBertForQuestionAnswering),
    (AutoModelForMultipleChoice, SqueezeBertForMultipleChoice),
):
    # exist_ok: the check goes by the class's name, which transformers' configuration shares; the entry itself is
    # kept under the class, so theirs stays where it was
    auto_class.register(SqueezeBertConfig, model_class, exist_ok=True)

__all__ = [
    "GroupedLinear",
    "SqueezeBertConfig",
    "SqueezeBertForMaskedLM",
    "SqueezeBertForMultipleChoice",
    "SqueezeBertForPreTraining",
    "SqueezeBertForPreTrainingOutput",
    "SqueezeBertForQuestionAnswering",
    "SqueezeBertForSequenceClassification",
    "SqueezeBertForTokenClassification",
    "SqueezeBertModel",
    "SqueezeBertPreTrainedModel",
]
