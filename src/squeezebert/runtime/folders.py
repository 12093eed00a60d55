"""Vectors of texts and the folders they are in; a sorter that learns new examples in a moment. Serves `folders` jobs.

It needs no torch: the encoder stays as it is, and only a linear head on its vectors is fitted, in closed form. Legend:
N examples, C channels of a vector, F folders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.runtime.predictor import Predictor

Vectors = NDArray[np.float32]
Array = NDArray[np.float64]

RECORD, ARRAYS = "folders.json", "examples.npz"
FORMAT = 1
# What is tried: how strongly weights are drawn to zero, as a share of the vectors' mean energy in a channel, and by
# what scores are multiplied before they become probabilities
_RIDGES = tuple(10.0**power for power in np.arange(-3.0, 2.01, 0.5))
_SHARPNESS = tuple(10.0**power for power in np.arange(0.0, 2.51, 0.1))
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Sorted:
    """Where a text belongs."""

    folder: str | None
    """the folder; None where the sorter is unsure, or the text is like none of its examples"""
    likely: tuple[tuple[str, float], ...]
    """the most likely folders with their probabilities, the first the likeliest"""
    out_of_scope: bool
    """whether the text is less like any example than nearly all examples are like another"""
    similarity: float
    """cosine with the nearest example"""


class Folders:
    """A sorter of texts into folders, on top of an exported encoder.

    Each folder's score is a linear function of a text's vector, fitted by regularised least squares to 1 for its own
    examples and 0 for the others. How strong the regularisation is, how scores become probabilities, and from which
    probability on an answer counts as sure, are chosen by leaving out one example at a time, which costs no more than
    one fit (the leave-one-out residual of ridge regression is the residual divided by one minus the leverage).
    """

    def __init__(self, encoder: Predictor, precision: float = 0.9, scope: float = 0.02) -> None:
        """Begin a sorter without examples.

        `precision` is the share of sure answers that are to be right; `scope` the share of the examples themselves
        that would count as out of scope. Raises `OptionError` for shares that are none, and a model without vectors.
        """
        if encoder.task != "embedding":
            raise OptionError(f"{encoder.folder}: folders need an encoder, and this is a model of {encoder.task}")
        for name, share in (("precision", precision), ("scope", scope)):
            if not 0 <= share < 1:
                raise OptionError(f"{name} = {share}: expected a share from 0 to below 1")
        self.encoder, self.precision, self.scope = encoder, precision, scope
        self.folders: list[str] = []
        self.vectors: Vectors = np.zeros((0, encoder.manifest.dimension or 0), np.float32)
        self.places: NDArray[np.int64] = np.zeros(0, np.int64)
        self.threshold, self.least_similarity, self.accuracy = 1.0, 0.0, 0.0

    def __len__(self) -> int:
        return len(self.places)

    def learn(self, texts: Sequence[str], folders: Sequence[str]) -> None:
        """Add examples and fit anew; new folders are made as they come.

        Raises `OptionError` for lists of different lengths or folders that are no names, and where all examples so far
        are in one folder.
        """
        if len(texts) != len(folders):
            raise OptionError(f"{len(texts)} texts and {len(folders)} folders: give one folder for each text")
        for name in folders:
            if not isinstance(name, str) or not name.strip():
                raise OptionError(f"folder {name!r}: expected a name")
        names = [*self.folders, *(name for name in dict.fromkeys(folders) if name not in self.folders)]
        places = np.array([*self.places, *(names.index(name) for name in folders)], np.int64)
        if len(set(places.tolist())) < 2:
            raise OptionError("all examples are in one folder: give some of another as well")
        self.vectors = np.concatenate([self.vectors, self.encoder.encode(texts)])
        self.folders, self.places = names, places
        self._fit()

    def forget(self, folder: str) -> None:
        """Leave a folder and its examples out, and fit anew. Raises `OptionError` for one that is not known."""
        if folder not in self.folders:
            raise OptionError(f"no folder {folder!r}; there are {', '.join(self.folders)}")
        gone = self.folders.index(folder)
        kept = self.places != gone
        if len(set(self.places[kept].tolist())) < 2:
            raise OptionError(f"without {folder!r} one folder would be left: there is nothing to sort then")
        self.vectors, self.places = self.vectors[kept], self.places[kept]
        self.places = np.where(self.places > gone, self.places - 1, self.places)
        self.folders = [name for name in self.folders if name != folder]
        self._fit()

    def sort(self, texts: Sequence[str], top: int = 3) -> list[Sorted]:
        """Return where each text belongs. Raises `OptionError` where there are no examples, and for `top` below 1."""
        if not len(self):
            raise OptionError("no examples to sort by: learn some first")
        if top < 1:
            raise OptionError(f"top = {top}: expected 1 or more")
        vectors = self.encoder.encode(texts)
        probabilities = self._probabilities(self._extended(vectors) @ self._weights)
        answers = []
        for vector, row in zip(vectors, probabilities, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            similarity = float((self.vectors @ vector).max())
            outside = similarity < self.least_similarity
            sure = row[best[0]] >= self.threshold and not outside
            likely = tuple((self.folders[i], float(row[i])) for i in best)
            answers.append(Sorted(self.folders[best[0]] if sure else None, likely, outside, similarity))
        return answers

    def save(self, output: Path, *, overwrite: bool = False) -> None:
        """Write the sorter: its examples' vectors and folders, without their texts. Raises `FolderError`."""
        if output.exists() and (not overwrite or not (output / RECORD).is_file()):
            raise FolderError(f"{output} is there already: choose another name, or overwrite a sorter")
        told = {"format": FORMAT, "folders": self.folders, "precision": self.precision, "scope": self.scope}
        told |= {"model": self.encoder.digest, "examples": len(self)}
        with new_folder(output) as building:
            np.savez(building / ARRAYS, vectors=self.vectors, places=self.places)
            (building / RECORD).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, folder: Path, encoder: Predictor) -> Folders:
        """Read a sorter that `save` wrote. Raises `FolderError` for none, a damaged one, or another encoder's."""
        try:
            told: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if told["format"] > FORMAT:
                raise FolderError(f"{folder}: format {told['format']}: update squeezebert")
            with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
                vectors, places = arrays["vectors"], arrays["places"]
            found = cls(encoder, told["precision"], told["scope"])
            found.folders = [str(name) for name in told["folders"]]
            whole = vectors.shape == (told["examples"], encoder.manifest.dimension) and len(places) == len(vectors)
            if not whole or not set(places.tolist()) <= set(range(len(found.folders))):
                raise ValueError("its arrays are not what its record says")
        except FileNotFoundError as error:
            raise FolderError(f"{folder}: no sorter there ({error.filename} is missing)") from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise FolderError(f"{folder}: a damaged sorter ({error}): learn its examples anew") from error
        if told["model"] != encoder.digest:
            raise FolderError(f"{folder}: its examples were read by another encoder: learn them anew with this one")
        found.vectors, found.places = vectors.astype(np.float32), places.astype(np.int64)
        found._fit()
        return found

    @property
    def digest(self) -> str:
        """A hash of the examples: equal digests, equal answers."""
        told = hashlib.sha256(json.dumps(self.folders).encode())
        for array in (self.vectors, self.places):
            told.update(np.ascontiguousarray(array).tobytes())
        return told.hexdigest()

    def _fit(self) -> None:
        """Fit the head, and choose its regularisation, sharpness and threshold on examples left out one by one."""
        X, N, F = self._extended(self.vectors), len(self), len(self.folders)
        Y: Array = np.zeros((N, F))
        Y[np.arange(N), self.places] = 1.0
        values, basis = np.linalg.eigh(X.T @ X)
        values = np.clip(values, 0.0, None)
        scale = float(values.sum()) / X.shape[1]
        XV, VXY = X @ basis, basis.T @ (X.T @ Y)
        best = (np.inf, _RIDGES[0], 1.0, np.zeros((N, F)))
        for ridge in _RIDGES:
            shrunk = values + ridge * scale
            leverage = np.clip(((XV**2) / shrunk).sum(1), 0.0, 1 - 1e-6)
            fitted = XV @ (VXY / shrunk[:, None])
            left_out = Y - (Y - fitted) / (1 - leverage)[:, None]
            for sharpness in _SHARPNESS:
                loss = _cross_entropy(left_out * sharpness, self.places)
                if loss < best[0]:
                    best = (loss, ridge, sharpness, left_out)
        _, ridge, self._sharpness, left_out = best
        self._weights: Array = basis @ (VXY / (values + ridge * scale)[:, None])
        probabilities = self._probabilities(left_out)
        right = probabilities.argmax(1) == self.places
        self.accuracy = float(right.mean())
        self.threshold = _threshold(probabilities.max(1), right, self.precision)
        self.least_similarity = float(np.quantile(self._nearest(), self.scope)) if self.scope else -1.0

    def _nearest(self) -> Array:
        """Cosine of each example with the nearest other, (N,)."""
        nearest = np.empty(len(self))
        for start in range(0, len(self), 1024):
            cosines = self.vectors[start : start + 1024] @ self.vectors.T
            rows = np.arange(len(cosines))
            cosines[rows, rows + start] = -1.0
            nearest[start : start + len(rows)] = cosines.max(1)
        return nearest

    def _extended(self, vectors: Vectors) -> Array:
        """The vectors with a constant channel, (N, C + 1)."""
        return np.concatenate([vectors.astype(np.float64), np.ones((len(vectors), 1))], axis=1)

    def _probabilities(self, scores: Array) -> Array:
        odds = np.exp((scores - scores.max(1, keepdims=True)) * self._sharpness)
        return np.asarray(odds / odds.sum(1, keepdims=True))


def _cross_entropy(logits: Array, places: NDArray[np.int64]) -> float:
    highest = logits.max(1, keepdims=True)
    total = np.log(np.exp(logits - highest).sum(1)) + highest[:, 0]
    return float((total - logits[np.arange(len(places)), places]).mean())


def _threshold(confidences: Array, right: NDArray[np.bool_], precision: float) -> float:
    """The lowest probability from which on so large a share of the answers is right; above 1 where there is none."""
    order = np.argsort(-confidences, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(shares >= precision)
    return float(confidences[order[reached[-1]]]) if len(reached) else 1.0 + _SMALLEST
