"""Texts swept for copies, pairs scored, and the threshold of a copy chosen: the jobs behind `copies` and `pairs`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from squeezebert.data.options import DataOptions
from squeezebert.data.reading import Example, read_examples
from squeezebert.files.errors import OptionError, TableError
from squeezebert.files.lock import only_run
from squeezebert.files.places import check_place
from squeezebert.runtime.copies import Cluster, Copies, find_copies, import_faiss
from squeezebert.runtime.pairs import POSITIVE, CopyRule, PairScorer, exact_copies, read_rule, write_rule
from squeezebert.runtime.predictor import load
from squeezebert.runtime.ranking import VectorStore
from squeezebert.runtime.thresholds import precise_threshold
from squeezebert.workflows.job_options import CopiesOptions, PairsChooseOptions, PairsScoreOptions
from squeezebert.workflows.outputs import check_output, json_line, open_output, open_part, watched

# Pairs that are scored at a time
_PAIRS = 1024
# Fewer pairs than this above a threshold say little about its precision
_FEW = 20


def sweep_table(options: CopiesOptions) -> str:
    """Find the copies among the texts of a table, write a line for each group, and return what was found.

    Raises `FolderError` for the model and for a file of vectors that is damaged or another encoder's, `TableError` for
    a bad row unless they are skipped, `OptionError` for a model that is no encoder, a rule that does not fit and an
    output that cannot be written, `DependencyError` without faiss.
    """
    import_faiss()
    model = load(options.folder, options.threads, options.precision)
    if model.task != "embedding":
        raise OptionError(f"{options.folder}: copies are found by an encoder, and this is a model of {model.task}")
    rule = _rule(PairScorer(model), options)
    check_output(options.output, options.overwrite, options.file, options.rule, options.vectors)
    if options.vectors is not None:
        check_place(options.vectors, "--vectors", others=(options.file, options.rule))
    vectors = None if options.vectors is None else Path(options.vectors)
    with nullcontext() if vectors is None else only_run(vectors, option="--vectors", launched=False):
        return _sweep(options, VectorStore(model, vectors), rule.threshold)


def _sweep(options: CopiesOptions, store: VectorStore, threshold: float) -> str:
    skipped: list[TableError] = []
    reading = DataOptions(text=options.text, encoding=options.encoding, skip_bad_rows=options.skip_bad_rows)
    examples = []
    for example in read_examples(options.file, reading, on_skip=skipped.append):
        if example.text_pair is not None:
            raise OptionError(f"{example.place}: copies are of single texts: name the column to read, --text")
        examples.append(example)
    with open_output(options.output, options.overwrite) as stream:
        bars = _Bars(disabled=None if options.output != "-" else not watched(stream))
        try:
            found = find_copies([example.text for example in examples], store, threshold, options.threads, bars.told)
        finally:
            bars.close()
        for cluster in found.clusters:
            stream.write(json_line(json_cluster(cluster, examples, options.with_text)))
    said = [*_told(found, threshold)]
    if options.forget:
        gone = store.keep(example.text for example in examples)
        if gone:
            store.save()
        said.append(f"vectors of {gone} texts forgotten")
    if skipped:
        said.append(f"skipped {len(skipped)} rows, the first: {skipped[0]}")
    if found.cut:
        longest = store.encoder.manifest.max_length
        said.append(
            f"{found.cut} texts were longer than the model's {longest} tokens: they were compared by their beginnings"
        )
    return "\n".join(said)


def score_table(options: PairsScoreOptions) -> str:
    """Score each pair of a table, write a line for it, and return how many count as copies.

    A run that was cut off goes on when it is repeated (`open_part`). Raises `FolderError` for the model, `TableError`
    for a bad row unless they are skipped, and `OptionError` for a model that is not of pairs, a rule that does not fit
    and an output that cannot be written.
    """
    rule = None if options.rule is None else read_rule(Path(options.rule))
    positive = options.positive or (rule.positive if rule is not None else None)
    scorer = PairScorer(load(options.folder, options.threads, options.precision), positive)
    rule = _rule(scorer, options)
    check_output(options.output, options.overwrite, options.file, options.rule)
    skipped: list[TableError] = []
    examples = _paired(read_examples(options.file, _reading(options), on_skip=skipped.append))
    pairs = exact = copies = 0

    def count(row: Mapping[str, Any]) -> None:
        nonlocal pairs, exact, copies
        pairs, exact, copies = pairs + 1, exact + row["exact"], copies + row["copies"]

    made_by = ["pairs", scorer.model.digest, asdict(rule), options.text, options.text_pair, options.encoding]
    with open_part(options.output, options.file, made_by, overwrite=options.overwrite, kept=count) as part:
        new = (example for example in examples if part.is_new(example.source, example.line))
        quiet = None if options.output != "-" else not watched(part.stream)
        with tqdm(initial=pairs, unit=" pairs", disable=quiet) as bar:
            while some := list(itertools.islice(new, _PAIRS)):
                scores = scorer.scores([_texts(example) for example in some])
                for example, score in zip(some, scores.tolist(), strict=True):
                    same = exact_copies(*_texts(example))
                    row = {"source": example.source, "line": example.line, rule.measure: score, "exact": same}
                    row["copies"] = same or score >= rule.threshold
                    row |= {"text": example.text, "text_pair": example.text_pair}
                    part.stream.write(json_line(row))
                    count(row)
                part.stream.flush()
                bar.update(len(some))
    said = [f"{pairs} pairs, {copies} copies from {rule.measure} {rule.threshold:.3f} on, {exact} of them exact"]
    if skipped:
        said.append(f"skipped {len(skipped)} rows, the first: {skipped[0]}")
    return "\n".join(said)


def choose_threshold(options: PairsChooseOptions, report: Callable[[str], None]) -> str:
    """Choose from which score on pairs are copies, write it, and return what it reaches on the labelled rows.

    Exact copies have no part in it: they are known without a threshold. Raises `FolderError` for the model,
    `TableError` for the rows, and `OptionError` where the output cannot be written or is there, the label of copies is
    not to be found, or no threshold reaches the precision.
    """
    from squeezebert.workflows.reached import describe, reached, unreached

    check_place(options.output, overwrite=options.overwrite, others=(options.data,))
    model = load(options.folder, options.threads, options.precision)
    scorer = PairScorer(model, options.positive if options.positive in model.labels else None)
    skipped: list[TableError] = []
    found = read_examples(options.data, _reading(options), task="single_label", on_skip=skipped.append)
    every = list(_paired(found))
    if skipped:
        report(f"skipped {len(skipped)} rows, the first: {skipped[0]}")
    examples = [example for example in every if not exact_copies(*_texts(example))]
    if every and not examples:
        raise TableError(
            f"{options.data}: all {len(every)} pairs are exact copies, which are known without a threshold: give "
            "pairs that differ"
        )
    positive = _positive_of(examples, options)
    present = np.array([example.label == positive for example in examples])
    with tqdm(total=len(examples), unit=" pairs", disable=None) as bar:
        parts = []
        for start in range(0, len(examples), _PAIRS):
            parts.append(scorer.scores([_texts(example) for example in examples[start : start + _PAIRS]]))
            bar.update(len(parts[-1]))
    scores = np.concatenate(parts)
    threshold = precise_threshold(
        scores, present, options.least_precision, certainty=options.certainty, floor=float(scores.min())
    )
    if threshold is None:
        raise OptionError(
            f"--least-precision {options.least_precision:g}: no {scorer.measure} reaches it; "
            f"{unreached(options.least_precision, options.certainty)}"
        )
    held = scores >= threshold
    told = reached(held, present)
    wanted = {"least_precision": options.least_precision, "certainty": options.certainty}
    chosen = {"rows": len(every), "exact": len(every) - len(examples), "copies": int(present.sum()), "wanted": wanted}
    write_rule(
        Path(options.output),
        CopyRule(threshold, scorer.measure, scorer.positive, model.digest, chosen | {"reached": told}),
    )
    said = [f"copies from {scorer.measure} {threshold:.3f} on: {int(held.sum())} pairs, {describe(told)}"]
    if held.sum() < _FEW:
        said.append(f"warning: {int(held.sum())} pairs are few to know a precision by; give more rows")
    return "\n".join([*said, f"written: {options.output}"])


def json_cluster(cluster: Cluster, examples: list[Example], with_text: bool = True) -> dict[str, Any]:
    """A group as JSON takes it: its centre, and each member's place, cosine with the centre, and text."""

    def place(row: int) -> dict[str, Any]:
        example = examples[row]
        where: dict[str, Any] = {"source": example.source, "line": example.line}
        return where | ({"text": example.text} if with_text else {})

    members = [
        {"similarity": round(member.similarity, 4), "exact": member.exact, **place(member.row)}
        for member in cluster.members
    ]
    kind = "exact" if cluster.exact else "near"
    return {"copies": kind, "size": len(members), "centre": place(cluster.centre), "members": members}


