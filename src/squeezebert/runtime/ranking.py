"""Items ranked for one reader by a handful that were liked and disliked, and vectors that are computed once.

It needs no torch: the encoder stays as it is. Legend: N items, M examples, C channels of a vector.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.numbers import check_whole
from squeezebert.runtime.logistic import fit_logistic
from squeezebert.runtime.predictor import Predictor, require_encoder
from squeezebert.runtime.tokens import check_several

Vectors = NDArray[np.float32]
Array = NDArray[np.float64]

# How strongly directions in which all items differ count less: none at a large share, by their variance alone at 0
_EVENNESS = 3.0
# What a disliked item counts next to a liked one: as in Rocchio's formula, which finds that dislikes say less
_DISLIKED = 0.25
_SMALLEST = 1e-12
# Items that stand for all in the regression, and how strongly its weights are drawn to zero
_AT_LARGE = 1000
_PENALTY = 1 / 1500
# A spread below which scores differ by rounding alone
_SAME = 1e-6
# Scores are rounded to so many places, so that equal items stay equal wherever they stand among the others
_PLACES = 5


class VectorStore:
    """Vectors of texts by the texts' checksums, so that no text is read twice; in memory, and in a file if wanted."""

    def __init__(self, encoder: Predictor, path: Path | None = None) -> None:
        """Begin empty, or with what `save` left at `path`.

        Raises `OptionError` for a model without vectors, `FolderError` for a damaged file or another encoder's.
        """
        require_encoder(encoder, "vectors need an encoder")
        self.encoder, self.path = encoder, path
        self._model = encoder.digest
        self._known: dict[str, Vectors] = {}
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._known)

    def vectors(self, texts: Iterable[str]) -> Vectors:
        """Return the vectors of texts, (N, C); those that are not known yet are computed.

        Raises `OptionError` where the encoder was shortened since the store was made, `TextError` for a str alone.
        """
        check_several(texts)
        check_same(self.encoder, self._model, "store")
        wanted = list(texts)
        keys = [text_key(text, i) for i, text in enumerate(wanted)]
        new = {key: text for key, text in zip(keys, wanted, strict=True) if key not in self._known}
        if new:
            self._known.update(zip(new, self.encoder.encode(list(new.values())), strict=True))
        if not keys:
            return np.zeros((0, self.encoder.manifest.dimension or 0), np.float32)
        return np.stack([self._known[key] for key in keys])

    def forget(self, texts: Iterable[str]) -> None:
        """Leave out the vectors of texts that are gone."""
        for i, text in enumerate(texts):
            self._known.pop(text_key(text, i), None)

    def keep(self, texts: Iterable[str]) -> int:
        """Leave out the vectors of all but these texts, and return how many went."""
        kept = {text_key(text, i) for i, text in enumerate(texts)}
        gone = [key for key in self._known if key not in kept]
        for key in gone:
            del self._known[key]
        return len(gone)

    def save(self) -> None:
        """Write the vectors to the store's file, whole or not at all. Raises `OptionError` where it has none."""
        if self.path is None:
            raise OptionError("this store has no file: give a path where it is made")
        check_same(self.encoder, self._model, "store")
        part = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.part")
        keys = np.array(list(self._known), dtype="S64")
        rows = np.stack(list(self._known.values())) if self._known else np.zeros((0, 0), np.float32)
        try:
            with part.open("wb") as stream:
                np.savez(stream, keys=keys, vectors=rows.astype(np.float32), model=np.array(self.encoder.digest))
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                model, keys, rows = str(arrays["model"]), arrays["keys"], arrays["vectors"]
            if len(keys) != len(rows) or rows.ndim != 2:
                raise ValueError("its arrays do not fit together")
            ours = model == self.encoder.digest
            if ours and len(rows) and rows.shape[1] != self.encoder.manifest.dimension:
                raise ValueError("its vectors are of another length")
        except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, BadZipFile) as error:
            # numpy's own words for a file of something else advise to load it as a pickle
            cause = "no arrays in it" if "pickle" in str(error) else error
            raise FolderError(
                f"{path}: a damaged store of vectors, or something else ({cause}): name another file, or delete a "
                "damaged one to begin anew"
            ) from error
        if not ours:
            raise FolderError(
                f"{path}: its vectors were made by another encoder, or by one that reads another length: name another "
                "file for this one"
            )
        self._known = dict(zip((key.decode() for key in keys), rows.astype(np.float32), strict=True))


