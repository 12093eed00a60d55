"""Thresholds chosen on labelled rows, and posts decided by them: the jobs behind `policy` and `moderate`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from squeezebert.data.options import DataOptions
from squeezebert.data.reading import Example, read_examples
from squeezebert.files.errors import OptionError, TableError
from squeezebert.files.places import check_place
from squeezebert.files.tables import RowError
from squeezebert.runtime.moderation import Moderator, Policy, Rule, read_policy, write_policy
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.runtime.thresholds import complete_threshold, fewest, precise_threshold
from squeezebert.workflows.job_options import ModerateOptions, PolicyOptions
from squeezebert.workflows.options import LabelledColumns
from squeezebert.workflows.outputs import check_output, json_line, open_part, watched

Chosen = dict[str, tuple[Rule, dict[str, Any]]]
"""label -> its thresholds, and what they reach"""

# Fewer posts than this above a threshold say little about its precision
_FEW = 20
# How many times longer a harmless post is that may be held back for one of its sentences, to give an idea
_LONGER = 10
# A larger share of the harmless posts than this is much to hold back
_COSTLY = 0.05
# The decision about a row that cannot be read
_UNREAD = {"outcome": "review", "reasons": [], "probabilities": {}, "windows": 0, "text_sha256": None}


def choose_policy(options: PolicyOptions, columns: LabelledColumns, report: Callable[[str], None]) -> str:
    """Choose each label's thresholds on labelled rows, write the policy, and return what it reaches on them.

    Rows are read as posts will be: whole and by sentences, as written and with their disguises undone; those that are
    too long to be read have no part in it. Sentences are left out where they cost too much. Raises `FolderError` for
    the model, `TableError` for the rows, and `OptionError` for labels that the model does not know or no row has, and
    an output that cannot be written, which is found out first.
    """
    check_place(options.output, overwrite=options.overwrite, others=(options.data,))
    model = load(options.folder, options.threads, options.precision)
    labels = _labels(options, model)
    reading = {name: getattr(options, name) for name in ("disguises", "sentences", "longest")}
    moderator = Moderator(model, Policy({}, **reading))
    texts, truth = _rows(options, columns, model, report)
    found, of_whole, names = [], [], []
    for row, text in enumerate(tqdm(texts, unit=" posts", disable=None)):
        highest, whole, _ = moderator.read(text)
        if highest:
            found.append([highest[label].probability for label in labels])
            of_whole.append([whole[label].probability for label in labels])
            names.append(truth[row])
    if not found:
        raise TableError(f"{options.data}: all rows are longer than {options.longest} characters: raise --longest")
    if len(found) < len(texts):
        report(f"left out {len(texts) - len(found)} rows that are longer than {options.longest} characters")
    probabilities, without_sentences = np.array(found), np.array(of_whole)
    ways: tuple[Chosen, Chosen] = ({}, {})
    for column, label in enumerate(labels):
        present = np.array([label in own for own in names])
        if not present.any():
            raise OptionError(
                f"--labels: no row of {options.data} has the label {label}: leave it out, or give others"
            )
        if present.all():
            raise OptionError(f"--labels: every row of {options.data} has the label {label}: give others as well")
        for way, read in zip(ways, (probabilities, without_sentences), strict=True):
            scores = as_posts(read[:, column], present, options.rows_a_post)
            wanted = options.block_precision, options.review_recall, options.certainty
            way[label] = choose_rule(scores, present, *wanted)
    lines = []
    of_way, without = ways
    costly = [label for label in labels if _cost_too_much(of_way[label][1], without[label][1])]
    if costly and not options.always_sentences:
        lines.append(_left_out(costly[0], of_way[costly[0]][1], without[costly[0]][1]))
        of_way, reading["sentences"] = without, False
    rules = {label: rule for label, (rule, _) in of_way.items()}
    chosen = {label: reached for label, (_, reached) in of_way.items()}
    for label in labels:
        lines += [f"{label}: {line}" for line in describe(rules[label], chosen[label], options)]
    names_of = ("block_precision", "review_recall", "certainty", "rows_a_post")
    told = {"rows": len(found), "wanted": {name: getattr(options, name) for name in names_of}, "reached": chosen}
    write_policy(Path(options.output), Policy(rules, **reading, model=model.digest, chosen=told))
    return "\n".join([*lines, f"written: {options.output}"])


def as_posts(scores: np.ndarray, present: np.ndarray, rows: int) -> np.ndarray:
    """Return the scores (N,) that posts of so many rows have: of each row and of others, drawn from those where the
    label is not there, the highest.
    """
    harmless = scores[~present]
    others = np.random.default_rng(0).choice(harmless, (len(scores), rows - 1))
    return np.asarray(np.maximum(scores, others.max(1, initial=-np.inf)))


def choose_rule(
    scores: np.ndarray, present: np.ndarray, block_precision: float, review_recall: float, certainty: float = 0.95
) -> tuple[Rule, dict[str, Any]]:
    """Return a label's thresholds and what they reach, from its scores (N,) and where it is really there (N,).

    Blocked is from the threshold on that finds most of those that reach `block_precision`, if any does; reviewed from
    the highest at which `review_recall` is reached. Both are reached beyond these rows with `certainty`, as
    `squeezebert.runtime.thresholds` says. A threshold lies half-way to the next lower score.
    """
    from squeezebert.workflows.reached import reached

    block = precise_threshold(scores, present, block_precision, certainty=certainty)
    review = complete_threshold(scores, present, review_recall, certainty=certainty)
    if block is not None:
        review = min(review, block)
    rule = Rule(review, block)
    told: dict[str, Any] = {"present": int(present.sum())}
    for name, threshold in (("block", block), ("review", review)):
        if threshold is not None:
            held = scores >= threshold
            harmless = round(float(held[~present].mean()), 4)
            told[name] = {"posts": int(held.sum()), "harmless": harmless, **reached(held, present)}
    return rule, told


def describe(rule: Rule, reached: dict[str, Any], options: PolicyOptions) -> Iterator[str]:
    """Say what a label's thresholds reach, and what they cannot."""
    from squeezebert.workflows import reached as rows

    for name, verb in (("block", "blocked"), ("review", "reviewed or blocked")):
        threshold = getattr(rule, name)
        if threshold is None:
            way_out = rows.unreached(options.block_precision, options.certainty)
            yield f"no threshold reaches a precision of {options.block_precision:g}: nothing is blocked; {way_out}"
            continue
        found = reached[name]
        yield f"{verb} from {threshold:.3f} on: {found['posts']} posts, {rows.describe(found)}"
        once, often = found["harmless"], 1 - (1 - found["harmless"]) ** _LONGER
        yield f"  and {once:.1%} of the harmless ones, or about {often:.1%} of such as are {_LONGER} times as long"
        if name == "block" and found["posts"] < _FEW:
            yield f"warning: {found['posts']} posts are few to know a precision by; give more rows"
        least = fewest(options.review_recall, options.certainty)
        if name == "review" and (least is None or reached["present"] < least):
            yield (
                f"warning: {reached['present']} rows with the label are too few to find {options.review_recall:.0%} "
                f"with {options.certainty:.0%} certainty"
                + ("" if least is None else f", which takes {least}")
                + ": all of these are found"
            )


