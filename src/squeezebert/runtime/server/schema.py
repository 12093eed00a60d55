"""What is sent to the service and what it sends, as pydantic models: checked on arrival, and published as OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel as _BaseModel
from pydantic import ConfigDict, Discriminator, FailFast, Field, Tag


class BaseModel(_BaseModel):
    """A model whose field docstrings are the descriptions in OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class OneText(BaseModel):
    """A text, or a pair for a model of pairs; its answer comes alone."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"text": "The bank raised its rates."}]},
    )

    text: str
    """the text; an empty one is answered like any other"""
    text_pair: str | None = None
    """the second text, for a model of pairs"""


class SeveralTexts(BaseModel):
    """Texts or pairs of them; their answers come as a list in the same order."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"texts": ["The bank raised its rates.", "A late goal won the cup."]}]},
    )

    texts: Annotated[list[str | tuple[str, str]], FailFast(), Field(min_length=1)]
    """texts, or pairs as `[text, text_pair]`"""


def _kind(body: Any) -> str:
    return "several" if isinstance(body, dict) and "texts" in body else "one"


Question = Annotated[
    Annotated[OneText, Tag("one")] | Annotated[SeveralTexts, Tag("several")],
    Discriminator(_kind),
]


class _Answer(BaseModel):
    truncated: bool
    """whether the text was cut to the model's longest input"""
    tokens: int
    """tokens read, special ones included"""


class SingleLabel(_Answer):
    """The answer to a text where one label applies."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "label": "money",
                    "probability": 0.97,
                    "probabilities": {"money": 0.97, "sport": 0.03},
                    "truncated": False,
                    "tokens": 8,
                }
            ]
        }
    )

    label: str
    """the most probable label"""
    probability: float
    """of `label`"""
    probabilities: dict[str, float]
    """label -> probability"""


class MultiLabel(_Answer):
    """The answer to a text where any number of labels applies."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "labels": ["money"],
                    "probabilities": {"money": 0.97, "sport": 0.12},
                    "truncated": False,
                    "tokens": 8,
                }
            ]
        }
    )

    labels: list[str]
    """the labels that reach their threshold; may be empty"""
    probabilities: dict[str, float]
    """label -> probability"""


class Value(_Answer):
    """The answer to a text where a number is asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"value": 3.5, "truncated": False, "tokens": 8}]})

    value: float
    """the number"""


A = TypeVar("A", bound=_Answer)


class Answers(BaseModel, Generic[A]):
    """The answers to several texts."""

    answers: list[A]
    """one a text, in their order"""


# task -> what `POST /predict` answers
RESPONSES: dict[str, Any] = {
    "single_label": SingleLabel | Answers[SingleLabel],
    "multi_label": MultiLabel | Answers[MultiLabel],
    "regression": Value | Answers[Value],
}


class Problem(BaseModel):
    """Why there is no answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"error": "queue_full", "detail": "256 texts wait, and 256 may: ask again in 2 s"}]
        }
    )

    error: str
    """a word for programs"""
    detail: str
    """a sentence for people"""


class Status(BaseModel):
    """Whether the service lives, or is ready."""

    status: Literal["alive", "ready"]


class Bounds(BaseModel):
    """What a request may ask."""

    characters: int
    """characters of a text, at most"""
    texts: int
    """texts of a request, at most"""
    bytes: int
    """bytes of a request's body, at most"""
    queue: int
    """texts that may wait"""
    seconds: float
    """time that a request may take"""


class About(BaseModel):
    """What is served."""

    squeezebert: str
    """version of the program"""
    model: str
    """name of the checkpoint that was exported"""
    task: Literal["single_label", "multi_label", "regression"]
    labels: list[str]
    """in the order of the model's outputs; empty for regression"""
    pair: bool | None
    """whether the model reads pairs of texts; null where its checkpoint did not say"""
    max_length: int
    """longest input in tokens, special ones included; longer texts are cut"""
    precision: Literal["fp32", "int8"] | None
    """which of the exported files answers; null while it is being loaded"""
    limits: Bounds
