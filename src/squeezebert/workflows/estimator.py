"""Texts with their labels in, a scikit-learn estimator out: `finetune` and the export behind `fit` and `predict`.

The fitted model lives in the estimator as bytes, so that it is pickled with it. Neither importing this module nor
predicting with an exported model needs torch.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, cast

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.errors import (
    DataError,
    DependencyError,
    DivergedError,
    FolderError,
    OptionError,
    ParameterError,
)

try:
    from scipy.special import expit, softmax
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise DependencyError(
        f"{error}: the estimators need scikit-learn 1.6 or newer: pip install 'squeezebert[train]', or to predict "
        "only, pip install scikit-learn"
    ) from error

from squeezebert.data.arrays import (
    classes_of,
    column_names,
    examples_of,
    names_of,
    numbers_of,
    read_labels,
    read_numbers,
    read_texts,
)
from squeezebert.data.columns import Columns
from squeezebert.data.examples import Example, LabelledData
from squeezebert.data.labels import Label
from squeezebert.data.options import Task
from squeezebert.data.report import Skips, report_on
from squeezebert.data.splits import split_rows
from squeezebert.files.atomic import new_folder
from squeezebert.runtime.tokens import Text
from squeezebert.training.options import FinetuneOptions
from squeezebert.workflows.kept import Files, export_kept, free_place, learn, open_kept, write_files

Array = NDArray[np.float64]

_WHOLE = ("batch_size", "max_length", "patience", "seed")
_NUMBERS = ("learning_rate", "epochs", "weight_decay", "warmup")
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")


class _TextEstimator(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share: parameters, training, and the folders that come of it."""

    def __init__(
        self,
        base: str | os.PathLike[str],
        *,
        learning_rate: float = FinetuneOptions.learning_rate,
        epochs: float = FinetuneOptions.epochs,
        batch_size: int = FinetuneOptions.batch_size,
        max_length: int = FinetuneOptions.max_length,
        weight_decay: float = FinetuneOptions.weight_decay,
        warmup: float = FinetuneOptions.warmup,
        dropout: float | None = FinetuneOptions.dropout,
        freeze_embeddings: bool = FinetuneOptions.freeze_embeddings,
        metric: str | None = FinetuneOptions.metric,
        patience: int = FinetuneOptions.patience,
        precision: Literal["fp32", "bf16"] = FinetuneOptions.precision,
        seed: int = FinetuneOptions.seed,
        eval_fraction: float = 0.1,
        export: Literal["fp32", "int8"] | None = "fp32",
        keep_checkpoint: bool = True,
        threads: int | None = None,
    ) -> None:
        self.base = base
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.max_length = max_length
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.dropout = dropout
        self.freeze_embeddings = freeze_embeddings
        self.metric = metric
        self.patience = patience
        self.precision = precision
        self.seed = seed
        self.eval_fraction = eval_fraction
        self.export = export
        self.keep_checkpoint = keep_checkpoint
        self.threads = threads

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the exported folder, which `squeezebert.load` and `squeezebert predict` read, and return its path.

        With `export=None` the model is exported now, in fp32. Raises `NotFittedError` before `fit`, and
        `FolderError` for a folder that has something in it.
        """
        check_is_fitted(self)
        place = free_place(folder)
        exported = self._fitted.exported
        if exported is None:
            with self._undisturbed(), tempfile.TemporaryDirectory(prefix="squeezebert-") as work:
                checkpoint = Path(work) / "checkpoint"
                write_files(cast(Files, self._fitted.checkpoint), checkpoint)
                exported, _ = export_kept(checkpoint, "fp32", self._threads())
        with new_folder(place) as building:
            write_files(exported, building)
        return place

    def checkpoint(self, folder: str | os.PathLike[str]) -> Path:
        """Write the torch checkpoint, to export or distil from, and return its path; it holds the held-out rows.

        Raises `NotFittedError` before `fit`, and `FolderError` for a folder that has something in it and for an
        estimator that did not keep its checkpoint.
        """
        check_is_fitted(self)
        place = free_place(folder)
        if self._fitted.checkpoint is None:
            raise FolderError("the checkpoint was not kept: fit again with keep_checkpoint=True")
        with new_folder(place) as building:
            write_files(self._fitted.checkpoint, building)
        return place

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_fitted")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # pairs are, but scikit-learn takes this for numbers
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_reader", None)  # an open model belongs to its process
        return state

    def _train(
        self,
        X: Any,
        texts: Sequence[Text],
        labels: Sequence[Label],
        task: Task,
        names: tuple[str, ...],
        evaluation: list[Example] | None,
    ) -> dict[str, Any]:
        """Train on the texts of X and their labels; return the attributes of a fitted estimator, and set none."""
        options, threads = self._options(), self._threads()
        examples = examples_of(texts, labels, "X")
        about = BaseEstimator()
        validate_data(about, X, skip_check_array=True)  # the names of a frame's columns, for pairs
        pair = isinstance(texts[0], tuple)
        if evaluation is None:
            kept, held_out = split_rows(texts, labels, task, self._eval_fraction(), options.seed)
            train, evaluation = [examples[row] for row in kept], [examples[row] for row in held_out]
            share = f"{self.eval_fraction:g} of the distinct texts, split seed {options.seed}"
        else:
            train, share = examples, "eval_set"
            if isinstance(evaluation[0].text_pair, str) != pair:
                raise DataError("eval_set has pairs of texts where X has single ones, or the other way: give the same")
        if not train or not evaluation:
            raise DataError(
                f"X has too few distinct texts (n_samples={len(texts)}) to hold one out for evaluation: give more, or "
                "an eval_set"
            )
        report = report_on(train, evaluation, task, names, Skips(), train_from="X", evaluation_from=share, warnings=())
        columns = Columns("text", "text_pair" if pair else None, ("label",))
        data = LabelledData(task, names, train, evaluation, columns, report)
        with self._undisturbed():
            fitted = learn(data, self.base, options, self.export, self.keep_checkpoint, threads)
        return {
            **vars(about),
            "metrics_": fitted.metrics,
            "exported_": fitted.precision,
            "_fitted": fitted,
            "_pair": pair,
            "_reader": (threads, open_kept(fitted, threads)),
        }

    def _take_over(self, found: Mapping[str, Any]) -> None:
        """Make this the estimator that was trained, in place of what an earlier fit left."""
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        self.__dict__.update(found)

    def _logits(self, X: Any) -> Array:
        """Return the calibrated outputs (n, L) for texts that are of the kind that was trained on."""
        check_is_fitted(self)
        texts = read_texts(X, "X", learned=False)
        if isinstance(texts[0], tuple) != self._pair:
            trained, given = ("pairs of texts (n, 2)", "single texts (n,)")[:: 1 if self._pair else -1]
            raise DataError(f"X holds {given}, and this model was trained on {trained}: give those")
        if hasattr(self, "n_features_in_") and not _plain(X):
            validate_data(self, X, skip_check_array=True, reset=False)
        return cast(Array, self._open().logits(texts))

    def _open(self) -> Any:
        """Return what answers texts; opened when it is first needed, and again for another number of threads."""
        threads = self._threads()
        opened = getattr(self, "_reader", None)
        if opened is None or opened[0] != threads:
            self._reader = (threads, open_kept(self._fitted, threads))
        return self._reader[1]

    def _options(self) -> FinetuneOptions:
        """Check the parameters; return those of training. Raises `ParameterError`."""
        values: dict[str, Any] = {name: _number(name, getattr(self, name), whole=True) for name in _WHOLE}
        values |= {name: _number(name, getattr(self, name)) for name in _NUMBERS}
        values["dropout"] = None if self.dropout is None else _number("dropout", self.dropout)
        if not isinstance(self.base, str | os.PathLike):
            raise ParameterError(f"base = {self.base!r}: give a checkpoint folder or the id of a model on the Hub")
        for name in ("freeze_embeddings", "keep_checkpoint"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ParameterError(f"{name} = {getattr(self, name)!r}: give True or False")
        if self.metric is not None and not isinstance(self.metric, str):
            raise ParameterError(f"metric = {self.metric!r}: give the name of a score, or None")
        if self.precision not in ("fp32", "bf16"):
            raise ParameterError(f"precision = {self.precision!r}: give fp32 or bf16")
        if self.export not in ("fp32", "int8", None):
            raise ParameterError(f"export = {self.export!r}: give fp32, int8, or None for a model that stays in torch")
        if self.export is None and not self.keep_checkpoint:
            raise ParameterError("export = None and keep_checkpoint = False: nothing would be left; set one of them")
        self._eval_fraction()
        values["freeze_embeddings"] = bool(self.freeze_embeddings)
        with _told_in_python():
            return FinetuneOptions(metric=self.metric, precision=self.precision, **values)

    def _eval_fraction(self) -> float:
        fraction = _number("eval_fraction", self.eval_fraction)
        if not 0 < fraction < 1:
            raise ParameterError(f"eval_fraction = {self.eval_fraction!r}: give a number between 0 and 1")
        return float(fraction)

    def _threads(self) -> int | None:
        if self.threads is None:
            return None
        threads = _number("threads", self.threads, whole=True)
        if threads < 1:
            raise ParameterError(f"threads = {self.threads!r}: give a whole number from 1, or None for every core")
        return int(threads)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Run a block with `threads` of torch; afterwards they and every generator of numbers are as before."""
        import torch

        from squeezebert.export.checkpoint import quiet_transformers

        own, numpys, before = random.getstate(), np.random.get_state(), torch.get_num_threads()
        try:
            torch.set_num_threads(self._threads() or before)
            with torch.random.fork_rng(), quiet_transformers(), _told_in_python():
                yield
        finally:
            torch.set_num_threads(before)
            np.random.set_state(numpys)
            random.setstate(own)


