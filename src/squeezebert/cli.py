"""The command line: one verb a function, one dataclass of options a verb, no logic.

`squeezebert --help` reads the option dataclasses only, so that it answers at once; each verb imports what it runs.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from squeezebert.data.corruption import CorruptionOptions
from squeezebert.data.options import CorpusOptions, DataOptions
from squeezebert.export.options import ExportOptions
from squeezebert.files.errors import SqueezeBertError
from squeezebert.parsing import Verbs, dashed, parser_of, recipes_first, together, values_of, verb_of
from squeezebert.search.options import SearchOptions, SearchPlaces
from squeezebert.training.options import (
    DistilOptions,
    FinetuneOptions,
    GeneralDistilOptions,
    MarkerOptions,
    PretrainOptions,
    ShapeOptions,
)
from squeezebert.workflows.glue.options import (
    GlueMeasureOptions,
    GlueReportOptions,
    GlueRunOptions,
    GlueSubmitOptions,
)
from squeezebert.workflows.job_options import (
    CheckOptions,
    CompleteOptions,
    CopiesOptions,
    FoldersForgetOptions,
    FoldersLearnOptions,
    FoldersSortOptions,
    ModerateOptions,
    PairsChooseOptions,
    PairsScoreOptions,
    PolicyOptions,
    PredictOptions,
    RankOptions,
    SorterPlace,
    SummariseOptions,
)
from squeezebert.workflows.options import (
    BenchOptions,
    CorpusPlaces,
    DemoOptions,
    DistilPlaces,
    EvaluationTable,
    ExportPlaces,
    LabelledColumns,
    MarkerPlaces,
    PretrainPlaces,
    PruneOptions,
    ServeOptions,
    SqueezePlaces,
    TrainPlaces,
    WebOptions,
)


def train(places: TrainPlaces, data: DataOptions, options: FinetuneOptions, command: str) -> None:
    """Labelled text in, a trained checkpoint out."""
    from squeezebert.workflows.train import train_table

    say(train_table(places, data, options, command, say))


def squeeze(places: SqueezePlaces, shape: ShapeOptions, healing: GeneralDistilOptions, command: str) -> None:
    """A dense BERT and text without labels in, a squeezed one that keeps what it knows out."""
    from squeezebert.workflows.squeeze import squeeze_checkpoint

    say(squeeze_checkpoint(places, shape, healing, command, say))


def distil(
    places: DistilPlaces, data: DataOptions, options: FinetuneOptions, distilling: DistilOptions, command: str
) -> None:
    """Labelled text, a trained teacher and a student in, a student that answers as the teacher does out."""
    from squeezebert.workflows.train import distil_table

    say(distil_table(places, data, options, distilling, command, say))


def export(
    places: ExportPlaces, options: ExportOptions, rows: EvaluationTable, columns: LabelledColumns, command: str
) -> None:
    """A trained checkpoint in, files that run without torch out: ONNX in fp32 and int8, verified."""
    from squeezebert.workflows.export import export_folder

    say(export_folder(places, options, rows, columns, say))


def policy(options: PolicyOptions, columns: LabelledColumns, command: str) -> None:
    """A classifier and labelled rows in, thresholds from which posts are reviewed or blocked out."""
    from squeezebert.workflows.moderate import choose_policy

    say(choose_policy(options, columns, say))


def moderate(options: ModerateOptions, command: str) -> None:
    """Posts, a classifier and a policy in, a decision about each with its reasons out."""
    from squeezebert.workflows.moderate import moderate_table

    say(moderate_table(options))


def folders_learn(place: SorterPlace, options: FoldersLearnOptions, columns: LabelledColumns, command: str) -> None:
    """Messages with their folders in, a sorter that knows them out; needs no torch, and more can be learned later."""
    from squeezebert.workflows.folders import learn_folders

    say(learn_folders(place, options, columns, say))


def folders_sort(place: SorterPlace, options: FoldersSortOptions, command: str) -> None:
    """Messages in, the folder of each out, or none where the sorter is unsure or the message is out of scope."""
    from squeezebert.workflows.folders import sort_table

    say(sort_table(place, options))


def folders_forget(place: SorterPlace, options: FoldersForgetOptions, command: str) -> None:
    """Leave folders and their examples out of a sorter."""
    from squeezebert.workflows.folders import forget_folders

    say(forget_folders(place, options))


def folders_show(place: SorterPlace, command: str) -> None:
    """What a sorter knows: its folders, how many examples each has, and how well they are told apart."""
    from squeezebert.workflows.folders import show_folders

    print(show_folders(place))


def rank(options: RankOptions, command: str) -> None:
    """Items and what a reader liked in, the items by the reader's taste out; needs no torch."""
    from squeezebert.workflows.rank import rank_table

    say(rank_table(options, say))


