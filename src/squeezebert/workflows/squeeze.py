"""A dense checkpoint and text in, a squeezed checkpoint out: the job behind `squeezebert squeeze`.

Everything is made in a folder beside the output, `OUTPUT.squeezing`: the tokenised text, the model in its new order of
channels, the converted student and the saves of its healing. The same command finds them again after a kill. The
output appears at the end, whole; an older model there stays until then.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from squeezebert.data.corpus import Corpus, tokenizer_hash
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import DivergedError, OptionError
from squeezebert.files.lock import only_run
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.training.checkpoint import carry_pooling
from squeezebert.training.dense import load_dense, matching_tokenizer
from squeezebert.training.general import LOG, check_fit, distil_general
from squeezebert.training.general import RECORD as HEALED
from squeezebert.training.options import GeneralDistilOptions, ShapeOptions
from squeezebert.training.regroup import find_orders, input_variances, reorder
from squeezebert.training.rescore import carry_record
from squeezebert.training.runs import save_model
from squeezebert.training.shapes import check_shape, choose_shape, describe_shape
from squeezebert.training.squeeze import MatrixError, calibration_batches, parameters, squeeze
from squeezebert.training.stepping import MILESTONES
from squeezebert.training.teacher import load_teacher
from squeezebert.training.trainer import duration
from squeezebert.training.unlabelled import read_text
from squeezebert.workflows.options import SqueezePlaces
from squeezebert.workflows.squeezed import RECORD, card, summary
from squeezebert.workflows.squeezing import Workshop

Report = Callable[[str], None]
# Below so many tokens for each channel that a matrix reads, a fit was seen to be worse than slices (MiniLM-L6)
_TOKENS_A_CHANNEL = 1


def squeeze_checkpoint(
    places: SqueezePlaces,
    shape_options: ShapeOptions,
    healing: GeneralDistilOptions,
    command: str,
    report: Report,
) -> str:
    """Convert a dense checkpoint, heal it on text, write it; return what came of it.

    A run that was killed goes on when the same call is made again, and ends with the same weights. Raises what the
    parts raise: errors that name the cause and the way out, and leave everything that is there.
    """
    logging.disable_progress_bar()
    workshop = Workshop.beside(places)
    with only_run(places.output):
        finished = workshop.finished(command)
        if finished is not None:
            return summary(Path(places.output), finished)
        workshop.check_output(places.overwrite)
        try:
            record = _squeeze(places, shape_options, healing, command, workshop, report)
        except Exception as error:
            workshop.give_up(isinstance(error, DivergedError))
            raise
        workshop.clear()
        return summary(Path(places.output), record)


def _squeeze(
    places: SqueezePlaces,
    shape_options: ShapeOptions,
    healing: GeneralDistilOptions,
    command: str,
    workshop: Workshop,
    report: Report,
) -> dict[str, Any]:
    """Do what there is to do, one stage after the other; return the record."""
    torch.manual_seed(healing.seed)  # a pooler that the checkpoint lacks starts from it
    dense = load_dense(places.checkpoint, report)
    tokenizer = matching_tokenizer(places.checkpoint, dense)
    shape, reason = choose_shape(shape_options, dense.config.hidden_size, dense.config.width(0))
    larger = check_shape(dense.config, shape, shape_options)
    if larger:
        report(f"warning: {larger}")
    report(f"shape: {describe_shape(shape)} ({reason})")
    other = _other_teacher(places, tokenizer, healing)
    if places.heal and healing.hours is not None:
        report(f"learning for {healing.hours:g} hours, however many --steps and passes over the text that makes")
    elif not places.heal and healing != type(healing)(seed=healing.seed):
        report("--no-heal: nothing is learned, and what options or a recipe say of learning is left aside")
    options = {
        "model": _digest(dense),
        "tokenizer": tokenizer_hash(tokenizer),
        "shape": shape,
        "conversion": {**asdict(shape_options), "groups": None, "rank": None, "shape": None},
        "text": [places.column, places.encoding, places.max_length],
        "healing": asdict(healing) if places.heal else None,
        **({} if other is None else {"teacher": _digest(other)}),
    }
    workshop.claim(options, command, places.overwrite, report)
    corpus = read_text(places, tokenizer, dense.config, workshop.folder / "text", healing.seed, report)
    workshop.claim({**options, "corpus": corpus.digest}, command, places.overwrite, report)
    if places.heal:
        subject = _learner(dense, healing)
        check_fit(subject, subject if other is None else other, corpus, healing)
        if len(corpus) < 2:
            raise OptionError(
                "--text: it makes one sequence of tokens, too little to heal on: give more, or --no-heal"
            )
    student, teacher, about = _convert(
        dense, tokenizer, shape, shape_options, corpus, workshop.folder, healing.seed, report
    )
    for model in (student, teacher):
        model.config.name_or_path = places.checkpoint
    healed = workshop.folder / "healed"
    if places.heal:
        told = replace(healing, steps=_steps(corpus, healing))
        learned = _learner(teacher, healing) if other is None else other
        student = _heal(student, learned, corpus, healed, told, command, report)
    record: dict[str, Any] = {
        "command": command,
        "base": places.checkpoint,
        "teacher": places.teacher,
        "head": type(dense).__name__.removeprefix("SqueezeBert"),
        "shape": shape,
        "reason": reason,
        "text": [str(source) for source in places.text],
        "parameters": {"before": parameters(dense), "after": parameters(student)},
        **about,
        "healing": json.loads((healed / HEALED).read_text(encoding="utf-8")) if places.heal else None,
        "job": workshop.job,
        "versions": {name: version(name) for name in ("squeezebert", "torch", "transformers")},
    }
    with new_folder(workshop.output) as building:
        save_model(building, student, tokenizer)
        if places.heal:
            for name in (HEALED, LOG):
                shutil.copyfile(healed / name, building / name)
            for place in sorted((healed / MILESTONES).glob("*")):
                kept = copy.deepcopy(student)  # with its head, which learned nothing and is not in the milestone
                _take(_learner(kept, healing), place)
                save_model(building / MILESTONES / place.name, kept, tokenizer)
        if record["head"] == "Model":
            for folder in (building, *(building / MILESTONES).glob("*")):
                carry_pooling(places.checkpoint, folder)
        if record["head"] == "ForSequenceClassification":
            record["scores"], record["scored"] = carry_record(
                Path(places.checkpoint), building, student, tokenizer, command, report
            )
        (building / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (building / "README.md").write_text(card(record), encoding="utf-8")
    return record


def max_groups(shape: dict[str, Any], *widths: int) -> int:
    """Return the largest number of groups in a shape that divides the widths: one order of channels serves all."""
    values = [shape.get(field, 1) for field in GROUP_FIELDS]
    numbers = {int(number) for value in values for number in (value if isinstance(value, list) else [value])}
    return max((n for n in numbers if n and not any(width % n for width in widths)), default=1)


def _other_teacher(places: SqueezePlaces, tokenizer: Any, healing: GeneralDistilOptions) -> Any:
    """Load the teacher that is not the dense model itself, if there is to be one."""
    if places.teacher is None:
        return None
    if not places.heal:
        raise OptionError("--teacher: with --no-heal nothing is learned of it: leave one of them out")
    if healing.hidden_weight:
        raise OptionError(
            "--teacher: the hidden states of another model cannot be compared channel by channel: set --hidden-weight "
            "to 0 and --relation-weight above 0"
        )
    return load_teacher(places.teacher, tokenizer)


def _convert(
    dense: Any,
    tokenizer: Any,
    shape: dict[str, Any],
    options: ShapeOptions,
    corpus: Corpus,
    work: Path,
    seed: int,
    report: Report,
) -> tuple[Any, Any, dict[str, Any]]:
    """Return the converted student, the teacher in the student's order of channels, and what is to be told of them."""
    batches = calibration_batches(corpus, options.calibration_tokens, seed)
    tokens = sum(int(mask.sum()) for _, mask, _ in batches)
    widest = max(dense.config.hidden_size, *map(dense.config.width, range(dense.config.num_hidden_layers)))
    if options.conversion == "fitted" and tokens < _TOKENS_A_CHANNEL * widest:
        report(
            f"warning: {tokens} tokens of text, and matrices read up to {widest} channels: fitted to so little, they "
            "may answer worse than by --conversion slices; give more text, some 50,000 tokens"
        )
    groups = max_groups(shape, dense.config.hidden_size, dense.config.width(0))
    searched = options.regroup and groups > 1
    told = [_digest(dense), corpus.digest, options.calibration_tokens, seed, groups if searched else 1]

    def make_teacher(folder: Path) -> dict[str, Any]:
        teacher, energy = dense, None
        if searched:
            report(
                f"looking for the order of channels in which {groups} groups carry most (minutes for a large model)"
            )
            orders = find_orders(dense, groups, input_variances(dense, batches), seed, report)
            teacher, energy = reorder(dense, orders), orders.energy
            report(f"in that order the groups carry {energy:.0%} of what the dense matrices do")
        save_model(folder, teacher, tokenizer)
        return {"energy_in_blocks": energy}

    place = work / "teacher"
    about = _made(place, told, make_teacher)
    teacher = type(dense).from_pretrained(place).eval()

    def make_student(folder: Path) -> dict[str, Any]:
        errors: list[MatrixError] = []
        if options.conversion == "slices":
            student = squeeze(teacher, shape)
        else:
            report(f"fitting {dense.config.num_hidden_layers} layers to what the model computes on {tokens} tokens")
            student = squeeze(teacher, shape, batches, ridge=options.ridge, report=_told_fits(errors, dense, report))
        save_model(folder, student, tokenizer)
        return {"errors": [asdict(error) for error in errors]}

    place = work / "student"
    about |= _made(place, [*told, shape, asdict(options)], make_student)
    about |= {"conversion": options.conversion, "calibration_tokens": tokens}
    return type(dense).from_pretrained(place).eval(), teacher, about


