"""The sentences of a document that say most of it, where they stand in it. It needs no torch.

Legend: S sentences, C channels of a vector.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from squeezebert.files.errors import OptionError
from squeezebert.runtime.predictor import Predictor
from squeezebert.runtime.tokens import TextError

# A full stop, question or exclamation mark with what closes behind it, or the marks of Chinese and Japanese
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[」』”]*|\n\s*\n|\n(?=\s*[-*•#])")
# What ends in a full stop and no sentence does: titles, initials, and the like
_NO_END = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|cf|No|Fig|e\.g|i\.e|approx|Inc|Ltd|Co)|\b[A-Z])\.$")
_LONGEST_NO_END = 16  # characters of it, and one before
# A sentence of fewer words says little by itself
_FEWEST_WORDS = 4
# How much a sentence that repeats what was chosen counts less
_REPETITION = 0.5
# From this cosine on two sentences are the same, and the second is taken when there is no other
_THE_SAME = 0.999


@dataclass(frozen=True, slots=True)
class Sentence:
    """A chosen sentence."""

    text: str
    """as it stands in the document"""
    start: int
    """where it starts, in characters"""
    end: int
    """where it ends"""
    score: float
    """how alike it is to the whole document, cosine"""


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return where each sentence of a text starts and ends, in characters, white space around it left out."""
    spans, start = [], 0
    for found in [*_END.finditer(text), None]:
        end = len(text) if found is None else found.end()
        # Only what is before the stop is looked at: initials by the thousand would take quadratic time
        if found is not None and _NO_END.search(text, max(start, end - _LONGEST_NO_END), end):
            continue
        piece = text[start:end]
        first, last = end - len(piece.lstrip()), start + len(piece.rstrip())
        if first < last:
            spans.append((first, last))
        start = end
    return spans


def summarise(encoder: Predictor, document: str, sentences: int = 3) -> list[Sentence]:
    """Return the most informative sentences of a document in the order in which they stand there.

    One after the other, the sentence is taken that is most alike to the whole document (the mean of its sentences'
    vectors) and least to those taken already (maximal marginal relevance, Carbonell and Goldstein 1998). A document of
    fewer sentences is returned whole. Raises `OptionError` for a model without vectors and fewer than one sentence,
    `TextError` for what is no str.
    """
    if encoder.task != "embedding":
        raise OptionError(f"{encoder.folder}: a summary needs an encoder, and this is a model of {encoder.task}")
    if not isinstance(document, str):
        raise TextError(f"expected a str, not {type(document).__name__}")
    if sentences < 1:
        raise OptionError(f"sentences = {sentences}: expected 1 or more")
    spans = sentence_spans(document)
    if not spans:
        return []
    vectors_SC = encoder.encode([document[start:end] for start, end in spans]).astype(np.float64)
    words = np.array([len(document[start:end].split()) for start, end in spans])
    tells = words >= _FEWEST_WORDS if (words >= _FEWEST_WORDS).sum() >= sentences else np.ones(len(spans), bool)
    whole_C = vectors_SC[tells].mean(0)
    scores_S = vectors_SC @ whole_C / max(float(np.linalg.norm(whole_C)), 1e-12)
    alike_SS = vectors_SC @ vectors_SC.T
    chosen: list[int] = []
    for _ in range(min(sentences, int(tells.sum()))):
        repeated_S = alike_SS[:, chosen].max(1) if chosen else np.zeros(len(spans))
        gain_S = np.where(tells, scores_S - _REPETITION * repeated_S - (repeated_S > _THE_SAME), -np.inf)
        gain_S[chosen] = -np.inf
        chosen.append(int(gain_S.argmax()))
    return [
        Sentence(document[start:end], start, end, float(scores_S[i]))
        for i, (start, end) in sorted((i, spans[i]) for i in chosen)
    ]
