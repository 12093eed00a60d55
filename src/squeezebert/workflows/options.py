"""Options of the whole jobs, light enough for `--help`."""

from __future__ import annotations

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
    """How often a piece has to occur to be kept. Single characters are always kept."""
    column: str | None = None
    """Column of the text in a table, found by its name when not given."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""
    overwrite: bool = False
    """Replace a model that the output folder holds already."""

    def __post_init__(self) -> None:
        check_sources(self.text)
        if self.least < 1:
            raise OptionError(f"--least {self.least}: expected 1 or more")


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
class PredictOptions:
    """What to read, with which model, and how to answer."""

    folder: str
    """Exported model."""
    file: str
    """Table or text file to read; - for standard input: JSON lines, or one text a line. With `--engine ray` also a
    folder of tables."""
    text: str | None = None
    """Column of the text, found by its name when not given."""
    text_pair: str | None = None
    """Column of the second text, for a model of pairs."""
    output: str = "-"
    """File for the answers; - for standard output. With `--engine ray` a folder, for parts of them."""
    format: Literal["jsonl", "csv"] = "jsonl"
    """JSON lines with all probabilities, or CSV with the decision."""
    top: int | None = None
    """Probabilities an answer lists, largest first; all by default."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files answers; int8 where there is one."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""
    batch_size: int | None = None
    """Texts a batch. By default int8 takes one at a time, so that an answer never depends on its neighbours."""
    encoding: str = "utf-8"
    """Encoding of the text file; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be read, instead of stopping at the first."""
    engine: Literal["local", "ray"] = "local"
    """Who computes: this process, or workers of a Ray cluster. A run of workers that was killed goes on when its
    command is repeated."""
    workers: int | None = None
    """Workers of the cluster, each of `--threads` (then 1 by default); as many as it has room for by default."""
    address: str | None = None
    """Ray cluster to use; by default one is started on this machine, for this run."""
    part_rows: int = 8192
    """Rows of a part, of which a worker that is killed loses one. fp32 answers do not depend on it in multiples of
    1024."""

    def __post_init__(self) -> None:
        if self.engine == "local" and (self.workers is not None or self.address is not None):
            raise OptionError("--workers and --address are for --engine ray")
        for name in ("top", "threads", "batch_size", "workers", "part_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name.replace('_', '-')} {value}: expected 1 or more")


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
class CheckOptions:
    """Which texts are checked, and what else than the marker is asked."""

    folder: str
    """Exported marker of words."""
    texts: str
    """A text, or a table or text file of texts; - for standard input: JSON lines, or one text a line."""
    words: str | None = None
    """Exported masked language model that says which suggestions fit, and which words are missing."""
    acceptability: str | None = None
    """Exported classifier that judges each whole sentence, such as one that was trained on CoLA."""
    suggestions: int = 3
    """Suggestions for each marked word, at most."""
    text: str | None = None
    """Column of the text in a table, found by its name when not given."""
    output: str = "-"
    """File for the answers, one JSON object a text; - for standard output."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the marker's files answers; int8 where there is one."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""
    encoding: str = "utf-8"
    """Encoding of the text file; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be read, instead of stopping at the first."""

    def __post_init__(self) -> None:
        if self.suggestions < 0:
            raise OptionError(f"--suggestions {self.suggestions}: expected 0 or more")
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"--threads {self.threads}: expected 1 or more")


@dataclass(frozen=True)
class CompleteOptions:
    """Which texts have gaps, and which model fills them."""

    folder: str
    """Exported masked language model."""
    texts: str
    """A text with [MASK] or ___ where a word is wanted, or a table or text file of such texts; - for standard input:
    JSON lines, or one text a line."""
    next_word: bool = False
    """Say which words may come behind the end of each text, instead of filling gaps."""
    ending: Literal["stop", "nothing"] = "stop"
    """What the model reads behind the next word: a full stop, or nothing."""
    top: int = 5
    """Words for each gap, the likeliest first."""
    text: str | None = None
    """Column of the text in a table, found by its name when not given."""
    output: str = "-"
    """File for the answers, one JSON object a text; - for standard output."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files answers; int8 where there is one."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""
    encoding: str = "utf-8"
    """Encoding of the text file; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be read or have no gap, instead of stopping at the first."""

    def __post_init__(self) -> None:
        for name in ("top", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name} {value}: expected 1 or more")


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
        repeated = [name for name in self.models if self.models.count(name) > 1]
        if repeated:
            raise OptionError(f"{repeated[0]}: named twice")
        if self.baseline is not None and self.baseline not in self.models:
            raise OptionError(f"--baseline {self.baseline}: not among the models that are measured")
        for name in ("lengths", "batch_sizes", "threads"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise OptionError(f"--{name.replace('_', '-')} {' '.join(map(str, values))}: expected numbers from 1")
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


@dataclass(frozen=True)
class PolicyOptions:
    """What `policy` reads, what the thresholds have to reach, and where the policy is written."""

    folder: str
    """Exported classifier of single texts."""
    data: str
    """Table of labelled rows that training did not see."""
    output: str
    """YAML file for the policy."""
    labels: list[str] = field(default_factory=list)
    """Labels that posts are held back for; of a model that gives any number of labels all, when none is named."""
    block_precision: float = 0.95
    """Share of the posts that a label blocks which really have it, at the least. Its threshold is the lowest that
    reaches it on the rows."""
    review_recall: float = 0.95
    """Share of the posts with a label that are blocked or reviewed, at the least. Its threshold is the highest that
    reaches it on the rows."""
    disguises: bool = True
    """Read posts also with their disguises undone: letters of other alphabets, letters apart, digits for letters."""
    longest: int = 100_000
    """Characters of a post; a longer one is not read, and goes to review."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files answers; int8 where there is one. The thresholds are of that file alone."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""
    overwrite: bool = False
    """Replace a policy that is there already."""

    def __post_init__(self) -> None:
        for name in ("block_precision", "review_recall"):
            if not 0 < getattr(self, name) <= 1:
                raise OptionError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected a share above 0, to 1")
        for name in ("longest", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name} {value}: expected 1 or more")


@dataclass(frozen=True)
class ModerateOptions:
    """What `moderate` reads and writes."""

    folder: str
    """Exported classifier of single texts."""
    file: str
    """Table or text file of posts; - for standard input: JSON lines, or one post a line."""
    policy: str
    """YAML file that says which label has what done; `squeezebert policy` writes one."""
    output: str = "-"
    """File for the audit lines, one JSON object a post; - for standard output."""
    with_text: bool = False
    """Write the post into its audit line, and not only its checksum."""
    text: str | None = None
    """Column of the text, found by its name when not given."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files answers; int8 where there is one."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""
    encoding: str = "utf-8"
    """Encoding of the text file; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be read, instead of stopping at the first."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"--threads {self.threads}: expected 1 or more")


@dataclass(frozen=True)
class SorterPlace:
    """The sorter, and the encoder that it stands on."""

    sorter: str
    """Folder of the sorter: what was learned, without the texts."""
    encoder: str | None = None
    """Exported encoder. A new sorter needs one, and knows afterwards where it is; name it again when it was moved."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""

    def __post_init__(self) -> None:
        check_threads(self.threads)


@dataclass(frozen=True)
class FoldersLearnOptions:
    """What `folders learn` reads, and when an answer is to count as sure."""

    data: str
    """Table of examples: a text and the folder it belongs in. A text that is known moves to the folder it has now."""
    sure_precision: float | None = None
    """Share of the sure answers that are to be right; 0.9 for a new sorter, and 0 to be always sure."""
    scope_share: float | None = None
    """Share of messages like the examples that may be taken for out of scope; 0.05 for a new sorter, and 0 to take
    none."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files reads for a new sorter; int8 where there is one."""

    def __post_init__(self) -> None:
        for name in ("sure_precision", "scope_share"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise OptionError(f"--{name.replace('_', '-')} {value}: expected a share from 0 to below 1")


@dataclass(frozen=True)
class FoldersSortOptions:
    """What `folders sort` reads and writes."""

    file: str
    """Table or text file of messages; - for standard input: JSON lines, or one message a line."""
    output: str = "-"
    """File for the answers, one JSON object a message; - for standard output."""
    top: int = 3
    """Folders an answer lists with their probabilities, the likeliest first."""
    text: str | None = None
    """Column of the text, found by its name when not given."""
    encoding: str = "utf-8"
    """Encoding of the text file; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be read, instead of stopping at the first."""
    overwrite: bool = False
    """Replace an output that is there already."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise OptionError(f"--top {self.top}: expected 1 or more")


@dataclass(frozen=True)
class FoldersForgetOptions:
    """What `folders forget` leaves out."""

    names: list[str]
    """Folders to forget with their examples."""


@dataclass(frozen=True)
class RankOptions:
    """What `rank` reads and writes."""

    folder: str
    """Exported encoder."""
    file: str
    """Table or text file of items; - for standard input: JSON lines, or one item a line."""
    liked: str | None = None
    """Table or text file of items that the reader liked."""
    disliked: str | None = None
    """Table or text file of items that the reader disliked; they count a quarter."""
    vectors: str | None = None
    """File that keeps what the encoder made of each text, so that no text is read twice; made where it is missing."""
    top: int | None = None
    """Items to list; all by default."""
    new: bool = False
    """Leave out items that are among the liked or the disliked."""
    output: str = "-"
    """File for the ranked items, one JSON object each, best first; - for standard output."""
    text: str | None = None
    """Column of the text of all tables, found by its name when not given."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files reads; int8 where there is one."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be read, instead of stopping at the first."""
    overwrite: bool = False
    """Replace an output that is there already."""

    def __post_init__(self) -> None:
        check_threads(self.threads)
        if self.top is not None and self.top < 1:
            raise OptionError(f"--top {self.top}: expected 1 or more")
        if self.liked is None and self.disliked is None:
            raise OptionError("--liked: name items that the reader liked (or some they disliked, --disliked)")
        if [self.file, self.liked, self.disliked].count("-") > 1:
            raise OptionError("-: standard input can be read once; name files for the others")


@dataclass(frozen=True)
class SummariseOptions:
    """What `summarise` reads, and how it chooses."""

    file: str
    """Text file of one document; - for standard input."""
    encoder: str | None = None
    """Exported encoder that says how alike sentences are; without one, the words they share do."""
    first: bool = False
    """Take the first sentences, headings left out, whatever they say."""
    sentences: int = 3
    """Sentences to choose."""
    format: Literal["text", "jsonl"] = "text"
    """A sentence a line, or JSON lines with where each stands in the document."""
    output: str = "-"
    """File for the sentences; - for standard output."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files reads; int8 where there is one."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""
    encoding: str = "utf-8"
    """Encoding of the file; a byte-order mark in it outranks it."""
    overwrite: bool = False
    """Replace an output that is there already."""

    def __post_init__(self) -> None:
        check_threads(self.threads)
        if self.sentences < 1:
            raise OptionError(f"--sentences {self.sentences}: expected 1 or more")
        if self.first and self.encoder is not None:
            raise OptionError("--first: takes the first sentences without looking at them: leave --encoder out")


def check_threads(threads: int | None) -> None:
    """Raise `OptionError` for fewer threads than one."""
    if threads is not None and threads < 1:
        raise OptionError(f"--threads {threads}: expected 1 or more")


@dataclass(frozen=True)
class CopiesOptions:
    """Which texts to compare with each other, with which model, and what counts as a copy."""

    folder: str
    """Exported encoder."""
    file: str
    """Table or text file to read; - for standard input: JSON lines, or one text a line. It is held in memory."""
    output: str = "-"
    """File for the groups, one JSON object a group; - for standard output."""
    threshold: float | None = None
    """Cosine from which on a text counts as a copy of another. Without it and without `--rule`, 0.9."""
    rule: str | None = None
    """YAML file with a threshold; `squeezebert pairs choose` writes one."""
    vectors: str | None = None
    """File to keep the texts' vectors in: what it holds is not computed again, so that a run that was cut off goes
    on, and a collection that grew is read from where it ended."""
    with_text: bool = True
    """Write the texts into their groups, and not only where they are."""
    text: str | None = None
    """Column of the text, found by its name when not given."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files answers; int8 where there is one."""
    threads: int | None = None
    """Threads of the engine and of the search; all cores by default."""
    encoding: str = "utf-8"
    """Encoding of the text file; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be read, instead of stopping at the first."""

    def __post_init__(self) -> None:
        if self.threshold is not None and self.rule is not None:
            raise OptionError("--threshold and --rule both say what a copy is: give one of them")
        if self.threshold is not None and not -1 < self.threshold <= 1:
            raise OptionError(f"--threshold {self.threshold}: expected a cosine above -1, to 1")
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"--threads {self.threads}: expected 1 or more")


@dataclass(frozen=True)
class PairsScoreOptions:
    """Which pairs to score, with which model, and from which score on they are copies."""

    folder: str
    """Exported encoder, or classifier or regression of pairs."""
    file: str
    """Table with two columns of text; - for standard input, as JSON lines."""
    output: str = "-"
    """File for the scores, one JSON object a pair; - for standard output."""
    threshold: float | None = None
    """Score from which on a pair counts as copies. Without it and without `--rule`, 0.9 for an encoder's cosine, 0.5
    for a classifier's probability."""
    rule: str | None = None
    """YAML file with a threshold; `squeezebert pairs choose` writes one."""
    positive: str | None = None
    """A classifier's label for two texts that mean the same, found by its name when not given."""
    text: str | None = None
    """Column of the first text, found by its name when not given."""
    text_pair: str | None = None
    """Column of the second text, found by its name when not given."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files answers; int8 where there is one."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""
    encoding: str = "utf-8"
    """Encoding of the text file; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be read, instead of stopping at the first."""

    def __post_init__(self) -> None:
        if self.threshold is not None and self.rule is not None:
            raise OptionError("--threshold and --rule both say what a copy is: give one of them")
        if self.threshold is not None and not abs(self.threshold) < float("inf"):
            raise OptionError(f"--threshold {self.threshold}: expected a number")
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"--threads {self.threads}: expected 1 or more")


@dataclass(frozen=True)
class PairsChooseOptions:
    """What `pairs choose` reads, what the threshold has to reach, and where it is written."""

    folder: str
    """Exported encoder, or classifier or regression of pairs."""
    data: str
    """Table of labelled pairs that training did not see."""
    output: str
    """YAML file for the threshold."""
    least_precision: float = 0.9
    """Share of the pairs that count as copies which really are, at the least. The threshold is the lowest that reaches
    it on the rows."""
    positive: str | None = None
    """The label of pairs that mean the same, found by its name (1, true, yes, duplicate, ...) when not given."""
    text: str | None = None
    """Column of the first text, found by its name when not given."""
    text_pair: str | None = None
    """Column of the second text, found by its name when not given."""
    label: str | None = None
    """Column of the label, found by its name when not given."""
    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files answers; int8 where there is one. The threshold is of that file alone."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""
    encoding: str = "utf-8"
    """Encoding of the text file; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be used, instead of stopping at the first."""
    overwrite: bool = False
    """Replace a threshold that is there already."""

    def __post_init__(self) -> None:
        if not 0 < self.least_precision <= 1:
            raise OptionError(f"--least-precision {self.least_precision}: expected a share above 0, to 1")
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"--threads {self.threads}: expected 1 or more")