class _Bars:
    """A bar for each stage, begun when it is first told of."""

    def __init__(self, disabled: bool | None) -> None:
        self.disabled, self.stage = disabled, ""
        self.bar: tqdm[Any] | None = None

    def told(self, stage: str, done: int, of: int) -> None:
        if stage != self.stage:
            self.close()
            name = {"read": "reading", "search": "searching"}[stage]
            self.stage, self.bar = stage, tqdm(desc=name, total=of, unit=" texts", disable=self.disabled)
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _told(found: Copies, threshold: float) -> Iterator[str]:
    near = sum(not cluster.exact for cluster in found.clusters)
    more = sum(len(cluster.members) - 1 for cluster in found.clusters)
    if not found.clusters:
        yield f"{found.texts} texts, {found.distinct} distinct: no group of copies (cosine {threshold:.3f} or more)"
    else:
        yield (
            f"{found.texts} texts, {found.distinct} distinct: {len(found.clusters)} groups, {near} of them with near-"
            f"copies (cosine {threshold:.3f} or more), the others of exact ones; {more} texts are copies of another"
        )
    if found.left_over:
        yield f"{len(found.left_over)} texts are alike to a member of a group, but not to its centre: in no group"
    if found.empty:
        yield f"{found.empty} texts are empty: in no group"


