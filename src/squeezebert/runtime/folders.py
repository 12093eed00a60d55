"""Vectors of texts and the folders they are in; a sorter that learns new examples in seconds. Serves `folders` jobs.

It needs no torch: the encoder stays as it is, and only a linear head on its vectors is fitted. Legend: N examples, C
channels of a vector, F folders.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.numbers import check_whole
from squeezebert.runtime.logistic import fit_logistic
from squeezebert.runtime.predictor import Predictor, require_encoder
from squeezebert.runtime.ranking import check_same, text_key
from squeezebert.runtime.thresholds import precise_threshold
from squeezebert.runtime.tokens import check_several

Vectors = NDArray[np.float32]
Array = NDArray[np.float64]
Places = NDArray[np.int64]

RECORD, ARRAYS = "folders.json", "examples.npz"
FORMAT = 1
# How strongly weights are drawn to zero: the same for three examples a folder and for a hundred was as good as any
_PENALTY = 1 / 30
# Examples are left out a fifth at a time, until this many have been: more tell little about a threshold
_PARTS, _LEFT_OUT = 5, 2000
# Cosine, seen from the mean of all examples, from which on two are copies but for case, quoting and the like. They are
# left out together: else each would be answered by its copy, and new messages, which have none, would look strange
_COPY = 0.9
# By what scores are multiplied before they become probabilities
_SHARPNESS = tuple(10.0**power for power in np.arange(-1.0, 1.01, 0.05))
# How much a doubtful answer adds to what a distant text says of being out of scope: cosine a unit of log-probability
_DOUBT = 0.1
_SMALLEST = 1e-12
# No probability is as high
_UNSURE = 1.0 + _SMALLEST
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Sorted:
    """Where a text belongs."""

    folder: str | None
    """the folder; None where the sorter is unsure, or the text is like none of its examples"""
    likely: tuple[tuple[str, float], ...]
    """the most likely folders with their probabilities, the first the likeliest"""
    out_of_scope: bool
    """whether the text is less like the examples than nearly all of them are like the others"""
    similarity: float
    """cosine with the nearest example"""
    familiarity: float
    """the same less what the doubt about the folder takes away; low values are out of scope"""


@dataclass(frozen=True, slots=True)
class Learned:
    """What became of examples."""

    new: int
    """texts that were not known"""
    moved: int
    """texts that were known in another folder, and are in this one now"""
    known: int
    """texts that were known there, or are given more than once"""
    contradicted: int = 0
    """texts that are given in several folders at once, and are in the last of them"""


@dataclass(frozen=True, slots=True)
class Quality:
    """How a sorter does on examples that were left out while it learned, a fifth at a time."""

    left_out: tuple[int, ...]
    """of each folder, how many examples were, each with its copies and counted once"""
    right: tuple[int, ...]
    """of each folder, how many of those were given back to it"""
    sharpness: float
    """what scores are multiplied by before they become probabilities"""
    threshold: float
    """probability from which on an answer is sure; above 1 where none is"""
    least_familiar: float
    """familiarity below which a text is out of scope"""

    @property
    def accuracy(self) -> float:
        """Share of all of them that were; 0 where none could be left out."""
        return sum(self.right) / max(sum(self.left_out), 1)


class Folders:
    """A sorter of texts into folders, on top of an exported encoder.

    Each folder's score is a linear function of a text's vector: a multinomial logistic regression. How scores become
    probabilities (temperature scaling, Guo et al. 2017), from which probability on an answer counts as sure, and what
    is out of scope, are chosen on examples that a fit without them is asked about. A text is the less familiar, the
    farther it is from its nearest example and the less likely its likeliest folder.
    """

    def __init__(self, encoder: Predictor, precision: float = 0.9, scope: float = 0.05) -> None:
        """Begin a sorter without examples.

        `precision` is the share of sure answers that are to be right, which is held to with 95 % certainty, so that
        nothing is sure before some 25 examples could be left out (at 0.9; more for more); `scope` the share of the
        examples themselves that would count as out of scope. Raises `OptionError` for shares that are none, and a
        model without vectors.
        """
        require_encoder(encoder, "folders need an encoder")
        for name, share in (("precision", precision), ("scope", scope)):
            if not 0 <= share < 1:
                raise OptionError(f"{name} = {share}: expected a share from 0 to below 1")
        self.encoder, self.precision, self.scope = encoder, precision, scope
        self._model = encoder.digest
        self.folders: list[str] = []
        self.vectors: Vectors = np.zeros((0, encoder.manifest.dimension or 0), np.float32)
        self.places: Places = np.zeros(0, np.int64)
        self.keys: list[str] = []
        self.quality = Quality((), (), 1.0, 1.0, -1.0)
        self._weights: Vectors = np.zeros((self.vectors.shape[1] + 1, 0), np.float32)

    def __len__(self) -> int:
        return len(self.places)

    def counts(self) -> dict[str, int]:
        """Return the number of examples of each folder."""
        counts = np.bincount(self.places, minlength=len(self.folders)).tolist()
        return dict(zip(self.folders, counts, strict=True))

    def learn(
        self,
        texts: Sequence[str],
        folders: Sequence[str],
        watch: Callable[[Iterable[str]], Iterable[str]] = iter,
    ) -> Learned:
        """Add examples and fit anew; new folders are made as they come.

        A text is in one folder, the one it was given last; known texts are not read again. `watch` sees the texts
        pass that are read. Raises `OptionError` for lists of different lengths or folders that are no names, and where
        all examples so far are in one folder; `TextError` for a str alone.
        """
        check_several(texts)
        check_several(folders)
        if len(texts) != len(folders):
            raise OptionError(f"{len(texts)} texts and {len(folders)} folders: give one folder for each text")
        check_same(self.encoder, self._model, "sorter")
        for name in folders:
            if not isinstance(name, str) or not name.strip():
                raise OptionError(f"folder {name!r}: expected a name")
        given: dict[str, tuple[str, str]] = {}
        contradicted = set()
        for i, (text, name) in enumerate(zip(texts, folders, strict=True)):
            key = text_key(text, i)
            if given.get(key, (text, name)) != (text, name):
                contradicted.add(key)
            given[key] = (text, name)
        row_of = {key: row for row, key in enumerate(self.keys)}
        new = {key: text for key, (text, _) in given.items() if key not in row_of}
        folder_of = [self.folders[place] for place in self.places]
        moved = [key for key, (_, name) in given.items() if key in row_of and folder_of[row_of[key]] != name]
        for key in moved:
            folder_of[row_of[key]] = given[key][1]
        folder_of += [given[key][1] for key in new]
        # A folder whose last example moved is gone
        there = set(folder_of)
        names = [name for name in dict.fromkeys([*self.folders, *folder_of]) if name in there]
        _check_several(names)
        read = self.encoder.encode(watch(list(new.values())))
        self.vectors = np.concatenate([self.vectors, read])
        self.keys = [*self.keys, *new]
        self.folders = names
        self.places = _places(folder_of, names)
        self._fit()
        return Learned(len(new), len(moved), len(texts) - len(new) - len(moved), len(contradicted))

    def forget(self, *folders: str) -> int:
        """Leave folders and their examples out, fit anew, and return how many examples went.

        Raises `OptionError` for one that is not known, and where fewer than two folders would be left.
        """
        for folder in folders:
            if folder not in self.folders:
                raise OptionError(f"no folder {folder!r}; there are {', '.join(self.folders)}")
        names = [name for name in self.folders if name not in folders]
        if len(names) < 2:
            left = f"{names[0]!r} alone" if names else "nothing"
            raise OptionError(f"{left} would be left: there is nothing to sort then")
        folder_of = [self.folders[place] for place in self.places]
        kept = [row for row, name in enumerate(folder_of) if name not in folders]
        gone = len(self) - len(kept)
        self.vectors, self.keys = self.vectors[kept], [self.keys[row] for row in kept]
        self.folders, self.places = names, _places([folder_of[row] for row in kept], names)
        self._fit()
        return gone

    def retune(self, precision: float | None = None, scope: float | None = None) -> None:
        """Choose another share of sure answers to be right, or of examples to be out of scope; None leaves it."""
        other = Folders(
            self.encoder,
            self.precision if precision is None else precision,
            self.scope if scope is None else scope,
        )
        self.precision, self.scope = other.precision, other.scope
        if len(self):
            self._fit()

    def sort(self, texts: Sequence[str], top: int = 3) -> list[Sorted]:
        """Return where each text belongs. Raises `OptionError` where there are no examples, and for `top` below 1."""
        if not len(self):
            raise OptionError("no examples to sort by: learn some first")
        check_whole("top =", top)
        check_same(self.encoder, self._model, "sorter")
        vectors = self.encoder.encode(texts)
        probabilities = _probabilities(_extended(vectors) @ self._weights, self.quality.sharpness)
        answers = []
        for row, similarity in zip(probabilities, self._nearest(vectors), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            familiarity = float(_familiar(similarity, row[best[0]]))
            outside = familiarity < self.quality.least_familiar
            sure = row[best[0]] >= self.quality.threshold and not outside
            likely = tuple((self.folders[i], float(row[i])) for i in best)
            folder = self.folders[best[0]] if sure else None
            answers.append(Sorted(folder, likely, outside, float(similarity), familiarity))
        return answers

    def save(self, output: Path, *, overwrite: bool = False) -> None:
        """Write the sorter: vectors, checksums and folders of its examples, no texts. Raises `FolderError`."""
        empty = output.is_dir() and not any(output.iterdir())
        if output.exists() and not empty and (not overwrite or not (output / RECORD).is_file()):
            raise FolderError(f"{output} is there already: choose another name, or overwrite a sorter")
        told = {"format": FORMAT, "folders": self.folders, "precision": self.precision, "scope": self.scope}
        told |= {"model": self._model, "model_file": self.encoder.precision, "examples": len(self)}
        quality = asdict(self.quality)
        if quality["least_familiar"] == -np.inf:  # no number of JSON's
            quality["least_familiar"] = None
        told |= {"encoder": _from_here(self.encoder.folder, output), "quality": quality}
        # Lone surrogates cannot be UTF-8; JSON's own escapes for them can
        written = json.dumps(told, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
        with new_folder(output) as building:
            keys = np.array(self.keys, dtype="S64")
            np.savez(building / ARRAYS, vectors=self.vectors, places=self.places, keys=keys, weights=self._weights)
            (building / RECORD).write_bytes(written + b"\n")

    @classmethod
    def open(cls, folder: Path, encoder: Predictor) -> Folders:
        """Read a sorter that `save` wrote. Raises `FolderError` for none, a damaged one, or another encoder's."""
        told = read_record(folder)
        try:
            with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
                vectors, places, keys = arrays["vectors"], arrays["places"], arrays["keys"]
                weights = arrays["weights"]
            found = cls(encoder, told["precision"], told["scope"])
            found.folders = [str(name) for name in told["folders"]]
            quality = told["quality"]
            if quality["least_familiar"] is None:
                quality = quality | {"least_familiar": -np.inf}
            found.quality = Quality(**(quality | {name: tuple(quality[name]) for name in ("left_out", "right")}))
            whole = len(vectors) == len(places) == len(keys) == told["examples"]
            whole &= weights.shape == (vectors.shape[1] + 1, len(found.folders))
            if not whole or set(places.tolist()) != set(range(len(found.folders))):
                raise ValueError("its arrays are not what its record says")
        except FileNotFoundError as error:
            raise FolderError(f"{folder}: a damaged sorter ({error.filename} is missing): learn anew") from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise FolderError(f"{folder}: a damaged sorter ({error}): learn its examples anew") from error
        if told["model"] != encoder.digest:
            raise FolderError(f"{folder}: its examples were read by another encoder: learn them anew with this one")
        found.vectors, found.places = vectors.astype(np.float32), places.astype(np.int64)
        found.keys, found._weights = [key.decode("ascii") for key in keys], weights.astype(np.float32)
        return found

    @property
    def digest(self) -> str:
        """A hash of the examples: equal digests, equal answers."""
        told = hashlib.sha256(json.dumps([self.folders, self.keys]).encode())
        for array in (self.vectors, self.places):
            told.update(np.ascontiguousarray(array).tobytes())
        return told.hexdigest()

    def _fit(self) -> None:
        """Fit the head, and choose sharpness and thresholds on examples that a fit without them answers."""
        x, folders = _extended(self.vectors), len(self.folders)
        self._weights = fit_logistic(x, self.places, folders, _PENALTY)
        rows, scores = [np.zeros(0, np.int64)], [np.zeros((0, folders), np.float32)]
        copies = self._copies()
        for part in _parts(self.places, copies):
            learned = np.setdiff1d(np.arange(len(x)), part)
            asked = part[copies[part] == part]  # each once
            rows.append(asked)
            scores.append(x[asked] @ fit_logistic(x[learned], self.places[learned], folders, _PENALTY))
        left_out, logits = np.concatenate(rows), np.concatenate(scores)
        quality = Quality((0,) * folders, (0,) * folders, 1.0, _UNSURE, -np.inf)
        if len(left_out):
            places = self.places[left_out]
            sharpness = min(_SHARPNESS, key=lambda value: _cross_entropy(logits * value, places))
            probabilities = _probabilities(logits, sharpness)
            right, confidences = probabilities.argmax(1) == places, probabilities.max(1)
            familiar = _familiar(self._nearest(self.vectors[left_out], copies, left_out), confidences)
            threshold = precise_threshold(confidences, right, self.precision, floor=float(confidences.min()))
            quality = Quality(
                tuple(np.bincount(places, minlength=folders).tolist()),
                tuple(np.bincount(places[right], minlength=folders).tolist()),
                sharpness,
                _UNSURE if threshold is None else threshold,
                float(np.quantile(familiar, self.scope)) if self.scope else -np.inf,
            )
        self.quality = quality if self.precision else replace(quality, threshold=0.0)

    def _nearest(self, vectors: Vectors, copies: Places | None = None, rows: Places | None = None) -> Array:
        """Cosine of each vector with the nearest example, (N,); of the examples at `rows`, with the nearest but their
        `copies`.
        """
        nearest = np.empty(len(vectors))
        for start in range(0, len(vectors), _BLOCK):
            cosines = vectors[start : start + _BLOCK] @ self.vectors.T
            if copies is not None and rows is not None:
                cosines[copies[rows[start : start + _BLOCK], None] == copies] = -1.0
            nearest[start : start + len(cosines)] = cosines.max(1)
        return nearest

    def _copies(self) -> Places:
        """The first example that each is a copy of, (N,): itself, where it is none."""
        first = np.arange(len(self))
        centred = self.vectors - self.vectors.mean(0)
        centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), _SMALLEST)
        for start in range(0, len(self), _BLOCK):
            block = centred[start : start + _BLOCK]
            near = block @ centred[: start + len(block)].T >= _COPY
            for row, found in enumerate(near, start):
                earlier = np.flatnonzero(found[:row])
                if len(earlier):
                    first[row] = first[earlier[0]]
        return first


