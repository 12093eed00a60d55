"""An exported folder in, answers to texts out: the part that ships to a device. It needs no torch."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.cores import check_threads, usable_cores
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.manifest import PRECISIONS, Manifest, Precision, Sample, check_file, read_manifest
from squeezebert.files.numbers import check_whole
from squeezebert.runtime.session import open_session
from squeezebert.runtime.tokens import Text, TextError, Tokenizer, Tokens, check_several, split_pair

Array = NDArray[np.float64]

# Texts sorted by length at a time; tokens, padding included, and texts computed at a time: larger leaves the cache
_WINDOW = 1024
_BATCH_TOKENS = 512
_BATCH_ROWS = 16
# Texts taken at a time for each core, where each is computed by itself
_A_CORE = 16
# With fewer texts or batches a core than this, all cores compute each of them together
_SIDE_BY_SIDE = 2
# Where sentence-transformers keeps the longest input that a model was set to
LIMIT = "sentence_bert_config.json"
# How far an answer may be from the export's on another device: integer rounding can tip over on another CPU
TOLERANCE = {"fp32": 1e-3, "int8": 5e-2}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one text."""

    label: str | None
    """the most probable label; None unless the model gives one label"""
    labels: tuple[str, ...]
    """the labels given: one, or those that reach their threshold; empty in regression"""
    probability: float | None
    """of `label`"""
    probabilities: dict[str, float]
    """label -> probability; empty in regression"""
    value: float | None
    """the number, in regression"""
    truncated: bool
    """whether the text was cut to the model's longest input"""
    tokens: int
    """tokens read, special ones included"""

    def to_dict(self) -> dict[str, Any]:
        """Return what applies to the task, ready for a line of JSON."""
        result: dict[str, Any]
        if self.value is not None:
            result = {"value": self.value}
        elif self.label is not None:
            result = {"label": self.label, "probability": self.probability, "probabilities": self.probabilities}
        else:
            result = {"labels": list(self.labels), "probabilities": self.probabilities}
        return {**result, "truncated": self.truncated, "tokens": self.tokens}


@dataclass(frozen=True)
class SelfCheck:
    """The built-in texts answered here, next to the export's answers."""

    precision: Precision
    """which file was checked"""
    texts: int
    """how many texts were compared"""
    max_difference: float
    """largest difference of a probability (in regression: of the value, relative where it exceeds 1)"""
    tolerance: float
    """what is allowed"""

    @property
    def passed(self) -> bool:
        """Whether this device answers as the export did."""
        return self.max_difference <= self.tolerance