def summarise(options: SummariseOptions, command: str) -> None:
    """A document in, the sentences that say most of it out; needs no torch."""
    from squeezebert.workflows.summarise import summarise_file

    say(summarise_file(options))


def prune(options: PruneOptions, command: str) -> None:
    """A checkpoint and text in, the same model with only the vocabulary that the text needs out."""
    from squeezebert.workflows.prune import prune as prune_checkpoint

    say(prune_checkpoint(options, command, say))


def predict(options: PredictOptions, command: str) -> None:
    """Texts in, labels with calibrated probabilities out; needs no torch."""
    from squeezebert.workflows.predict import predict_table

    summary = predict_table(options)
    if summary:
        say(summary)


def copies(options: CopiesOptions, command: str) -> None:
    """Texts and an encoder in, groups of copies and near-copies out; needs no torch."""
    from squeezebert.workflows.copies import sweep_table

    say(sweep_table(options))


def pairs_score(options: PairsScoreOptions, command: str) -> None:
    """Pairs of texts and a model in, how alike they are and whether they count as copies out."""
    from squeezebert.workflows.copies import score_table

    say(score_table(options))


def pairs_choose(options: PairsChooseOptions, command: str) -> None:
    """Labelled pairs and a model in, the score from which on two texts count as copies out."""
    from squeezebert.workflows.copies import choose_threshold

    say(choose_threshold(options, say))


def complete(options: CompleteOptions, command: str) -> None:
    """Texts with gaps in, the words that may stand there with their probabilities out; needs no torch."""
    from squeezebert.workflows.complete import complete_texts

    summary = complete_texts(options)
    if summary:
        say(summary)


def train_marker(places: MarkerPlaces, options: MarkerOptions, corruption: CorruptionOptions, command: str) -> None:
    """Good text and an encoder in, a marker that has learned to find errors in text out."""
    from squeezebert.workflows.marker import train_on_text

    told, finished = train_on_text(places, options, corruption, command, say)
    say(told)
    if not finished:
        raise SystemExit(UNFINISHED)


def check(options: CheckOptions, command: str) -> None:
    """Texts in, wrong words with suggestions out; needs no torch."""
    from squeezebert.workflows.check import check_texts

    summary = check_texts(options)
    if summary:
        say(summary)


def serve(options: ServeOptions, command: str) -> None:
    """An exported model in, a service that answers over HTTP out; needs no torch."""
    from squeezebert.workflows.serve import serve_folder

    serve_folder(options, say)


def web(options: WebOptions, command: str) -> None:
    """An exported model in, a static page that runs it on the visitor's device out; needs npm once, no torch."""
    from squeezebert.workflows.web import make_page

    say(make_page(options, say))


def corpus(places: CorpusPlaces, options: CorpusOptions, command: str) -> None:
    """Raw text in, a corpus to pretrain on out: cleaned, without copies, split and tokenised."""
    from squeezebert.workflows.pretrain import make_corpus

    say(make_corpus(places, options, say))


def pretrain(places: PretrainPlaces, options: PretrainOptions, command: str) -> None:
    """A corpus in, a model that has learned masked words and sentence order out."""
    from squeezebert.workflows.pretrain import pretrain_corpus

    told, finished = pretrain_corpus(places, options, command, say)
    if told:
        say(told)
    if not finished:
        raise SystemExit(UNFINISHED)


def glue_run(places: GlueRunOptions, options: FinetuneOptions, distilling: DistilOptions, command: str) -> None:
    """Train models on GLUE's tasks: learning rates, seeds, plain or distilled; what is done is not done again."""
    from squeezebert.workflows.glue.run import run_glue

    say("\n".join(run_glue(places, options, distilling, command, say)))


def glue_measure(options: GlueMeasureOptions, command: str) -> None:
    """Parameters, operations, file size and latency of the models that have results, in one engine."""
    from squeezebert.workflows.glue.measure import measure

    print("\n".join(measure(options, command, say)))


def glue_report(options: GlueReportOptions, command: str) -> None:
    """One table of all results, for the terminal, Markdown and HTML, with published figures beside it."""
    from squeezebert.workflows.glue.report import write_report

    print(write_report(options))


def glue_submit(options: GlueSubmitOptions, command: str) -> None:
    """The leaderboard's zip of a model's best runs, checked."""
    from squeezebert.workflows.glue.submit import submit

    say("\n".join(submit(options)))


def bench(options: BenchOptions, command: str) -> None:
    """Models in, their latency, size, memory and share of what the machine can do out, all in one run."""
    from squeezebert.workflows.bench import run_bench

    print(run_bench(options, command, say))


