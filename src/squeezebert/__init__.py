"""SqueezeBERT: train, squeeze, export and run small text models on the device where the text is.

Importing this package loads neither torch nor transformers: public names are resolved when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from squeezebert.files.errors import SqueezeBertError as SqueezeBertError
    from squeezebert.runtime.predictor import Prediction as Prediction
    from squeezebert.runtime.predictor import Predictor as Predictor
    from squeezebert.runtime.predictor import load as load
    from squeezebert.workflows.estimator import SqueezeBertClassifier as SqueezeBertClassifier
    from squeezebert.workflows.estimator import SqueezeBertRegressor as SqueezeBertRegressor
    from squeezebert.workflows.sentences import SentenceEncoder as SentenceEncoder

__version__ = "0.1.0"

# public name -> the module that defines it; none needs torch before it is used, but SentenceEncoder
_PUBLIC = {
    "SqueezeBertError": "squeezebert.files.errors",
    "Prediction": "squeezebert.runtime.predictor",
    "Predictor": "squeezebert.runtime.predictor",
    "SentenceEncoder": "squeezebert.workflows.sentences",
    "SqueezeBertClassifier": "squeezebert.workflows.estimator",
    "SqueezeBertRegressor": "squeezebert.workflows.estimator",
    "load": "squeezebert.runtime.predictor",
}

# Without the names that need more: `from squeezebert import *` works on the base install
__all__ = ["Prediction", "Predictor", "SqueezeBertError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_PUBLIC})
