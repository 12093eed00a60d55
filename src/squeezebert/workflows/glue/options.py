"""Options of `squeezebert glue`, light enough for `--help`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from squeezebert.files.errors import OptionError
from squeezebert.training.options import check_seed


@dataclass(frozen=True)
class GlueRunOptions:
    """What `glue run` runs, and where its results go."""

    model: list[str]
    """Models to train: each a folder or a Hub id, or NAME=FOLDER. BERT's architecture runs on our classes, any other
    that transformers has for sequence classification on its own."""
    output: str
    """Folder of results, kept from run to run: a folder a model, recipe, task and training run."""
    data_dir: str = "nyu-mll/glue"
    """GLUE's download (a folder a task), a folder with the Hub's Parquet files, or a Hub id."""
    tasks: tuple[str, ...] = ("all",)
    """Tasks, separated by spaces or commas: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI."""
    name: str = "plain"
    """What the table calls this way of training; a recipe sets it."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates to try with the first seed, as `1e-5 3e-5`; the other seeds run with the best of them on the
    development rows. `learning_rate` alone where none are given."""
    dropouts: tuple[float, ...] = ()
    """Dropouts to try, each with each learning rate; `dropout` alone where none are given."""
    epochs_of: dict[str, float] | str | None = None
    """Epochs of single tasks, as `{RTE: 10, MNLI: 3}` or `RTE=10,MNLI=3`, in place of `epochs`."""
    seeds: tuple[int, ...] = (1,)
    """Seeds, as `1 2 3`, in place of `seed`."""
    teacher: str | None = None
    """Distil instead of plain training: the name of a model whose results are in `output` already (its best run of
    each task teaches), or MODEL/RECIPE where it has those of several recipes, or a folder with one trained model a
    task, `FOLDER/{task}`. Its vocabulary may be another one while `hidden_weight` is 0."""
    mnli_first: bool = False
    """Train on MNLI first, and start every other task from the best run there, as the paper does with distillation."""
    test: bool = True
    """Answer the test rows as well, for `glue submit`."""
    keep: Literal["best", "all", "none"] = "best"
    """Which trained models stay on disk: the best run of each task, all of them, or none."""
    workers: int = 1
    """Training runs at a time; they share the cores."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be used, instead of stopping at the first."""

    def __post_init__(self) -> None:
        if not self.model:
            raise OptionError("--model: name at least one")
        for field, low, high in (("learning_rates", 0.0, None), ("dropouts", -1e-12, 1.0)):
            values = getattr(self, field)
            if any(value <= low or (high is not None and value >= high) for value in values):
                raise OptionError(f"--{field.replace('_', '-')} {list(values)}: one of them is out of range")
        object.__setattr__(self, "epochs_of", _epochs_of(self.epochs_of))
        for task, epochs in self.epochs_by_task.items():
            if not 0 < epochs < math.inf:
                raise OptionError(f"--epochs-of {task}: {epochs}: expected a number above 0")
        names = [task.lower() for task in self.epochs_by_task]
        if twice := {name for name in names if names.count(name) > 1}:
            raise OptionError(f"--epochs-of: {', '.join(sorted(twice))} twice")
        for field in ("learning_rates", "dropouts"):
            names = [f"{value:g}" for value in getattr(self, field)]  # as folders have them
            if len(set(names)) != len(names):
                raise OptionError(f"--{field.replace('_', '-')} {' '.join(names)}: the same one twice")
        if self.mnli_first and self.keep == "none":
            raise OptionError(
                "--mnli-first with --keep none: the other tasks start from MNLI's model, which has to be kept"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise OptionError(f"--seeds {list(self.seeds)}: expected different whole numbers from 0")
        for seed in self.seeds:
            check_seed(seed, "--seeds")
        if self.workers < 1:
            raise OptionError(f"--workers {self.workers}: expected 1 or more")
        if not self.name or not self.name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise OptionError(f"--name {self.name!r}: expected letters, digits, '-', '_' and '.': it names a folder")

    @property
    def epochs_by_task(self) -> dict[str, float]:
        """Epochs of the tasks that have their own, by the names that were given."""
        return self.epochs_of if isinstance(self.epochs_of, dict) else {}


def _epochs_of(told: dict[str, float] | str | None) -> dict[str, float] | None:
    """Epochs by task, as a recipe or the command line gives them. Raises `OptionError` for what is neither."""
    if not isinstance(told, str):
        return told
    found = {}
    for part in filter(None, (part.strip() for part in told.split(","))):
        task, _, epochs = (side.strip() for side in part.partition("="))
        if task in found:
            raise OptionError(f"--epochs-of {told}: {task} twice")
        try:
            found[task] = float(epochs)
        except ValueError as error:
            raise OptionError(f"--epochs-of {told}: expected TASK=EPOCHS, as RTE=10,MNLI=3") from error
    return found


@dataclass(frozen=True)
class GlueMeasureOptions:
    """What `glue measure` measures of the models that have results."""

    folder: str
    """Folder of `glue run`."""
    lengths: tuple[int, ...] = (32, 128)
    """Tokens of a text, for operations and latency."""
    threads: int = 1
    """Threads of the engine."""
    runs: int = 30
    """Timed calls of each file and length."""

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 2:
            raise OptionError(f"--lengths {list(self.lengths)}: expected numbers of tokens from 2")
        for field in ("threads", "runs"):
            if getattr(self, field) < 1:
                raise OptionError(f"--{field} {getattr(self, field)}: expected 1 or more")


@dataclass(frozen=True)
class GlueReportOptions:
    """What `glue report` shows, and where."""

    folder: str
    """Folder of `glue run`."""
    html: str | None = None
    """File for the page with plots."""
    markdown: str | None = None
    """File for the tables in Markdown."""
    published: bool = True
    """Show published figures beside ours, in a table of their own with their sources."""


@dataclass(frozen=True)
class GlueSubmitOptions:
    """Whose answers make the leaderboard's zip, and where it goes."""

    folder: str
    """Folder of `glue run`."""
    model: str
    """Name of the model."""
    output: str
    """Zip file to write."""
    recipe_name: str | None = None
    """Name of the recipe; not needed where the model has results of one."""
    partial: bool = False
    """Write the zip even if tasks are missing. The leaderboard takes complete ones only."""