def search(places: SearchPlaces, options: SearchOptions, command: str) -> None:
    """A dense encoder, text and a latency budget in, the network that is nearest to it in that time out."""
    from squeezebert.search.job import run_search

    say(run_search(places, options, command, say))


def demo(options: DemoOptions, command: str) -> None:
    """The whole way on real text: finetune, squeeze, distil, export, measure, and a report to look at."""
    from squeezebert.workflows.demo import run_demo

    print(run_demo(options, command, say))


VERBS: Verbs = {
    "train": (train, (TrainPlaces, DataOptions, FinetuneOptions)),
    "squeeze": (squeeze, (SqueezePlaces, ShapeOptions, GeneralDistilOptions)),
    "distil": (distil, (DistilPlaces, DataOptions, FinetuneOptions, DistilOptions)),
    "prune": (prune, (PruneOptions,)),
    "export": (export, (ExportPlaces, ExportOptions, EvaluationTable, LabelledColumns)),
    "predict": (predict, (PredictOptions,)),
    "policy": (policy, (PolicyOptions, LabelledColumns)),
    "moderate": (moderate, (ModerateOptions,)),
    "folders learn": (folders_learn, (SorterPlace, FoldersLearnOptions, LabelledColumns)),
    "folders sort": (folders_sort, (SorterPlace, FoldersSortOptions)),
    "folders forget": (folders_forget, (SorterPlace, FoldersForgetOptions)),
    "folders show": (folders_show, (SorterPlace,)),
    "rank": (rank, (RankOptions,)),
    "summarise": (summarise, (SummariseOptions,)),
    "copies": (copies, (CopiesOptions,)),
    "pairs score": (pairs_score, (PairsScoreOptions,)),
    "pairs choose": (pairs_choose, (PairsChooseOptions,)),
    "complete": (complete, (CompleteOptions,)),
    "train-marker": (train_marker, (MarkerPlaces, MarkerOptions, CorruptionOptions)),
    "check": (check, (CheckOptions,)),
    "serve": (serve, (ServeOptions,)),
    "web": (web, (WebOptions,)),
    "bench": (bench, (BenchOptions,)),
    "corpus": (corpus, (CorpusPlaces, CorpusOptions)),
    "pretrain": (pretrain, (PretrainPlaces, PretrainOptions)),
    "search": (search, (SearchPlaces, SearchOptions)),
    "demo": (demo, (DemoOptions,)),
    "glue run": (glue_run, (GlueRunOptions, FinetuneOptions, DistilOptions)),
    "glue measure": (glue_measure, (GlueMeasureOptions,)),
    "glue report": (glue_report, (GlueReportOptions,)),
    "glue submit": (glue_submit, (GlueSubmitOptions,)),
}
# What verbs of two words have in common, for `--help`
FAMILIES = {
    "folders": "Messages sorted into folders: learn from examples, sort, forget, show.",
    "glue": "The GLUE benchmark: train, measure, report, submit.",
    "pairs": "Pairs of texts: score them, and choose from which score on they are copies.",
}
# Exit status of a run that was asked to end and saved itself: start it again (BSD's EX_TEMPFAIL)
UNFINISHED = 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0, 1 for an error that was explained, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = recipes_first(together(dashed(given), VERBS), FAMILIES)
    chosen = build_parser(alone=verb_of(words, VERBS) or "").parse_args(words)
    verb, parsed = chosen.verb, chosen[chosen.verb]
    if verb in FAMILIES:
        verb, parsed = f"{verb} {parsed.verb}", parsed[parsed.verb]
    function, parts = VERBS[verb]
    try:
        function(*values_of(parts, parsed), command=shlex.join(["squeezebert", *given]))
    except ModuleNotFoundError as error:
        if (error.name or "squeezebert").startswith("squeezebert"):
            raise
        extra = {"demo": "demo", "corpus": "pretrain", "pretrain": "pretrain", "serve": "server"}.get(verb, "train")
        say(f"error: {verb} needs {error.name}, which the base install leaves out: pip install 'squeezebert[{extra}]'")
        return 1
    except SqueezeBertError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output has seen enough
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.strerror is None:
            raise
        say(f"error: {error.filename or getattr(parsed, 'output', None) or 'output'}: {error.strerror}")
        return 1
    return 0


def build_parser(alone: str | None = None) -> ArgumentParser:
    """Return the parser of all verbs, with the options of all or of the one in `alone`."""
    return parser_of(VERBS, FAMILIES, alone)


def say(line: str) -> None:
    """Tell the person at the terminal; answers alone go to standard output."""
    print(line, file=sys.stderr, flush=True)