def _rule(scorer: PairScorer, options: CopiesOptions | PairsScoreOptions) -> CopyRule:
    if options.rule is None:
        rule, told = scorer.rule(options.threshold), "--threshold"
    else:
        rule, told = read_rule(Path(options.rule)), f"--rule {options.rule}: threshold"
        scorer.check(rule)
    below = {"cosine": -1, "probability": 0}.get(rule.measure)
    if below is not None and not below < rule.threshold <= 1:
        raise OptionError(f"{told} {rule.threshold:g}: expected a {rule.measure} above {below}, to 1")
    return rule


def _reading(options: PairsScoreOptions | PairsChooseOptions) -> DataOptions:
    return DataOptions(
        text=options.text,
        text_pair=options.text_pair,
        label=options.label if isinstance(options, PairsChooseOptions) else None,
        encoding=options.encoding,
        skip_bad_rows=options.skip_bad_rows,
    )


def _paired(examples: Iterator[Example]) -> Iterator[Example]:
    for example in examples:
        if example.text_pair is None:
            raise OptionError(f"{example.place}: one text: name the second column, --text-pair")
        yield example


def _texts(example: Example) -> tuple[str, str]:
    return example.text, example.text_pair or ""


def _positive_of(examples: list[Example], options: PairsChooseOptions) -> str:
    """The label of copies among labelled rows."""
    known = sorted({str(example.label) for example in examples})
    if not examples:
        raise TableError(f"{options.data}: no usable rows to choose a threshold on")
    if options.positive is not None:
        found = [label for label in known if label == options.positive]
    else:
        found = [label for label in known if label.lower() in POSITIVE]
    if len(found) != 1 or len(known) == 1:
        shown = ", ".join(known[:10])
        raise OptionError(f"--positive: say which label means that two texts are copies; {options.data} has {shown}")
    return found[0]
