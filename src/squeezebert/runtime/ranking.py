"""Items ranked for one reader by a handful that were liked and disliked, and vectors that are computed once.

It needs no torch: the encoder stays as it is. Legend: N items, M examples, C channels of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.runtime.predictor import Predictor

Vectors = NDArray[np.float32]
Array = NDArray[np.float64]

# How strongly a taste is drawn to none: with few examples, each counts about by its cosine; with many, what tells the
# liked from the disliked does
_RIDGE = 1.0


class VectorStore:
    """Vectors of texts by the texts' checksums, so that no text is read twice; in memory, and in a file if wanted."""

    def __init__(self, encoder: Predictor, path: Path | None = None) -> None:
        """Begin empty, or with what `save` left at `path`.

        Raises `OptionError` for a model without vectors, `FolderError` for a damaged file or another encoder's.
        """
        if encoder.task != "embedding":
            raise OptionError(f"{encoder.folder}: vectors need an encoder, and this is a model of {encoder.task}")
        self.encoder, self.path = encoder, path
        self._known: dict[str, Vectors] = {}
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._known)

    def vectors(self, texts: Iterable[str]) -> Vectors:
        """Return the vectors of texts, (N, C); those that are not known yet are computed."""
        wanted = list(texts)
        keys = [_key(text, i) for i, text in enumerate(wanted)]
        new = {key: text for key, text in zip(keys, wanted, strict=True) if key not in self._known}
        if new:
            self._known.update(zip(new, self.encoder.encode(list(new.values())), strict=True))
        if not keys:
            return np.zeros((0, self.encoder.manifest.dimension or 0), np.float32)
        return np.stack([self._known[key] for key in keys])

    def forget(self, texts: Iterable[str]) -> None:
        """Leave out the vectors of texts that are gone."""
        for i, text in enumerate(texts):
            self._known.pop(_key(text, i), None)

    def save(self) -> None:
        """Write the vectors to the store's file, whole or not at all. Raises `OptionError` where it has none."""
        if self.path is None:
            raise OptionError("this store has no file: give a path where it is made")
        part = self.path.with_name(f".{self.path.name}.part")
        keys = np.array(list(self._known), dtype="S64")
        rows = np.stack(list(self._known.values())) if self._known else np.zeros((0, 0), np.float32)
        with part.open("wb") as stream:
            np.savez(stream, keys=keys, vectors=rows.astype(np.float32), model=np.array(self.encoder.digest))
        part.replace(self.path)

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                model, keys, rows = str(arrays["model"]), arrays["keys"], arrays["vectors"]
            if len(keys) != len(rows) or (len(rows) and rows.shape[1] != self.encoder.manifest.dimension):
                raise ValueError("its arrays do not fit together")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise FolderError(f"{path}: a damaged store of vectors ({error}): delete it to begin anew") from error
        if model != self.encoder.digest:
            raise FolderError(f"{path}: its vectors were made by another encoder: delete it, and it is made anew")
        self._known = dict(zip((key.decode() for key in keys), rows.astype(np.float32), strict=True))


class Ranker:
    """What one reader likes."""

    def __init__(self, store: VectorStore) -> None:
        """Begin with a reader of whom nothing is known: all items are alike to them."""
        self.store = store
        self._taste: Array = np.zeros(store.encoder.manifest.dimension or 0)

    def learn(self, liked: Sequence[str], disliked: Sequence[str] = ()) -> None:
        """Take a reader's taste from items they liked and disliked; replaces what was learned before.

        A ridge regression of +1 for the liked and -1 for the disliked on their vectors, both sides with the same
        weight however many there are. Raises `OptionError` where both are empty.
        """
        if not len(liked) and not len(disliked):
            raise OptionError("nothing liked and nothing disliked: give at least one item")
        X_MC = self.store.vectors([*liked, *disliked]).astype(np.float64)
        signs = np.array([1.0] * len(liked) + [-1.0] * len(disliked))
        weights = np.array([1.0 / max(len(liked), 1)] * len(liked) + [1.0 / max(len(disliked), 1)] * len(disliked))
        scaled = X_MC * np.sqrt(weights * len(signs))[:, None]
        # In the examples, which are few: (X X' + ridge) a = y, taste = X' a
        dual = np.linalg.solve(scaled @ scaled.T + _RIDGE * np.eye(len(signs)), signs * np.sqrt(weights * len(signs)))
        self._taste = scaled.T @ dual

    def scores(self, items: Iterable[str]) -> Array:
        """Return how much each item is to the reader's taste, (N,): above 0 like the liked, below the disliked."""
        return np.asarray(self.store.vectors(items) @ self._taste)

    def rank(self, items: Sequence[str], top: int | None = None) -> list[tuple[int, float]]:
        """Return the places of items in `items` with their scores, best first; equal ones stay in their order."""
        if top is not None and top < 1:
            raise OptionError(f"top = {top}: expected 1 or more")
        scores = self.scores(items)
        order = np.argsort(-scores, kind="stable")[:top]
        return [(int(place), float(scores[place])) for place in order]


def _key(text: object, index: int) -> str:
    if not isinstance(text, str):
        raise OptionError(f"item {index}: expected a str, not {type(text).__name__}")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
