"""What each task of GLUE is: its files, columns, labels, official sizes, metrics. Serves its neighbours here.

Wang et al. 2019 (arXiv 1804.07461); row counts and class names are those of `nyu-mll/glue` on the Hub.
"""

from __future__ import annotations

from dataclasses import dataclass

from squeezebert.data.options import Task


@dataclass(frozen=True)
class GlueSplit:
    """One table of a task."""

    name: str
    """As the download names it: train, dev, test, dev_matched, ..."""
    hub: str
    """As the Hub names it: train, validation, test, validation_matched, ..."""
    rows: int
    """Official number of rows."""
    submission: str = ""
    """The leaderboard's file of predictions for it; empty for a split with labels."""

    @property
    def labelled(self) -> bool:
        """Whether its rows have labels."""
        return not self.submission


@dataclass(frozen=True)
class GlueTask:
    """One task: what its tables look like, and what its score is."""

    name: str
    """As the leaderboard writes it, and as the download names its folder."""
    hub: str
    """Its configuration on the Hub."""
    texts: tuple[str, ...]
    """Columns of the text, or of the two texts, in the download's files."""
    label: str
    """Column of the label in the download's files."""
    hub_texts: tuple[str, ...]
    """Columns of the texts on the Hub."""
    words: tuple[str, ...]
    """Labels as the download and the leaderboard spell them, in the order of the Hub's class numbers; none for
    numbers."""
    hub_words: tuple[str, ...]
    """The same labels as the Hub names them."""
    metrics: tuple[str, ...]
    """Official metrics; the task's score is their mean."""
    watched: str
    """The one of `data.metrics` by which the best epoch is chosen."""
    splits: tuple[GlueSplit, ...]
    """Its tables, the training rows first."""
    has_header: bool = True
    """Whether its labelled files begin with a line of column names; without one, columns are numbers."""
    tolerant: bool = False
    """Whether the official files themselves have malformed rows, which are then passed over and counted."""

    @property
    def task(self) -> Task:
        """What a label is."""
        return "single_label" if self.words else "regression"

    @property
    def train(self) -> GlueSplit:
        """The rows to train on."""
        return self.splits[0]

    @property
    def dev(self) -> tuple[GlueSplit, ...]:
        """The labelled rows to score on: one table, or MNLI's two."""
        return tuple(split for split in self.splits[1:] if split.labelled)

    @property
    def test(self) -> tuple[GlueSplit, ...]:
        """The rows that the leaderboard scores."""
        return tuple(split for split in self.splits if not split.labelled)


def _splits(name: str, train: int, dev: int, test: int) -> tuple[GlueSplit, ...]:
    return (
        GlueSplit("train", "train", train),
        GlueSplit("dev", "validation", dev),
        GlueSplit("test", "test", test, f"{name}.tsv"),
    )


DIAGNOSTIC = "diagnostic"
"""Name of the diagnostic rows (AX), which MNLI's model answers."""
_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")
_TASKS = (
    GlueTask(
        "CoLA",
        "cola",
        ("3",),
        "1",
        ("sentence",),
        _BINARY,
        ("unacceptable", "acceptable"),
        ("matthews",),
        "matthews",
        _splits("CoLA", 8551, 1043, 1063),
        has_header=False,
    ),
    GlueTask(
        "SST-2",
        "sst2",
        ("sentence",),
        "label",
        ("sentence",),
        _BINARY,
        ("negative", "positive"),
        ("accuracy",),
        "accuracy",
        _splits("SST-2", 67349, 872, 1821),
    ),
    GlueTask(
        "MRPC",
        "mrpc",
        ("#1 String", "#2 String"),
        "Quality",
        _PAIR,
        _BINARY,
        ("not_equivalent", "equivalent"),
        ("accuracy", "f1"),
        "accuracy",
        _splits("MRPC", 3668, 408, 1725),
    ),
    GlueTask(
        "STS-B",
        "stsb",
        _PAIR,
        "score",
        _PAIR,
        (),
        (),
        ("pearson", "spearman"),
        "spearman",
        _splits("STS-B", 5749, 1500, 1379),
    ),
    GlueTask(
        "QQP",
        "qqp",
        ("question1", "question2"),
        "is_duplicate",
        ("question1", "question2"),
        _BINARY,
        ("not_duplicate", "duplicate"),
        ("accuracy", "f1"),
        "accuracy",
        _splits("QQP", 363846, 40430, 390965),
        tolerant=True,
    ),
    GlueTask(
        "MNLI",
        "mnli",
        _PAIR,
        "gold_label",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        ("entailment", "neutral", "contradiction"),
        ("accuracy",),
        "accuracy",
        (
            GlueSplit("train", "train", 392702),
            GlueSplit("dev_matched", "validation_matched", 9815),
            GlueSplit("dev_mismatched", "validation_mismatched", 9832),
            GlueSplit("test_matched", "test_matched", 9796, "MNLI-m.tsv"),
            GlueSplit("test_mismatched", "test_mismatched", 9847, "MNLI-mm.tsv"),
            GlueSplit(DIAGNOSTIC, "test", 1104, "AX.tsv"),
        ),
    ),
    GlueTask(
        "QNLI",
        "qnli",
        ("question", "sentence"),
        "label",
        ("question", "sentence"),
        _ENTAILMENT,
        _ENTAILMENT,
        ("accuracy",),
        "accuracy",
        _splits("QNLI", 104743, 5463, 5463),
    ),
    GlueTask(
        "RTE",
        "rte",
        _PAIR,
        "label",
        _PAIR,
        _ENTAILMENT,
        _ENTAILMENT,
        ("accuracy",),
        "accuracy",
        _splits("RTE", 2490, 277, 3000),
    ),
    GlueTask(
        "WNLI",
        "wnli",
        _PAIR,
        "label",
        _PAIR,
        _BINARY,
        ("not_entailment", "entailment"),
        ("accuracy",),
        "accuracy",
        _splits("WNLI", 635, 71, 146),
    ),
)
GLUE = {task.name: task for task in _TASKS}
"""The nine tasks by their names, in the leaderboard's order."""