def read_record(folder: Path) -> dict[str, Any]:
    """Return what the sorter in a folder says of itself. Raises `FolderError` for none, and one that is damaged."""
    place = folder / RECORD
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        if told["format"] > FORMAT:
            raise FolderError(f"{folder}: format {told['format']}: update squeezebert")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FolderError(f"{folder}: no sorter there ({place} is missing)") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{folder}: a damaged sorter ({error}): learn its examples anew") from error
    return dict(told)


def encoder_place(folder: Path) -> tuple[Path, str]:
    """Return where a sorter's encoder was, seen from the sorter, and which of its files read the examples.

    Raises `FolderError` where there is no sorter, or a damaged one.
    """
    told = read_record(folder)
    try:
        return Path(os.path.normpath(folder.resolve() / told["encoder"])), str(told["model_file"])
    except (KeyError, TypeError) as error:
        raise FolderError(f"{folder}: a damaged sorter ({error} is missing): learn its examples anew") from error


def _from_here(encoder: Path, output: Path) -> str:
    """Where an encoder is, seen from a sorter: both can be moved together."""
    try:
        return os.path.relpath(encoder.resolve(), output.resolve())
    except ValueError:  # another drive
        return str(encoder.resolve())


def _check_several(names: Sequence[str]) -> None:
    if len(names) < 2:
        raise OptionError("all examples are in one folder: give some of another as well")