def _made(folder: Path, told: Any, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Let `make` fill a folder and return what it says, unless that was done before for the same `told`."""
    wanted = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    place = folder / "made.json"
    if place.exists():
        there: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        if there["of"] == wanted:
            return dict(there["about"])
    with new_folder(folder) as building:
        about = make(building)
        (building / place.name).write_text(json.dumps({"of": wanted, "about": about}), encoding="utf-8")
    return about


def _told_fits(errors: list[MatrixError], dense: Any, report: Report) -> Callable[[MatrixError], None]:
    """Collect the errors of the fits, and tell them layer by layer with the time that is left."""
    layers, began = dense.config.num_hidden_layers, time.monotonic()

    def note(error: MatrixError) -> None:
        errors.append(error)
        if error.matrix == "output":
            done = error.layer + 1
            left = (time.monotonic() - began) / done * (layers - done)
            of_layer = ", ".join(f"{e.matrix} {e.error:.3f}" for e in errors if e.layer == error.layer)
            report(f"fitted layer {done} of {layers}, about {duration(left)} left; errors: {of_layer}")

    return note


def _learner(model: Any, healing: GeneralDistilOptions) -> Any:
    """The part of a model that learns: all of it where its answers are learned, else its encoder."""
    return model if healing.logit_weight else model.base_model


def _heal(
    student: Any,
    teacher: Any,
    corpus: Corpus,
    folder: Path,
    options: GeneralDistilOptions,
    command: str,
    report: Report,
) -> Any:
    """Return the student with what it learned of `teacher`, and leave the run's record in `folder`."""
    learner = _learner(student, options)
    if not (folder / HEALED).exists():
        distil_general(learner, teacher, corpus, folder, options, command=command, report=report)
    # Read back even where it was learned just now, so that a resumed run ends the same
    _take(learner, folder)
    return student.cpu().eval()  # Trainer moved what learned to its device


def _take(learner: Any, folder: Path) -> None:
    """Give a model the weights that one of its kind has in `folder`."""
    learner.load_state_dict(type(learner).from_pretrained(folder).state_dict())


def _steps(corpus: Corpus, healing: GeneralDistilOptions) -> int:
    """As many steps as make three passes over the text, at most the option's."""
    return min(healing.steps, max(1, round(3 * corpus.tokens / healing.batch_tokens)))


def _digest(model: Any) -> str:
    told = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().numpy().tobytes())
    return digest.hexdigest()
