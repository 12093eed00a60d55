"""The options of the jobs that exported models do, from `predict` to `pairs`, light enough for `--help`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from squeezebert.files.cores import check_threads
from squeezebert.files.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an exported model runs."""

    precision: Literal["fp32", "int8"] | None = None
    """Which of the exported files answers; int8 where there is one."""
    threads: int | None = None
    """Threads of the engine; all cores by default."""

    def __post_init__(self) -> None:
        check_threads(self.threads, "--threads")


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table or text file of texts is read."""

    text: str | None = None
    """Column of the text, found by its name when not given."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be used, instead of stopping at the first."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Whether what is there gives way."""

    overwrite: bool = False
    """Replace an output that is there already."""


@dataclass(frozen=True)
class PredictOptions(EngineOptions, TableOptions, OutputOptions):
    """What to read, with which model, and how to answer."""

    folder: str
    """Exported model."""
    file: str
    """Table or text file to read; - for standard input: JSON lines, or one text a line. With `--engine ray` also a
    folder of tables."""
    text_pair: str | None = None
    """Column of the second text, for a model of pairs."""
    output: str = "-"
    """File for the answers; - for standard output. With `--engine ray` a folder, for parts of them."""
    format: Literal["jsonl", "csv"] = "jsonl"
    """JSON lines with all probabilities, or CSV with the decision."""
    top: int | None = None
    """Probabilities an answer lists, largest first; all by default."""
    batch_size: int | None = None
    """Texts a batch. By default int8 takes one at a time, so that an answer never depends on its neighbours."""
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
        super().__post_init__()
        if self.engine == "local" and (self.workers is not None or self.address is not None):
            raise OptionError("--workers and --address are for --engine ray")
        if self.engine == "ray" and self.overwrite:
            raise OptionError("--overwrite: a folder of parts is gone on with; to begin anew, remove it")
        for name in ("top", "batch_size", "workers", "part_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name.replace('_', '-')} {value}: expected 1 or more")


@dataclass(frozen=True)
class CheckOptions(EngineOptions, TableOptions, OutputOptions):
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
    output: str = "-"
    """File for the answers, one JSON object a text; - for standard output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.suggestions < 0:
            raise OptionError(f"--suggestions {self.suggestions}: expected 0 or more")


@dataclass(frozen=True)
class CompleteOptions(EngineOptions, TableOptions, OutputOptions):
    """Which texts have gaps, and which model fills them."""

    folder: str
    """Exported masked language model."""
    texts: str
    """A text with [MASK] or ___ where a word is wanted, or a table or text file of such texts; - for standard input:
    JSON lines, or one text a line."""
    next_word: bool = False
    """Say which words may come behind the end of each text, instead of filling gaps."""
    ending: Literal["nothing", "stop"] = "nothing"
    """What the model reads behind the next word: a full stop, or nothing."""
    top: int = 5
    """Words for each gap, the likeliest first."""
    output: str = "-"
    """File for the answers, one JSON object a text; - for standard output."""
    skip_bad_rows: bool = field(default=False, kw_only=True)
    """Pass over and count rows that cannot be read or have no gap, instead of stopping at the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top < 1:
            raise OptionError(f"--top {self.top}: expected 1 or more")


def _check_certainty(certainty: float) -> None:
    if not 0.5 <= certainty < 1:
        raise OptionError(f"--certainty {certainty}: expected a share from 0.5 to below 1")


@dataclass(frozen=True)
class PolicyOptions(EngineOptions):
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
    """Share of the posts that a label blocks which really have it, at the least. Of the thresholds that reach it, it
    is the one that finds most."""
    review_recall: float = 0.95
    """Share of the posts with a label that are blocked or reviewed, at the least. Its threshold is the highest that
    reaches it."""
    certainty: float = 0.95
    """How certainly both shares are to be reached by other posts like the rows, and not by these alone; 0.5 takes the
    rows as they are."""
    rows_a_post: int = 1
    """How many times as long as the rows the posts are: each row is taken with so many others, drawn from those
    without the label, for a long post has more sentences that can be mistaken."""
    disguises: bool = True
    """Read posts also with their disguises undone: letters of other alphabets, letters apart, digits for letters."""
    sentences: bool = True
    """Read each sentence and line of a post also by itself, so that harmless ones around it hide nothing. A post of
    several takes more than twice the time. They are left out where they would hold back far more harmless rows."""
    always_sentences: bool = False
    """Read them by themselves there, too."""
    longest: int = 100_000
    """Characters of a post, as written and with its disguises undone; a longer one is not read, and goes to review."""
    precision: Literal["fp32", "int8"] | None = field(default=None, kw_only=True)
    """Which of the exported files answers; int8 where there is one. The thresholds are of that file alone."""
    overwrite: bool = False
    """Replace a policy that is there already."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("block_precision", "review_recall"):
            if not 0 < getattr(self, name) <= 1:
                raise OptionError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected a share above 0, to 1")
        _check_certainty(self.certainty)
        if self.always_sentences and not self.sentences:
            raise OptionError("--always-sentences and --no-sentences: leave one of them out")
        for name in ("longest", "rows_a_post"):
            if getattr(self, name) < 1:
                raise OptionError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected 1 or more")