class Ranker:
    """What one reader likes.

    An item's score has two halves. One is its mean cosine with the liked items and its highest, so that a reader of
    several subjects is served as one of a single one is; less a quarter of the same with the disliked (Rocchio 1971
    weighs them so). Cosines are taken from the middle of all items, in directions weighed by how little the items
    differ in them: what they have in common, and what tells any of them from any other, says little about taste. The
    other half is a logistic regression that tells the liked from the items at large, which serves best a reader of
    one subject (most items are not to anyone's taste, so that they stand for the disliked: Elkan and Noto 2008). The
    halves are brought to the same spread over the items.
    """

    def __init__(self, store: VectorStore) -> None:
        """Begin with a reader of whom nothing is known: all items are alike to them."""
        self.store = store
        self._liked = self._disliked = store.vectors([])

    def learn(self, liked: Sequence[str], disliked: Sequence[str] = ()) -> None:
        """Take a reader's taste from items they liked and disliked; replaces what was learned before.

        Raises `OptionError` where both are empty, `TextError` for a str alone.
        """
        if not len(liked) and not len(disliked):
            raise OptionError("nothing liked and nothing disliked: give at least one item")
        self._liked, self._disliked = self.store.vectors(liked), self.store.vectors(disliked)

    def scores(self, items: Iterable[str]) -> Array:
        """Return how much each item is to the reader's taste, (N,): higher the more, 0 for all of a new reader.

        Scores of one call can be compared, and those of two calls cannot: they depend on the items. Raises `TextError`
        for a str alone.
        """
        check_several(items)
        items = list(items)
        X_NC = self.store.vectors(items)
        count = len(X_NC)
        everything = np.concatenate([X_NC, self._liked, self._disliked])
        if not count or len(everything) == count:
            return np.zeros(count)
        even = _evened(everything)
        liked, disliked = even[count : count + len(self._liked)], even[count + len(self._liked) :]
        near = _likeness(even[:count], liked) - _DISLIKED * _likeness(even[:count], disliked)
        keys = [text_key(item, i) for i, item in enumerate(items)]
        some = np.array(sorted(range(count), key=keys.__getitem__)[:_AT_LARGE])  # the same ones in any order of items
        told = _told_apart(X_NC, X_NC[some], self._liked, self._disliked)
        return np.asarray(np.round(_levelled(near) + _levelled(told), _PLACES))

    def rank(self, items: Sequence[str], top: int | None = None) -> list[tuple[int, float]]:
        """Return the places of items in `items` with their scores, best first; equal ones stay in their order.

        Raises `OptionError` for a `top` below 1, `TextError` for a str alone.
        """
        if top is not None:
            check_whole("top =", top)
        scores = self.scores(items)
        order = np.argsort(-scores, kind="stable")[:top]
        return [(int(place), float(scores[place])) for place in order]


def _evened(X_NC: Vectors) -> Vectors:
    """The vectors from their middle, directions in which they differ much made shorter, each of length 1 (N, C)."""
    centred = X_NC - X_NC.mean(0)
    spread_CC = (centred.T @ centred).astype(np.float64) / len(centred)
    values, basis = np.linalg.eigh(spread_CC)
    lengths = np.sqrt(np.clip(values, 0, None) + _EVENNESS * values.mean() + _SMALLEST)
    even = centred @ (basis / lengths).astype(np.float32)
    return np.asarray(even / np.maximum(np.linalg.norm(even, axis=1, keepdims=True), _SMALLEST))


def _told_apart(X_NC: Vectors, some_SC: Vectors, liked_LC: Vectors, disliked_DC: Vectors) -> Array:
    """How surely each item is one of the liked rather than of some items at large and the disliked, (N,); or, where
    nothing is liked, not one of the disliked.
    """
    sign, ours, others = 1.0, liked_LC, np.concatenate([some_SC, disliked_DC])
    if not len(liked_LC):
        sign, ours, others = -1.0, disliked_DC, some_SC
    rows, middle = np.concatenate([ours, others]), some_SC.mean(0)
    counts = np.repeat([0.5 / len(ours), 0.5 / len(others)], [len(ours), len(others)]).astype(np.float32)
    x = np.concatenate([rows - middle, np.ones((len(rows), 1), np.float32)], axis=1)
    weights = fit_logistic(x, (np.arange(len(rows)) < len(ours)).astype(np.int64), 2, _PENALTY, counts)
    return np.asarray(sign * ((X_NC - middle) @ (weights[:-1, 1] - weights[:-1, 0])), np.float64)


def _levelled(scores: Array) -> Array:
    """The scores with mean 0 and spread 1; 0 where all are the same."""
    spread = scores.std()
    return np.asarray((scores - scores.mean()) / spread if spread > _SAME else np.zeros(len(scores)))


def _likeness(X_NC: Vectors, examples_MC: Vectors) -> Array:
    if not len(examples_MC):
        return np.zeros(len(X_NC))
    cosines = (X_NC @ examples_MC.T).astype(np.float64)
    return np.asarray(cosines.mean(1) + cosines.max(1))


def check_same(encoder: Predictor, digest: str, what: str) -> None:
    """Raise `OptionError` where an encoder's vectors are others than those that a store or sorter was begun with."""
    if encoder.digest != digest:
        raise OptionError(
            f"the encoder reads another length of texts than when this {what} was made: shorten it before, or make "
            f"the {what} anew"
        )


def text_key(text: object, index: int) -> str:
    """Return the checksum that a text is known by. Raises `OptionError`, naming the index, for what is no str."""
    if not isinstance(text, str):
        raise OptionError(f"item {index}: expected a str, not {type(text).__name__}")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