def _cost_too_much(with_them: dict[str, Any], without: dict[str, Any]) -> bool:
    """Whether it is the sentences by themselves that hold back many harmless rows.

    A model that was trained on long texts may know little of a single sentence.
    """
    once = with_them["review"]["harmless"]
    return bool(once > _COSTLY and once > 2 * without["review"]["harmless"])


def _left_out(label: str, with_them: dict[str, Any], without: dict[str, Any]) -> str:
    return (
        f"warning: sentences by themselves are left out: for {label} they would hold back "
        f"{with_them['review']['harmless']:.1%} of the harmless rows, and without them it is "
        f"{without['review']['harmless']:.1%}. Harmless text around a bad sentence may hide it then: train the model "
        "on single sentences as well, or read them all the same, --always-sentences"
    )


def moderate_table(options: ModerateOptions) -> str:
    """Decide every post of a table, write an audit line each, and return how many were allowed, reviewed, blocked.

    A post of any characters is decided. A row that cannot be read, where such are skipped, gets a line too: it goes to
    review, and its problem is named. A run that was cut off goes on when it is repeated (`open_part`). Raises
    `FolderError` for the model, `TableError` for such a row otherwise, and `OptionError` for a policy that does not
    fit and an output that cannot be written.
    """
    policy = read_policy(Path(options.policy))
    moderator = Moderator(load(options.folder, options.threads, options.precision), policy)
    about = {"policy_sha256": policy.digest, "model_sha256": moderator.model.checksum}
    skipped: list[TableError] = []
    reading = DataOptions(text=options.text, encoding=options.encoding, skip_bad_rows=options.skip_bad_rows)
    examples = read_examples(options.file, reading, on_skip=skipped.append, odd=True)
    check_output(options.output, options.overwrite, options.file, options.policy)
    counts: Counter[str] = Counter()
    made_by = ["moderate", policy.digest, moderator.model.digest, options.text, options.encoding, options.with_text]

    def kept(row: Mapping[str, Any]) -> None:
        counts[row["outcome"]] += 1

    with open_part(options.output, options.file, made_by, overwrite=options.overwrite, kept=kept) as part:
        stream = part.stream
        quiet = None if options.output != "-" else not watched(stream)

        def write(source: str, line: int, decided: dict[str, Any], text: str | None) -> None:
            counts[decided["outcome"]] += 1
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            row = {"time": now, "source": source, "line": line, **decided, **about}
            stream.write(json_line(row | ({"text": text} if options.with_text else {})))
            stream.flush()  # an audit line is there once its post was decided

        told = 0

        def write_unread() -> None:
            nonlocal told
            for error in skipped[told:]:
                if isinstance(error, RowError) and part.is_new(error.source, error.line):
                    write(error.source, error.line, {**_UNREAD, "problem": str(error)}, None)
            told = len(skipped)

        try:
            for example in tqdm(_single(examples), unit=" posts", disable=quiet):
                write_unread()
                if not part.is_new(example.source, example.line):
                    continue
                decided = moderator.decide(example.text).to_dict(words=options.with_text)
                write(example.source, example.line, decided, example.text)
        finally:
            write_unread()
    said = [f"{counts['allow']} allowed, {counts['review']} to review, {counts['block']} blocked"]
    unread = [error for error in skipped if isinstance(error, RowError)]
    strays = [error for error in skipped if not isinstance(error, RowError)]
    if unread:
        said.append(f"to review because they cannot be read: {len(unread)} rows, the first: {unread[0]}")
    if strays:
        said.append(f"left out {len(strays)} files, the first: {strays[0]}")
    return "\n".join(said)


