"""Items ranked for one reader by a handful that were liked and disliked, and vectors that are computed once.

It needs no torch: the encoder stays as it is. Legend: N items, M examples, C channels of a vector.
"""

from __future__ import annotations

import hashlib
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.numbers import check_whole
from squeezebert.files.places import place_of
from squeezebert.runtime.logistic import fit_logistic
from squeezebert.runtime.predictor import Predictor, require_encoder
from squeezebert.runtime.tokens import check_several

Vectors = NDArray[np.float32]
Array = NDArray[np.float64]

# An unfinished file of vectors is nobody's any more after this many seconds
_STALE_SECONDS = 24 * 3600
# What a disliked item counts next to a liked one: as in Rocchio's formula, which finds that dislikes say less
_DISLIKED = 0.25
# What the items tell counts so much at most; half of it where so many distinct ones are not to the reader's taste, and
# half of that where such a share is
_TOLD = 2.0
_MANY = 50
_SHARE = 0.07
# An item is left out of what the items tell as it is likely to be to the reader's taste, to this power: one that is
# in doubt stays in, because it is a near miss, which tells most
_SURE = 4
# How strongly directions in which all items differ count less: none at a large share, by their variance alone at 0
_EVENNESS = 3.0
_SMALLEST = 1e-12
# Items that stand for all in the regression, and how strongly its weights are drawn to zero
_AT_LARGE = 1000
_PENALTY = 1 / 1500
# Steps in which the share is found, and the log-odds beyond which an item counts as certain
_STEPS = 30
_CERTAIN = 30.0
# A spread below which scores differ by rounding alone
_SAME = 1e-6
# Scores are rounded to so many places, so that items of equal vectors stay equal wherever they stand among the others
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
        """Leave out the vectors of texts that are gone. Raises `TextError` for a str alone."""
        check_several(texts)
        for i, text in enumerate(texts):
            self._known.pop(text_key(text, i), None)

    def keep(self, texts: Iterable[str]) -> int:
        """Leave out the vectors of all but these texts, and return how many went.

        Raises `TextError` for a str alone.
        """
        check_several(texts)
        kept = {text_key(text, i) for i, text in enumerate(texts)}
        gone = [key for key in self._known if key not in kept]
        for key in gone:
            del self._known[key]
        return len(gone)

    def save(self) -> None:
        """Write the vectors to the store's file, whole or not at all; its permissions stay, and a link to it.

        Raises `OptionError` where it has none.
        """
        if self.path is None:
            raise OptionError("this store has no file: give a path where it is made")
        check_same(self.encoder, self._model, "store")
        path = place_of(self.path)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        keys = np.array(list(self._known), dtype="S64")
        rows = np.stack(list(self._known.values())) if self._known else np.zeros((0, 0), np.float32)
        try:
            with part.open("wb") as stream:
                if path.exists():
                    shutil.copymode(path, part)
                np.savez(stream, keys=keys, vectors=rows.astype(np.float32), model=np.array(self.encoder.digest))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        for left in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 8}.part"):  # by a run that was killed
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    left.unlink()

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                model, keys, rows = str(arrays["model"]), arrays["keys"], arrays["vectors"]
            if len(keys) != len(rows) or rows.ndim != 2:
                raise ValueError("its arrays do not fit together")
            ours = model == self.encoder.digest
            if ours and len(rows) and rows.shape[1] != self.encoder.manifest.dimension:
                raise ValueError("its vectors are of another length")
        except Exception as error:  # damage shows itself in any of the libraries below
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

    An item's score is its mean cosine with the liked items and its highest, so that a reader of several subjects is
    served as one of a single one is; less a quarter of the same with the disliked (Rocchio 1971 weighs them so). To
    this is added what the items tell of each other, in two parts of the same spread. One is the same, with cosines
    from the items' middle, in directions weighed by how little the items differ in them: what they have in common, and
    what tells any of them from any other, says little about taste. The other is a logistic regression that tells the
    liked from the items at large, which serves best a reader of one subject (Elkan and Noto 2008).

    Both take the items for what is not to the reader's taste. So an item counts in them by how likely it is not, as
    the liked items' nearness to each other shows; and both count the less, the fewer items that leaves, the larger the
    share that is to the reader's taste, and the fewer the liked are. Few items, a feed that was chosen for the reader,
    and one that follows a single liked item are ranked by the cosines alone. Repeated items and examples count once.
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
        self._liked, self._disliked = self._distinct(liked)[0], self._distinct(disliked)[0]

    def scores(self, items: Iterable[str]) -> Array:
        """Return how much each item is to the reader's taste, (N,): higher the more, 0 for all of a new reader.

        Scores of one call can be compared, and those of two calls cannot: they depend on the items. Raises `TextError`
        for a str alone.
        """
        X_NC, places = self._distinct(items)
        if not len(X_NC) or not len(self._liked) + len(self._disliked):
            return np.zeros(len(places))
        if len(self._liked):
            found = _taste(X_NC, self._liked, self._disliked)
        else:
            found = -_taste(X_NC, self._disliked, self._liked)
        return np.asarray(np.round(found, _PLACES)[places])

    def _distinct(self, texts: Iterable[str]) -> tuple[Vectors, NDArray[np.intp]]:
        """The vectors of distinct texts, in an order that is the same for the same texts, and each text's place."""
        check_several(texts)
        texts = list(texts)
        vectors = self.store.vectors(texts)
        keys = np.array([text_key(text, i) for i, text in enumerate(texts)], dtype="S64")
        _, first, places = np.unique(keys, return_index=True, return_inverse=True)
        return vectors[first], places

    def rank(self, items: Sequence[str], top: int | None = None) -> list[tuple[int, float]]:
        """Return the places of items in `items` with their scores, best first; equal ones stay in their order.

        Raises `OptionError` for a `top` below 1, `TextError` for a str alone.
        """
        if top is not None:
            check_whole("top =", top)
        scores = self.scores(items)
        order = np.argsort(-scores, kind="stable")[:top]
        return [(int(place), float(scores[place])) for place in order]