def _places(folder_of: Sequence[str], names: Sequence[str]) -> Places:
    number = {name: place for place, name in enumerate(names)}
    return np.array([number[name] for name in folder_of], np.int64)


def _parts(places_N: Places, copies_N: Places) -> list[Places]:
    """Rows to leave out together, a fifth of each folder's a time, copies with each other; none of a folder that would
    have none left.
    """
    part_N = np.full(len(places_N), -1)
    for place in np.unique(places_N):
        different = np.flatnonzero((places_N == place) & (copies_N == np.arange(len(places_N))))
        # Beginning with another part in each folder, or small folders would all be in the first
        part_N[different] = (np.arange(len(different)) + place) % _PARTS
    part_N = part_N[copies_N]
    for place in np.unique(places_N):
        rows = np.flatnonzero(places_N == place)
        if len(np.unique(part_N[rows])) < 2:
            part_N[rows] = -1
    found: list[Places] = []
    for part in range(_PARTS):
        if sum(map(len, found)) < _LEFT_OUT and (part_N == part).any():
            found.append(np.flatnonzero(part_N == part))
    return found


def _extended(vectors: Vectors) -> Vectors:
    """The vectors with a constant channel, (N, C + 1)."""
    return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)


def _probabilities(scores: Vectors, sharpness: float) -> Array:
    scores64 = scores.astype(np.float64)
    odds = np.exp((scores64 - scores64.max(1, keepdims=True)) * sharpness)
    return np.asarray(odds / odds.sum(1, keepdims=True))


def _familiar(similarity: Any, confidence: Any) -> Any:
    return similarity + _DOUBT * np.log(np.maximum(confidence, _SMALLEST))


def _cross_entropy(logits: Vectors, places: Places) -> float:
    highest = logits.max(1, keepdims=True)
    total = np.log(np.exp(logits - highest).sum(1)) + highest[:, 0]
    return float((total - logits[np.arange(len(places)), places]).mean())