class Predictor:
    """A loaded model. Safe to share between threads; opened by `load`.

    One text is computed by all `threads` together, which gains little for a short one; of many, each core computes its
    own, with a second session of one thread that is opened for them.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        threads: int | None = None,
        precision: str | None = None,
        verify: bool = True,
        max_length: int | None = None,
    ) -> None:
        check_threads(threads)
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)
        self.threads = threads
        self.precision = self._choose(precision)
        file = self.manifest.files[self.precision]
        model = check_file(self.folder, file, checksum=verify)
        tokenizer = check_file(self.folder, self.manifest.tokenizer, checksum=verify)
        self.tokenizer = Tokenizer(tokenizer, max_length or self.manifest.max_length, self.manifest.token_types)
        self._batch_size = None if file.batch_invariant else 1
        # Tokens of all texts that were computed so far, and what batches added to the shorter ones
        self.tokens, self.padding = 0, 0
        self._changing = threading.Lock()
        self._cores = threads or usable_cores()
        self._model, self._disabled = model, file.disabled_optimizers
        self._session = open_session(model, threads, file.disabled_optimizers)
        self._alone = self._session if self._cores == 1 else None

        outputs = self._session.get_outputs()[0].shape[-1]
        if isinstance(outputs, int) and outputs != self._outputs:
            raise FolderError(
                f"{self.folder}: the model has {outputs} outputs, the manifest {self._outputs}: they do not belong "
                "together; export the checkpoint again"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return Predictor, (self.folder, self.threads, self.precision, False, self.tokenizer.max_length)

    def __repr__(self) -> str:
        labels = f", {len(self.labels)} labels" if self.labels else ""
        return f"Predictor({str(self.folder)!r}, {self.precision}, {self.task}{labels})"

    @property
    def task(self) -> str:
        """`single_label`, `multi_label`, `regression`, `embedding`, `masked-lm` or `token-labels`."""
        return self.manifest.task

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the model's outputs; empty for regression, embedding and masked-lm."""
        return self.manifest.labels

    @property
    def checksum(self) -> str:
        """SHA-256 of the model file that answers."""
        return self.manifest.files[self.precision].sha256

    @property
    def digest(self) -> str:
        """SHA-256 of all that answers depend on: model file, tokenizer, and how much of a text is read.

        What was made with a model holds for no other: vectors, sorters, policies and rules are kept with it.
        """
        told = (self.checksum, self.manifest.tokenizer.sha256, self.tokenizer.max_length, self.manifest.token_types)
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def shorten(self, max_length: int) -> None:
        """Read `max_length` tokens of a text, special ones included, and cut what is longer.

        Raises `OptionError` for more than the model reads, or no room for text.
        """
        if not isinstance(max_length, int) or not max_length <= self.manifest.max_length:
            raise OptionError(f"max_length = {max_length!r}: this model reads up to {self.manifest.max_length} tokens")
        path = self.folder / self.manifest.tokenizer.path
        self.tokenizer = Tokenizer(path, max_length, self.manifest.token_types)

    @property
    def _outputs(self) -> int:
        return self.manifest.dimension or len(self.labels) or 1

    @overload
    def predict(self, texts: str, batch_size: int | None = None) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, texts: Sequence[Text], batch_size: int | None = None) -> list[Prediction]: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, texts: Iterable[Text], batch_size: int | None = None) -> Iterator[Prediction]: ...
    def predict(
        self, texts: str | Iterable[Text], batch_size: int | None = None
    ) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """Answer a text, a sequence of texts or pairs `(text, text_pair)`, or a stream of them.

        A str gives one `Prediction`, a sequence a list in its order, any other iterable a lazy iterator that holds
        a bounded number of texts. An empty text is answered like any other; a longer one than the model reads is cut,
        and its answer says so.

        A text's answer does not depend on its company. In int8 the range of the activations is taken over the whole
        batch, so texts are run by themselves; `batch_size` overrides that, and answers then depend on the batch.
        fp32 texts are batched by length, which moves a probability by rounding only (about 1e-6).

        Raises `TextError`, naming the index, for an item that is no text, or a pair where the model reads single texts
        and the other way round; `OptionError` for an unusable batch size, and a model that embeds.
        """
        _check_batch_size(batch_size)
        self._check_answers()
        if isinstance(texts, str):
            return next(self._stream((texts,), batch_size))
        if isinstance(texts, Sequence):
            return list(self._stream(texts, batch_size))
        if hasattr(texts, "tolist"):  # an array, or a column of a data frame
            return list(self._stream(texts.tolist(), batch_size))
        if not isinstance(texts, Iterable) or isinstance(texts, Mapping | Set):
            raise TextError(f"expected a text or several, not {type(texts).__name__}")
        return self._stream(texts, batch_size)

    def encode(self, texts: Iterable[Text], batch_size: int | None = None) -> NDArray[np.float32]:
        """Return a vector of length 1 for each text, (N, C): the dot product of two says how alike they are.

        Texts longer than the model reads are cut. What is said of batches in `predict` holds here too.
        Raises `OptionError` for a model that gives labels or a number, and for an unusable batch size; `TextError`,
        naming the index, for an item that is no text, and for a str alone: give several.
        """
        _check_batch_size(batch_size)
        if self.task != "embedding":
            raise OptionError(f"{self.folder}: a model of {self.task}, which does not embed: export an encoder")
        check_several(texts)
        vectors = [row for window in self._windows(texts, batch_size) for row, _ in self._run(window, batch_size)]
        return np.array(vectors, dtype=np.float32).reshape(len(vectors), self._outputs)

    def predict_windows(self, text: str, overlap: int = 16) -> list[tuple[int, int, Prediction]]:
        """Answer a text of any length in windows as long as the model reads, neighbours sharing `overlap` tokens.

        Returns where each window starts and ends, in characters of the text, and its answer; one window for a text
        that fits. Raises `TextError` for a model of pairs, and `OptionError` for an overlap that leaves nothing new.
        """
        if not isinstance(text, str) or self.manifest.pair:
            found = "this model reads pairs" if isinstance(text, str) else f"expected a str, not {type(text).__name__}"
            raise TextError(f"windows are of single texts: {found}")
        self._check_answers()
        windows = self.tokenizer.windows(text, overlap)
        answers = []
        for start in range(0, len(windows), _WINDOW):
            some = windows[start : start + _WINDOW]
            for (_, first, last), (logits, tokens) in zip(some, self._run([w[0] for w in some], None), strict=True):
                answers.append((first, last, self._answer(self.probabilities(logits), tokens)))
        return answers

    def logits(self, texts: Sequence[Text], batch_size: int | None = None) -> Array:
        """Return the outputs of the model file (N, L), before probabilities. Raises as `predict` does."""
        self._check_texts()
        rows = [row for window in self._windows(texts, batch_size) for row, _ in self._run(window, batch_size)]
        return np.stack(rows) if rows else np.empty((0, self._outputs))

    def probabilities(self, logits: Array) -> Array:
        """Return what the file's outputs (N, L) mean: calibrated probabilities (N, L), or values and vectors."""
        if self.task in ("regression", "embedding"):
            return logits
        scaled = logits if self.manifest.calibrated_logits else logits / self.manifest.temperature
        if self.task == "multi_label":
            # exp of a negative number only, so that nothing overflows
            small = np.exp(-np.abs(scaled))
            return np.where(scaled >= 0, 1.0, small) / (1.0 + small)
        odds: Array = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=-1, keepdims=True))

    def self_check(self) -> SelfCheck:
        """Answer the manifest's texts and compare with what the export got, on this device with these versions."""
        difference, compared = 0.0, 0
        for sample in self.manifest.samples:
            if self.precision not in sample.expected:
                continue
            got = self.answer_sample(sample)
            expected = np.asarray(sample.expected[self.precision])
            scale = np.maximum(1.0, np.abs(expected))  # probabilities never exceed 1
            gap = float(np.max(np.abs(got - expected) / scale))
            difference = max(difference, gap if np.isfinite(gap) else np.inf)
            compared += 1
        return SelfCheck(self.precision, compared, difference, TOLERANCE[self.precision])

    def answer_sample(self, sample: Sample) -> Array:
        """Return what the model says of one of the manifest's texts, as `Sample.expected` has it."""
        if self.task == "masked-lm":
            from squeezebert.runtime.completion import Completer

            return Completer(self).probabilities(sample.text, sample.words)
        if self.task == "token-labels":
            from squeezebert.files.english import units
            from squeezebert.runtime.checking import tag_probabilities

            return tag_probabilities(self, sample.text, units(sample.text)).ravel()
        text: Text = sample.text if sample.text_pair is None else (sample.text, sample.text_pair)
        return cast(Array, self.probabilities(self.logits([text]))[0])

    def compute(self, batch: Sequence[Tokens], positions: NDArray[np.int64] | None = None) -> Array:
        """Run tokenised texts as one padded batch and return the outputs of the model file.

        They are (B, L), of token-labels (B, T, L), or of a masked-lm (P, V) at `positions` (P, 2), of text and token.
        What is said of batches in `predict` holds here too.
        """
        return self._compute(list(batch), positions)

    @property
    def batch_invariant(self) -> bool:
        """Whether an answer does not depend on the texts in its batch."""
        return self._batch_size is None

    def _check_answers(self) -> None:
        if self.task == "embedding":
            raise OptionError(f"{self.folder}: an encoder, which embeds and gives no labels: call encode")
        self._check_texts()

    def _check_texts(self) -> None:
        if self.task == "masked-lm":
            raise OptionError(
                f"{self.folder}: a model of masked words, which completes texts and gives no labels: "
                "`squeezebert complete`, in Python runtime.completion.Completer"
            )
        if self.task == "token-labels":
            raise OptionError(
                f"{self.folder}: a model that labels tokens, and gives a text no label: `squeezebert check`, in "
                "Python runtime.checking.Checker"
            )

    def _choose(self, precision: str | None) -> Precision:
        available = self.manifest.files
        if precision is None:
            return "int8" if "int8" in available else "fp32"
        if precision not in available:
            held = " and ".join(p for p in PRECISIONS if p in available)
            raise OptionError(f"precision = {precision!r}: {self.folder} holds {held}")
        return cast(Precision, precision)

    def _stream(self, texts: Iterable[Text], batch_size: int | None) -> Iterator[Prediction]:
        for window in self._windows(texts, batch_size):
            for logits, tokens in self._run(window, batch_size):
                yield self._answer(self.probabilities(logits), tokens)

    def _windows(self, texts: Iterable[Text], batch_size: int | None) -> Iterator[list[Tokens]]:
        """Tokenise texts, as many at a time as are computed side by side or sorted by length together.

        What stands before a text that cannot be read, or before an error of the source, is answered first.
        """
        index, source, problem = 0, iter(texts), None
        size = _WINDOW
        if (batch_size or self._batch_size) == 1:
            size = 1 if self._cores == 1 else _A_CORE * self._cores
        while problem is None:
            window: list[Tokens] = []
            try:
                for item in itertools.islice(source, size):
                    window.append(self._encode(item, index + len(window)))
            except Exception as error:  # noqa: BLE001 - raised below
                problem = error
            if window:
                yield window
            elif problem is None:
                return
            index += len(window)
        raise problem

    def _encode(self, item: object, index: int) -> Tokens:
        text, text_pair = split_pair(item, index)
        if self.manifest.pair is not None and self.manifest.pair != (text_pair is not None):
            wanted = "pairs (text, text_pair)" if self.manifest.pair else "single texts"
            raise TextError(f"text {index}: this model was trained on {wanted}")
        return self.tokenizer.encode(text, text_pair)

    def _run(self, window: list[Tokens], batch_size: int | None) -> list[tuple[Array, Tokens]]:
        """Return the raw outputs (L,) of each tokenised text, in order."""
        if len(window) == 1:
            return [(self._compute(window)[0], window[0])]
        rows: list[Array | None] = [None] * len(window)
        batches = list(_batches([len(tokens.ids) for tokens in window], batch_size or self._batch_size))
        for batch, outputs in zip(batches, self._each([[window[i] for i in batch] for batch in batches]), strict=True):
            for i, logits in zip(batch, outputs, strict=True):
                rows[i] = logits
        return [(cast(Array, row), tokens) for row, tokens in zip(rows, window, strict=True)]

    def _each(self, batches: list[list[Tokens]]) -> list[Array]:
        """Return the raw outputs of each batch, which are sorted by length."""
        if self._cores == 1 or len(batches) < _SIDE_BY_SIDE * self._cores:
            return [self._compute(batch) for batch in batches]
        with self._changing:
            if self._alone is None:
                self._alone = open_session(self._model, 1, self._disabled)
            alone = self._alone
        with ThreadPoolExecutor(self._cores) as cores:
            # The longest first, so that the cores end at about the same time
            return list(cores.map(lambda batch: self._compute(batch, session=alone), reversed(batches)))[::-1]

    def _compute(self, batch: list[Tokens], positions: NDArray[np.int64] | None = None, session: Any = None) -> Array:
        """Run texts as one padded batch: raw outputs (B, L), or (P, V) at `positions`."""
        if len(batch) == 1:
            ids = np.array([batch[0].ids], dtype=np.int64)
            types = np.array([batch[0].types], dtype=np.int64)
            mask = np.ones_like(ids)
        else:
            ids, types, mask = np.zeros((3, len(batch), max(len(tokens.ids) for tokens in batch)), dtype=np.int64)
            for row, tokens in enumerate(batch):
                ids[row, : len(tokens.ids)] = tokens.ids
                types[row, : len(tokens.ids)] = tokens.types
                mask[row, : len(tokens.ids)] = 1
        read = sum(len(tokens.ids) for tokens in batch)
        with self._changing:
            self.tokens += read
            self.padding += mask.size - read
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if positions is not None:
            inputs["positions"] = positions
        return cast(Array, (session or self._session).run(None, inputs)[0].astype(np.float64))

    def _answer(self, probabilities: Array, tokens: Tokens) -> Prediction:
        values: list[float] = probabilities.tolist()
        truncated, length = tokens.truncated, len(tokens.ids)
        if self.task == "regression":
            return Prediction(None, (), None, {}, values[0], truncated, length)
        named = dict(zip(self.labels, values, strict=True))
        if self.task == "multi_label":
            thresholds = self.manifest.thresholds or (0.5,) * len(values)
            given = tuple(
                label for label, value, least in zip(self.labels, values, thresholds, strict=True) if value >= least
            )
            return Prediction(None, given, None, named, None, truncated, length)
        best = int(probabilities.argmax())
        return Prediction(self.labels[best], (self.labels[best],), values[best], named, None, truncated, length)


