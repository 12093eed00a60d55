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

__version__ = "0.1.0"

# public name -> the module that defines it; only `squeezebert.model` names need torch
_PUBLIC = {
    "SqueezeBertError": "squeezebert.files.errors",
    "Prediction": "squeezebert.runtime.predictor",
    "Predictor": "squeezebert.runtime.predictor",
    "load": "squeezebert.runtime.predictor",
}

__all__ = ["Prediction", "Predictor", "SqueezeBertError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
