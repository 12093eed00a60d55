"""Options of the whole jobs, light enough for `--help`."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Literal

from squeezebert.data.options import DataOptions, check_sources
from squeezebert.files.errors import OptionError
from squeezebert.runtime.server.limits import Limits


@dataclass(frozen=True)
class TrainPlaces:
    """What `train` reads and writes."""

    data: str
    """Table of labelled text: CSV, TSV, JSON lines, Parquet, a folder with a folder per label, a saved or Hub
    dataset."""
    output: str
    """Folder for the trained model."""
    base: str = "squeezebert/squeezebert-uncased"
    """Checkpoint to start from: a folder or a Hub id of the SqueezeBERT or BERT architecture."""
    overwrite: bool = False
    """Replace a model that the output folder holds already."""


@dataclass(frozen=True)
class DistilPlaces:
    """What `distil` reads and writes."""

    data: str
    """Table of labelled text, as for `train`."""
    teacher: str
    """Folder of a model that was trained on the same labels."""
    base: str
    """Student to start from, a folder or a Hub id: what `squeeze` made of the teacher, or of the encoder that the
    teacher was trained from."""
    output: str
    """Folder for the trained student."""
    unlabelled: list[str] = field(default_factory=list)
    """More texts of the same kind, without labels, that the student learns the teacher's answers to: tables, or .txt
    files with one text a line."""
    overwrite: bool = False
    """Replace a model that the output folder holds already."""


@dataclass(frozen=True)
class SqueezePlaces:
    """What `squeeze` reads and writes."""

    checkpoint: str
    """Dense checkpoint: a folder or a Hub id of the BERT architecture (MiniLM, TinyBERT, ELECTRA's encoder), with any
    head or none."""
    text: list[str]
    """Text to fit and to learn from, without labels: .txt files or folders of them (one paragraph a line), or tables
    that `train` reads."""
    output: str
    """Folder for the squeezed model."""
    teacher: str | None = None
    """Another model to learn from than the dense one: any encoder that transformers loads, of the same vocabulary and
    whatever width, by its `--relation-weight` or `--logit-weight`."""
    column: str | None = None
    """Column of the text in a table, found by its name when not given."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""
    max_length: int = 128
    """Tokens of a sequence, at most."""
    heal: bool = True
    """Learn from the dense model after the conversion, for `--hours`, or for `--steps` (three passes over the text,
    if that is less). What a head answers is learned with `--logit-weight` above 0 only."""
    overwrite: bool = False
    """Replace a model that the output folder holds already."""

    def __post_init__(self) -> None:
        check_sources(self.text)
        if self.max_length < 8:
            raise OptionError(f"--max-length {self.max_length}: expected 8 or more")


@dataclass(frozen=True)
class PruneOptions:
    """What `prune` reads, keeps and writes."""

    checkpoint: str
    """Checkpoint of the BERT or SqueezeBERT architecture with a WordPiece vocabulary: a folder or a Hub id."""
    text: list[str]
    """Text of the kind that the model is to read, without labels: .txt files or folders of them, or tables that
    `train` reads. The rows it was trained on are a good start."""
    output: str
    """Folder for the smaller model."""
    least: int = 1
    """How often a piece has to occur to be kept; with 0 all are. Single characters are always kept."""
    word_rank: int | None = None
    """Channels of the word table, which one matrix brings to the model's width, fitted best for the pieces that the
    text has most often. It costs accuracy: distil the result from the whole model."""
    column: str | None = None
    """Column of the text in a table, found by its name when not given."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""
    overwrite: bool = False
    """Replace a model that the output folder holds already."""

    def __post_init__(self) -> None:
        check_sources(self.text)
        if self.least < 0:
            raise OptionError(f"--least {self.least}: expected 0 or more")
        if self.word_rank is not None and self.word_rank < 1:
            raise OptionError(f"--word-rank {self.word_rank}: expected 1 or more")


@dataclass(frozen=True)
class CorpusPlaces:
    """What `corpus` reads and writes."""

    text: list[str]
    """Text, one source after the other: .txt files or folders of them (one paragraph a line, a blank line between
    documents), Wikipedia dumps (.xml, .xml.bz2, .xml.gz), tables or Hub datasets with a document a row."""
    output: str
    """Folder for the corpus: tokenizer, shards, and a manifest."""

    def __post_init__(self) -> None:
        check_sources(self.text)


@dataclass(frozen=True)
class PretrainPlaces:
    """What `pretrain` reads and writes."""

    corpus: str
    """Folder that `corpus` made."""
    output: str
    """Folder for the pretrained model."""
    base: str | None = None
    """Checkpoint to go on from, as for a second phase with longer rows; by default a new model."""
    config: str | None = None
    """YAML or JSON file with fields of the model's configuration (`hidden_size: 256`, `q_groups: 1`, ...) that differ
    from the paper's; for a new model."""


@dataclass(frozen=True)
class ExportPlaces:
    """What `export` reads and writes."""

    checkpoint: str
    """Folder of a trained model."""
    output: str
    """Folder for the exported model."""
    calibration: str | None = None
    """Table or text file of texts like those that the model will read, without labels, for `--activations static`."""
    calibration_text: str | None = None
    """Column of the calibration table's text, where it is not that of `--text`."""


@dataclass(frozen=True)
class LabelledColumns:
    """How labelled rows are read for a model that is trained already: its task and labels are known."""

    text: str | None = None
    """Column of the text, found by its name when not given."""
    label: str | None = None
    """Column of the label, or several 0/1 columns separated by commas."""
    label_separator: str | None = None
    """What separates the labels in a cell that names several."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be used, instead of stopping at the first."""

    def to_data_options(self) -> DataOptions:
        """Return the same as the reader of tables takes it."""
        return DataOptions(**asdict(self))


@dataclass(frozen=True)
class EvaluationTable:
    """Labelled rows to verify an export on; by default the rows that training held out."""

    eval: str | None = None
    """Table of labelled rows, in any format that `train` reads."""
    text_pair: str | None = None
    """Column of the second text, for a model of pairs."""


@dataclass(frozen=True)
class MarkerPlaces:
    """What `train-marker` reads and writes."""

    text: list[str]
    """Good text, without errors: .txt files or folders of them (one paragraph a line), or tables that `train`
    reads."""
    base: str
    """Encoder to start from, with any head or none: a folder or a Hub id of the BERT or SqueezeBERT architecture."""
    output: str
    """Folder for the trained marker."""
    column: str | None = None
    """Column of the text in a table, found by its name when not given."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""

    def __post_init__(self) -> None:
        check_sources(self.text)


@dataclass(frozen=True)
class ServeOptions:
    """What to serve, where, and what a request may ask."""

    folder: str
    """Exported model."""
    host: str = "127.0.0.1"
    """Address to listen on. The default is reached from this machine only; there is no authentication, so put a proxy
    before any other."""
    port: int = 8000
    """Port to listen on; 0 for one that is free."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files answers; int8 where there is one."""
    workers: int | None = None
    """Requests that are computed at a time; by default one a core."""
    threads: int = 1
    """Cores that each of them may use."""
    max_characters: int = Limits.characters
    """Characters of a text, at most. Longer ones are refused; those within it that have more tokens than the model
    reads are cut, and their answers say so."""
    max_texts: int = Limits.texts
    """Texts of a request, at most."""
    max_bytes: int = Limits.bytes
    """Bytes of a request, at most."""
    queue: int = Limits.queue
    """Texts that may wait. A request that finds no room is refused, with the time after which to ask again."""
    timeout: float = Limits.seconds
    """Seconds that a request may take, from its first byte to the last one of its answer."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise OptionError(f"--port {self.port}: expected 0 to 65535")
        for name in ("workers", "threads", "max_characters", "max_texts", "max_bytes", "queue"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name.replace('_', '-')} {value}: expected 1 or more")
        if not 0 < self.timeout < float("inf"):
            raise OptionError(f"--timeout {self.timeout:g}: expected seconds above 0")
        if self.queue < self.max_texts:
            raise OptionError(f"--queue {self.queue}: expected --max-texts ({self.max_texts}) or more")


@dataclass(frozen=True)
class WebOptions:
    """What page to make, of which model."""

    folder: str
    """Exported model that gives labels or a number."""
    output: str
    """Folder for the page; any web server hands it out as it is."""
    title: str | None = None
    """Heading of the page; by default the name of the checkpoint."""
    precision: Literal["both", "fp32", "int8"] = "both"
    """Which of the exported files visitors get. With both, the page loads both and takes the one that is faster on the
    visitor's device; int8 alone is the smallest to load."""
    webgpu: bool = True
    """Offer WebGPU to browsers that have it. Visitors load its engine only when they choose it."""
    engine_dir: str | None = None
    """The node_modules folder with the page's engine; by default npm fetches it, once."""
    overwrite: bool = False
    """Replace a page that the output folder holds already."""


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how."""

    models: list[str]
    """Exported folders, checkpoint folders, and names of architectures, which get random weights: squeezebert,
    bert-base, distilbert, minilm-l6, minilm-l12, tinybert-4, mobilebert. NAME:usual is an architecture as it comes out
    of torch.onnx.export and quantize_dynamic."""
    output: str = "squeezebert-bench"
    """Folder for the numbers (bench.json), the table (bench.md) and the page (bench.html)."""
    baseline: str | None = None
    """Which of the models the others are compared with; the first when not given."""
    lengths: tuple[int, ...] = (32, 128)
    """Tokens of a text."""
    batch_sizes: tuple[int, ...] = (1,)
    """Texts at a time."""
    threads: tuple[int, ...] = (1,)
    """Threads of the engine."""
    runs: int = 20
    """Rounds, each of a burst of every file."""
    burst: int = 5
    """Times that a file runs in a row in each round, as on a device that runs one model."""
    starts: bool = True
    """Measure new processes to their first answer, and their memory."""
    roofline: bool = True
    """Time each file's products alone, and say what share of the limit it reaches."""
    profile: bool = False
    """Say where the time goes, by kind of work."""
    overwrite: bool = False
    """Replace the results that the output folder holds."""

    def __post_init__(self) -> None:
        if not self.models:
            raise OptionError("name at least one model")
        places = [os.path.realpath(name) for name in self.models]
        repeated = [name for name, place in zip(self.models, places, strict=True) if places.count(place) > 1]
        if repeated:
            raise OptionError(f"{repeated[-1]}: named twice")
        if self.baseline is not None and self.baseline not in self.models:
            raise OptionError(f"--baseline {self.baseline}: not among the models that are measured")
        for name in ("lengths", "batch_sizes", "threads"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise OptionError(f"--{name.replace('_', '-')} {' '.join(map(str, values))}: expected numbers from 1")
            if len(set(values)) < len(values):
                raise OptionError(f"--{name.replace('_', '-')} {' '.join(map(str, values))}: one is there twice")
        for name in ("runs", "burst"):
            if getattr(self, name) < 1:
                raise OptionError(f"--{name} {getattr(self, name)}: expected 1 or more")


@dataclass(frozen=True)
class DemoOptions:
    """Where the demo writes, and how much it may use."""

    output: str = "squeezebert-demo"
    """Folder for the models, the report (report.html) and the numbers (demo.json)."""
    threads: int | None = None
    """Threads of training; all cores by default. Latency is always measured on one."""
    seed: int = 42
    """Seed of the split, of initial weights and of the order of rows."""