@dataclass(frozen=True)
class ModerateOptions(EngineOptions, TableOptions, OutputOptions):
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
    """Write the post into its audit line, and not only its checksum, and with each reason the words that made it."""
    skip_bad_rows: bool = field(default=False, kw_only=True)
    """Go on after a row that cannot be read, which gets an audit line that sends it to review, instead of stopping at
    the first."""


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
        check_threads(self.threads, "--threads")


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
class FoldersSortOptions(TableOptions, OutputOptions):
    """What `folders sort` reads and writes."""

    file: str
    """Table or text file of messages; - for standard input: JSON lines, or one message a line."""
    output: str = "-"
    """File for the answers, one JSON object a message; - for standard output."""
    top: int = 3
    """Folders an answer lists with their probabilities, the likeliest first."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise OptionError(f"--top {self.top}: expected 1 or more")


@dataclass(frozen=True)
class FoldersForgetOptions:
    """What `folders forget` leaves out."""

    names: list[str]
    """Folders to forget with their examples."""


@dataclass(frozen=True)
class RankOptions(EngineOptions, TableOptions, OutputOptions):
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
    forget: bool = False
    """Leave out of `--vectors` what this run has not: the vectors of texts that are gone."""
    top: int | None = None
    """Items to list; all by default."""
    new: bool = False
    """Leave out items that are among the liked or the disliked."""
    output: str = "-"
    """File for the ranked items, one JSON object each, best first; - for standard output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top is not None and self.top < 1:
            raise OptionError(f"--top {self.top}: expected 1 or more")
        if self.liked is None and self.disliked is None:
            raise OptionError("--liked: name items that the reader liked (or some they disliked, --disliked)")
        if self.forget and self.vectors is None:
            raise OptionError("--forget: name the file that vectors are kept in, --vectors")
        if [self.file, self.liked, self.disliked].count("-") > 1:
            raise OptionError("-: standard input can be read once; name files for the others")


@dataclass(frozen=True)
class SummariseOptions(EngineOptions, OutputOptions):
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
    encoding: str = field(default="utf-8", kw_only=True)
    """Encoding of the file; a byte-order mark in it outranks it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sentences < 1:
            raise OptionError(f"--sentences {self.sentences}: expected 1 or more")
        if self.first and self.encoder is not None:
            raise OptionError("--first: takes the first sentences without looking at them: leave --encoder out")


@dataclass(frozen=True)
class CopiesOptions(EngineOptions, TableOptions, OutputOptions):
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
    forget: bool = False
    """Leave out of `--vectors` what this run has not: the vectors of texts that are gone."""
    with_text: bool = True
    """Write the texts into their groups, and not only where they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and self.rule is not None:
            raise OptionError("--threshold and --rule both say what a copy is: give one of them")
        if self.forget and self.vectors is None:
            raise OptionError("--forget: name the file that vectors are kept in, --vectors")
        if self.threshold is not None and not -1 < self.threshold <= 1:
            raise OptionError(f"--threshold {self.threshold}: expected a cosine above -1, to 1")


@dataclass(frozen=True)
class PairsScoreOptions(EngineOptions, TableOptions, OutputOptions):
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
    text: str | None = field(default=None, kw_only=True)
    """Column of the first text, found by its name when not given."""
    text_pair: str | None = None
    """Column of the second text, found by its name when not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and self.rule is not None:
            raise OptionError("--threshold and --rule both say what a copy is: give one of them")
        if self.threshold is not None and not abs(self.threshold) < float("inf"):
            raise OptionError(f"--threshold {self.threshold}: expected a number")


@dataclass(frozen=True)
class PairsChooseOptions(EngineOptions, TableOptions):
    """What `pairs choose` reads, what the threshold has to reach, and where it is written."""

    folder: str
    """Exported encoder, or classifier or regression of pairs."""
    data: str
    """Table of labelled pairs that training did not see."""
    output: str
    """YAML file for the threshold."""
    least_precision: float = 0.9
    """Share of the pairs that count as copies which really are, at the least. Of the thresholds that reach it, it is
    the one that finds most."""
    certainty: float = 0.95
    """How certainly that share is to be reached by other pairs like the rows, and not by these alone; 0.5 takes the
    rows as they are."""
    positive: str | None = None
    """The label of pairs that mean the same, found by its name (1, true, yes, duplicate, ...) when not given."""
    text: str | None = field(default=None, kw_only=True)
    """Column of the first text, found by its name when not given."""
    text_pair: str | None = None
    """Column of the second text, found by its name when not given."""
    label: str | None = None
    """Column of the label, found by its name when not given."""
    precision: Literal["fp32", "int8"] | None = field(default=None, kw_only=True)
    """Which of the exported files answers; int8 where there is one. The threshold is of that file alone."""
    overwrite: bool = False
    """Replace a threshold that is there already."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.least_precision <= 1:
            raise OptionError(f"--least-precision {self.least_precision}: expected a share above 0, to 1")
        _check_certainty(self.certainty)