def _labels(options: PolicyOptions, model: Predictor) -> list[str]:
    if not model.labels:
        raise OptionError(f"{options.folder}: moderation needs a classifier, and this model gives no labels")
    unknown = [label for label in options.labels if label not in model.labels]
    if unknown:
        raise OptionError(
            f"--labels: the model does not know {', '.join(unknown)}; it knows {', '.join(model.labels)}"
        )
    if options.labels:
        return list(dict.fromkeys(options.labels))
    if model.task == "multi_label":
        return list(model.labels)
    raise OptionError(
        f"--labels: name those that posts are held back for; this model gives one of {', '.join(model.labels)}"
    )


def _classifies(model: Predictor) -> Literal["single_label", "multi_label"]:
    return "multi_label" if model.task == "multi_label" else "single_label"


def _rows(
    options: PolicyOptions, columns: LabelledColumns, model: Predictor, report: Callable[[str], None]
) -> tuple[list[str], list[tuple[str, ...]]]:
    """The posts of a labelled table, and the labels of each."""
    skipped: list[TableError] = []
    reading = columns.to_data_options()
    found = read_examples(options.data, reading, task=_classifies(model), labels=model.labels, on_skip=skipped.append)
    examples = list(_single(found))
    if skipped:
        report(f"skipped {len(skipped)} rows, the first: {skipped[0]}")
    if not examples:
        raise TableError(f"{options.data}: no usable rows to choose thresholds on")
    return [example.text for example in examples], [example.names for example in examples]


def _single(examples: Iterator[Example]) -> Iterator[Example]:
    for example in examples:
        if example.text_pair is not None:
            raise OptionError(f"{example.place}: a post is one text: name its column, --text")
        yield example