def _taste(X_NC: Vectors, liked_LC: Vectors, disliked_DC: Vectors) -> Array:
    """How much each of distinct items is to a taste, (N,); the items' order is to be one by chance."""
    near = _levelled(_likeness(X_NC, liked_LC, disliked_DC))
    ours_N, share = _to_taste(X_NC, liked_LC)
    others_N = (1 - ours_N**_SURE).astype(np.float32)
    many = float(others_N.sum())
    trust = _TOLD * (1 - 1 / len(liked_LC)) * many / (many + _MANY) / (1 + (share / _SHARE) ** 3)
    if not trust:
        return near
    even, liked, disliked = _evened(others_N, X_NC, liked_LC, disliked_DC)
    told = _told_apart(X_NC, others_N, liked_LC, disliked_DC)
    return np.asarray(near + trust * (_levelled(_likeness(even, liked, disliked)) + _levelled(told)))


def _to_taste(X_NC: Vectors, liked_LC: Vectors) -> tuple[Array, float]:
    """How likely each item is one of those to the reader's taste, (N,), and their share: 0 where one item is liked.

    An item's highest cosine with the liked is normally distributed about one value where it is to the reader's taste,
    and about a lower one where not. The first is that of the liked with each other, unless items that are at least as
    near show a higher one; all else is found by expectation and maximisation (Dempster, Laird and Rubin 1977).
    """
    if len(liked_LC) < 2:
        return np.zeros(len(X_NC)), 0.0
    near_N = (X_NC @ liked_LC.T).astype(np.float64).max(1)
    cosines_LL = (liked_LC @ liked_LC.T).astype(np.float64)
    np.fill_diagonal(cosines_LL, -np.inf)
    own_L = cosines_LL.max(1)
    high, variance, share = own_L.mean(), near_N.var() + _SMALLEST, 0.5
    low = min(near_N.mean(), high - np.sqrt(variance))
    for _ in range(_STEPS):
        odds_N = ((near_N - low) ** 2 - (near_N - high) ** 2) / (2 * variance) + np.log(share / (1 - share))
        ours_N = 1 / (1 + np.exp(-np.clip(odds_N, -_CERTAIN, _CERTAIN)))
        others_N = 1 - ours_N
        share = float(ours_N.sum() + 1) / (len(X_NC) + 2)
        high = max(own_L.mean(), (ours_N @ near_N + own_L.sum()) / (ours_N.sum() + len(own_L)))
        squares = others_N @ (near_N - low) ** 2 + ours_N @ (near_N - high) ** 2 + ((own_L - high) ** 2).sum()
        variance = squares / (len(X_NC) + len(own_L)) + _SMALLEST
        low = min(others_N @ near_N / others_N.sum(), high - np.sqrt(variance))  # at least a spread apart
    return np.asarray(ours_N), share


def _evened(others_N: Vectors, X_NC: Vectors, *examples: Vectors) -> list[Vectors]:
    """The vectors from the items' middle, directions in which they differ much made shorter, each of length 1."""
    total = float(others_N.sum())
    middle = others_N @ X_NC / total
    centred = X_NC - middle
    values, basis = np.linalg.eigh(((others_N[:, None] * centred).T @ centred).astype(np.float64) / total)
    lengths = np.sqrt(np.clip(values, 0, None) + _EVENNESS * values.mean() + _SMALLEST)
    shorter_CC = (basis / lengths).astype(np.float32)
    even = [(vectors - middle) @ shorter_CC for vectors in (X_NC, *examples)]
    return [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), _SMALLEST) for one in even]


def _told_apart(X_NC: Vectors, others_N: Vectors, liked_LC: Vectors, disliked_DC: Vectors) -> Array:
    """How surely each item is one of the liked rather than of some items at large and the disliked, (N,)."""
    some_SC, counts_S = X_NC[:_AT_LARGE], others_N[:_AT_LARGE]
    middle = counts_S @ some_SC / counts_S.sum()
    rows = np.concatenate([liked_LC, some_SC, disliked_DC])
    against = np.concatenate([counts_S, np.ones(len(disliked_DC), np.float32)])
    counts = np.concatenate([np.full(len(liked_LC), 0.5 / len(liked_LC)), 0.5 * against / against.sum()])
    x = np.concatenate([rows - middle, np.ones((len(rows), 1), np.float32)], axis=1)
    ours = (np.arange(len(rows)) < len(liked_LC)).astype(np.int64)
    weights = fit_logistic(x, ours, 2, _PENALTY, counts.astype(np.float32))
    return np.asarray((X_NC - middle) @ (weights[:-1, 1] - weights[:-1, 0]), np.float64)


def _levelled(scores: Array) -> Array:
    """The scores with mean 0 and spread 1; 0 where all are the same."""
    spread = scores.std()
    return np.asarray((scores - scores.mean()) / spread if spread > _SAME else np.zeros(len(scores)))


def _likeness(X_NC: Vectors, liked_LC: Vectors, disliked_DC: Vectors) -> Array:
    """Mean and highest cosine with the liked, less a share of the same with the disliked, (N,)."""
    found = np.zeros(len(X_NC))
    for examples, weight in ((liked_LC, 1.0), (disliked_DC, -_DISLIKED)):
        if len(examples):
            cosines = (X_NC @ examples.T).astype(np.float64)
            found += weight * (cosines.mean(1) + cosines.max(1))
    return found


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