def load(
    folder: str | os.PathLike[str],
    threads: int | None = None,
    precision: str | None = None,
    verify: bool = True,
) -> Predictor:
    """Open an exported folder.

    `threads` is the number of cores one text may use (None: all), `precision` is `int8` or `fp32` (None: int8 where
    the folder has it), `verify=False` skips the checksums. Raises `FolderError` for a folder that is missing, of
    another kind, incomplete or damaged, and `OptionError` for an option it cannot follow; both say what to do.

    A folder that sentence-transformers saved with a shorter longest input than the model's reads no more than that.
    """
    model = Predictor(folder, threads, precision, verify)
    limit = model.folder / LIMIT
    if limit.is_file():
        try:
            model.shorten(json.loads(limit.read_text(encoding="utf-8"))["max_seq_length"])
        except (OSError, ValueError, KeyError, TypeError, OptionError) as error:
            raise FolderError(f"{limit}: damaged ({error}): save the model again, or remove the file") from error
    return model


def require_encoder(model: Predictor, wanted: str) -> None:
    """Raise `OptionError` for a model that does not embed; `wanted` says what needs one that does."""
    if model.task != "embedding":
        raise OptionError(
            f"{model.folder}: {wanted}, and this is a model of {model.task}: export the checkpoint that it was "
            "trained from, as it was before it learned labels"
        )


def _check_batch_size(batch_size: object) -> None:
    if batch_size is not None:
        check_whole("batch_size =", batch_size)


def _batches(lengths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
    """Group indices of texts of like length: `batch_size` at a time, or as many as the token budget holds."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        full = (
            len(batch) >= batch_size
            if batch_size is not None
            else len(batch) >= _BATCH_ROWS or (len(batch) + 1) * lengths[i] > _BATCH_TOKENS
        )
        if batch and full:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