class SqueezeBertClassifier(ClassifierMixin, _TextEstimator):  # type: ignore[misc]
    """A text classifier: `base` finetuned on texts and labels, then exported, so that it answers without torch.

    Parameters, checked in `fit`:
        base: checkpoint folder or Hub id of a model of BERT's architecture.
        learning_rate, epochs, batch_size, max_length, weight_decay, warmup, dropout, freeze_embeddings, metric,
        patience, precision, seed: as `squeezebert train --help` explains them; max_length is in tokens.
        eval_fraction: share of the distinct texts that is held out to choose the best weights and to calibrate.
        export: `fp32` answers as torch does; `int8` is four times smaller, and where it would lose too much, fit
            warns and keeps fp32; None spares the export, some seconds a fit, and predicts with torch.
        keep_checkpoint: whether the torch checkpoint stays in the estimator, which doubles its size and holds the
            held-out texts.
        threads: cores for training and for one text; None: all.

    Fitted attributes: `classes_` (L,), the labels sorted, or the column numbers of an indicator matrix;
    `metrics_`, scores on the held-out rows; `exported_`, `fp32`, `int8` or None, as what the model answers;
    `n_features_in_` where X has columns.
    Progress goes to the logger `squeezebert`.
    """

    def fit(self, X: Any, y: Any, eval_set: tuple[Any, Any] | None = None, **unsupported: Any) -> Self:
        """Train on X: texts (n,) or pairs of texts (n, 2), and y: labels (n,) or an indicator matrix (n, L).

        `eval_set` is (X, y) to evaluate on instead of a share of X. Temporary files are as large as some copies of
        the model; an exception or an interrupt leaves none, and an earlier fit as it was.
        Raises `DataError` and `ParameterError`, both ValueErrors, for what cannot be used, `FolderError` where `base`
        is no checkpoint, and `DivergedError` when training runs away.
        """
        _refuse(unsupported)
        texts = read_texts(X, "X", learned=True)
        labels = read_labels(y, "y")
        if labels.ndim == 2:
            classes, targets = np.arange(labels.shape[1]), labels
            task: Task = "multi_label"
            names = column_names(y, labels.shape[1])
            if not labels.any():
                raise DataError("y has no 1: no label applies to any text; mark those that do")
        else:
            classes, targets = classes_of(labels)
            task, names = "single_label", tuple(str(value) for value in classes.tolist())
        evaluation = None
        if eval_set is not None:
            held_out, answers = _two(eval_set)
            known = read_labels(answers, "eval_set's y")
            if known.shape[1:] != labels.shape[1:]:
                raise DataError(f"eval_set's y has shape {known.shape} and y {labels.shape}: give the same columns")
            numbers = known if task == "multi_label" else numbers_of(known, classes)
            others = read_texts(held_out, "eval_set's X", learned=True)
            evaluation = examples_of(others, names_of(numbers, names), "eval_set")
        found = self._train(X, texts, names_of(targets, names), task, names, evaluation)
        several = task == "multi_label"
        self._take_over({**found, "classes_": classes, "_multi_label": several, "_answer_dtype": labels.dtype})
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the labels (n,), of y's kind; of an indicator matrix, zeros and ones (n, L).

        Of several labels, each is given from its own threshold on, which was chosen on the held-out rows.
        Raises `NotFittedError` before `fit`, and `DataError` for texts of another kind than were trained on.
        """
        probabilities = self.predict_proba(X)
        if not self._multi_label:
            return cast(NDArray[Any], self.classes_[probabilities.argmax(axis=1)])
        return np.asarray(probabilities >= np.array(self._fitted.thresholds)).astype(self._answer_dtype)

    def predict_proba(self, X: Any) -> Array:
        """Return calibrated probabilities (n, L), in the order of `classes_`. Raises what `predict` does."""
        logits = self._logits(X)
        return np.asarray(expit(logits) if self._multi_label else softmax(logits, axis=1))

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba` (n, L). Raises what `predict` does."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def decision_function(self, X: Any) -> Array:
        """Return the calibrated logits (n, L); with two classes, the second's minus the first's (n,).

        Raises what `predict` does.
        """
        logits = self._logits(X)
        if self._multi_label or logits.shape[1] > 2:
            return logits
        return np.asarray(logits[:, 1] - logits[:, 0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class SqueezeBertRegressor(RegressorMixin, _TextEstimator):  # type: ignore[misc]
    """A model that reads a number off a text; parameters and attributes as of `SqueezeBertClassifier`.

    Numbers are learned in units of their own mean and deviation, and answered in those of y.
    """

    def fit(self, X: Any, y: Any, eval_set: tuple[Any, Any] | None = None, **unsupported: Any) -> Self:
        """Train on X: texts (n,) or pairs of texts (n, 2), and y: finite numbers (n,).

        `eval_set` and errors are as for `SqueezeBertClassifier.fit`.
        """
        _refuse(unsupported)
        texts = read_texts(X, "X", learned=True)
        labels = read_numbers(y, "y")
        evaluation = None
        if eval_set is not None:
            held_out, answers = _two(eval_set)
            others = read_texts(held_out, "eval_set's X", learned=True)
            evaluation = examples_of(others, read_numbers(answers, "eval_set's y"), "eval_set")
        self._take_over(self._train(X, texts, labels, "regression", (), evaluation))
        return self

    def predict(self, X: Any) -> Array:
        """Return the numbers (n,), in the unit of y.

        Raises `NotFittedError` before `fit`, and `DataError` for texts of another kind than were trained on.
        """
        return self._logits(X)[:, 0]


# --- parameters -----------------------------------------------------------------------------------------------


def _refuse(unsupported: Mapping[str, Any]) -> None:
    """Raise for arguments of `fit` that it has no use for."""
    for name, value in unsupported.items():
        if name != "sample_weight":
            raise TypeError(f"fit() got an unexpected keyword argument {name!r}")
        if value is not None:
            raise ParameterError("sample_weight: every text counts the same here; leave it out, or repeat texts")


def _plain(X: Any) -> bool:
    """Whether texts are given without columns, as a list or a series: a model of a frame's one column takes them."""
    return getattr(X, "ndim", None) == 1 or (isinstance(X, list | tuple) and isinstance(X[0], str))


def _number(name: str, value: Any, *, whole: bool = False) -> int | float:
    """Return a parameter as Python's own number. Raises `ParameterError`."""
    kind = Integral if whole else Real
    if isinstance(value, bool | np.bool_) or not isinstance(value, kind):
        raise ParameterError(f"{name} = {value!r}: give a {'whole ' if whole else ''}number")
    number: Any = value
    return int(number) if whole else float(number)


@contextmanager
def _told_in_python() -> Iterator[None]:
    """Let errors that name an option of the command line name the parameter instead."""
    try:
        yield
    except (OptionError, FolderError) as error:
        _raise_again(error, _OPTION.sub(lambda found: found[1].replace("-", "_"), str(error)))


def _raise_again(error: OptionError | FolderError, message: str) -> NoReturn:
    if isinstance(error, FolderError | DivergedError):
        raise type(error)(message) from error
    raise ParameterError(message) from error


def _two(eval_set: Any) -> tuple[Any, Any]:
    if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
        raise ParameterError("eval_set: give a pair (X, y) of texts and their labels, or None")
    return eval_set[0], eval_set[1]
