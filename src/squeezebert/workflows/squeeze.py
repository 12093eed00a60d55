"""A dense checkpoint and text in, a squeezed checkpoint out: the job behind `squeezebert squeeze`.

Everything is made in a folder beside the output, `OUTPUT.squeezing`: the tokenised text, the converted student and the
saves of its healing. The same command finds them again after a kill; at the end they become the output.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import logging

import squeezebert.model as models
from squeezebert.data.corpus import Corpus, tokenise_corpus
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.training.finetune import load_tokenizer
from squeezebert.training.general import distil_general
from squeezebert.training.options import GeneralDistilOptions, ShapeOptions
from squeezebert.training.regroup import find_orders, input_variances, reorder
from squeezebert.training.rescore import carry_record
from squeezebert.training.runs import first_line, save_model
from squeezebert.training.shapes import choose_shape, describe_shape
from squeezebert.training.squeeze import MatrixError, squeeze
from squeezebert.workflows.options import SqueezePlaces

Report = Callable[[str], None]
RECORD = "squeeze.json"
_BATCH = 64
# The heads that a checkpoint may come with, by the end of its architecture's name
_HEADS = {
    "ForSequenceClassification": models.SqueezeBertForSequenceClassification,
    "ForTokenClassification": models.SqueezeBertForTokenClassification,
    "ForQuestionAnswering": models.SqueezeBertForQuestionAnswering,
    "ForMultipleChoice": models.SqueezeBertForMultipleChoice,
    "ForMaskedLM": models.SqueezeBertForMaskedLM,
    "ForPreTraining": models.SqueezeBertForMaskedLM,
}


def squeeze_checkpoint(
    places: SqueezePlaces,
    shape_options: ShapeOptions,
    healing: GeneralDistilOptions,
    command: str,
    report: Report,
) -> str:
    """Convert a dense checkpoint, heal it on text, write it; return what came of it.

    Raises what the parts raise: errors that name the cause and the way out, and leave everything that is there.
    """
    logging.disable_progress_bar()
    output = Path(places.output)
    _check_output(output, places.overwrite)
    tokenizer = load_tokenizer(places.checkpoint)
    dense = load_dense(places.checkpoint)
    shape, reason = choose_shape(shape_options, dense.config.hidden_size)
    _check_shape(dense, shape)
    report(f"shape: {describe_shape(shape)} ({reason})")
    work = output.with_name(output.name + ".squeezing")
    longest = min(places.max_length, dense.config.max_position_embeddings)
    corpus = tokenise_corpus(
        places.text,
        tokenizer,
        work / "text",
        max_length=longest,
        text=places.column,
        encoding=places.encoding,
        seed=healing.seed,
        vocab_size=dense.config.vocab_size,
        report=report,
    )
    torch.manual_seed(healing.seed)
    converted = _convert(dense, tokenizer, shape, shape_options, corpus, work / "converted", healing.seed, report)
    student, teacher = (type(dense).from_pretrained(converted / name) for name in ("student", "teacher"))
    healed = work / "healed"
    summary: dict[str, Any] | None = None
    if places.heal:
        options = replace(healing, steps=_steps(corpus, healing))
        if not (healed / "healing.json").exists():
            distil_general(student, teacher, corpus, healed, options, command=command, report=report)
        summary = json.loads((healed / "healing.json").read_text(encoding="utf-8"))
    else:
        with new_folder(healed) as folder:
            save_model(folder, student, tokenizer)
    conversion = json.loads((converted / "conversion.json").read_text(encoding="utf-8"))
    record = {
        "command": command,
        "base": places.checkpoint,
        "shape": shape,
        "reason": reason,
        "text": [str(source) for source in places.text],
        **conversion,
        "healing": summary,
        "versions": {name: version(name) for name in ("squeezebert", "torch", "transformers")},
    }
    (healed / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (healed / "README.md").write_text(_card(record), encoding="utf-8")
    scores: dict[str, dict[str, float]] = {}
    if isinstance(dense, models.SqueezeBertForSequenceClassification):
        student = type(dense).from_pretrained(healed)
        scores = carry_record(Path(places.checkpoint), healed, student, tokenizer, command)
    if output.exists():
        shutil.rmtree(output)
    os.replace(healed, output)
    shutil.rmtree(work)
    return _summary(output, record, dense, student, scores)


def load_dense(checkpoint: str) -> Any:
    """Load a BERT-architecture checkpoint as our class for its head, or as an encoder where it has none.

    Raises `FolderError` when there is none, `OptionError` when its architecture does not fit.
    """
    try:
        saved, _ = PreTrainedConfig.get_config_dict(checkpoint)
        names = saved.get("architectures") or [""]
        kind = next((cls for end, cls in _HEADS.items() if names[0].endswith(end)), models.SqueezeBertModel)
        if saved.get("model_type") == "electra":
            kind = models.SqueezeBertModel
        return kind.from_pretrained(checkpoint).eval()
    except OSError as error:
        raise FolderError(
            f"{checkpoint}: no checkpoint there. squeeze takes a folder with config.json and weights, or the id of a "
            f"model on the Hugging Face Hub, which has to be reachable ({first_line(error)})"
        ) from error
    except ValueError as error:
        raise OptionError(f"{checkpoint}: {error}") from error


def calibration_batches(corpus: Corpus, tokens: int, seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draw sequences of about `tokens` tokens in all, and return them as batches of ids, masks and types, (B, T)."""
    rows = list(range(len(corpus)))
    random.Random(seed).shuffle(rows)
    lengths = corpus.lengths
    count = int(np.searchsorted(np.cumsum(lengths[rows]), tokens)) + 1
    rows = sorted(rows[:count], key=lambda row: int(lengths[row]))
    batches = []
    for start in range(0, len(rows), _BATCH):
        batch = corpus.batch(rows[start : start + _BATCH])
        ids, mask, types = (
            torch.from_numpy(np.asarray(batch[name])).long()
            for name in ("input_ids", "attention_mask", "token_type_ids")
        )
        batches.append((ids, mask, types))
    return batches


def _convert(
    dense: Any,
    tokenizer: Any,
    shape: dict[str, Any],
    options: ShapeOptions,
    corpus: Corpus,
    folder: Path,
    seed: int,
    report: Report,
) -> Path:
    """Write the converted student, and the teacher in the student's order of channels; a finished folder is kept."""
    told = json.dumps([shape, asdict(options), corpus.digest, _digest(dense), seed], sort_keys=True)
    fingerprint = hashlib.sha256(told.encode()).hexdigest()
    marker = folder / "fingerprint"
    if marker.exists() and marker.read_text() == fingerprint:
        return folder
    teacher, energy = dense, None
    batches = calibration_batches(corpus, options.calibration_tokens, seed)
    groups = max_groups(shape)
    if options.regroup and groups > 1:
        report(f"looking for the order of channels in which {groups} groups carry most")
        orders = find_orders(dense, groups, input_variances(dense, batches), seed)
        teacher, energy = reorder(dense, orders), orders.energy
    errors: list[MatrixError] = []
    if options.conversion == "slices":
        student = squeeze(teacher, shape)
    else:
        matrices = 4 * dense.config.num_hidden_layers

        def note(error: MatrixError) -> None:
            errors.append(error)
            report(f"fitted {len(errors)} of {matrices}: layer {error.layer} {error.matrix}, error {error.error:.3f}")

        student = squeeze(teacher, shape, batches, ridge=options.ridge, report=note)
    with new_folder(folder) as building:
        save_model(building / "student", student, tokenizer)
        save_model(building / "teacher", teacher, tokenizer)
        about = {
            "conversion": options.conversion,
            "calibration_tokens": sum(int(mask.sum()) for _, mask, _ in batches),
            "energy_in_blocks": energy,
            "errors": [asdict(error) for error in errors],
        }
        (building / "conversion.json").write_text(json.dumps(about), encoding="utf-8")
        (building / "fingerprint").write_text(fingerprint)
    return folder


def max_groups(shape: dict[str, Any]) -> int:
    """Return the largest number of groups in a shape: one order of channels serves all, since groups nest."""
    values = [shape.get(field, 1) for field in GROUP_FIELDS]
    return max(int(number) for value in values for number in (value if isinstance(value, list) else [value]))


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_file():
        raise FolderError(f"{output} is a file; --output takes a folder")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise FolderError(f"{output} is not empty: choose another --output, or --overwrite it")
    if output.is_dir() and any(output.iterdir()) and not (output / "config.json").exists():
        raise FolderError(f"{output} holds something else than a model, which --overwrite would delete: choose another")


def _check_shape(dense: Any, shape: dict[str, Any]) -> None:
    try:
        squeezed = dense.config.__class__.from_dict({**dense.config.to_dict(), **shape})
        squeezed.check_sizes()
    except ValueError as error:
        raise OptionError(f"{error} (hidden_size {dense.config.hidden_size}, intermediate_size "
                          f"{dense.config.intermediate_size})") from error


def _steps(corpus: Corpus, healing: GeneralDistilOptions) -> int:
    """As many steps as make three passes over the text, at most the option's."""
    return min(healing.steps, max(1, round(3 * corpus.tokens / healing.batch_tokens)))


def _digest(model: Any) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().numpy().tobytes())
    return digest.hexdigest()


def parameters(model: Any) -> int:
    """Return the number of parameters of a model's blocks, the embeddings left out."""
    return sum(p.numel() for p in model.base_model.encoder.parameters())


def _card(record: dict[str, Any]) -> str:
    lines = [
        "---",
        "library_name: squeezebert",
        "---",
        f"# {Path(record['base']).name}, squeezed",
        "",
        f"Shape: {describe_shape(record['shape'])} ({record['reason']}).",
        "",
        f"Conversion: {record['conversion']}, on {record['calibration_tokens']} tokens.",
    ]
    if record["healing"]:
        held_out = record["healing"]["held_out"]
        lines += [
            "",
            f"Healed for {record['healing']['steps']} steps on {record['healing']['tokens']} tokens; "
            f"loss on held-out text {held_out.get('held_out_loss', held_out.get('loss'))}.",
        ]
    return "\n".join([*lines, "", "Made by:", "", "```", record["command"], "```", ""])


def _summary(
    output: Path, record: dict[str, Any], dense: Any, student: Any, scores: dict[str, dict[str, float]]
) -> str:
    fewer = parameters(dense) / parameters(student)
    lines = [f"{fewer:.2f} times fewer weights in the blocks than {record['base']}"]
    if record["healing"]:
        lines.append(f"healed for {record['healing']['steps']} steps")
    for name, after in scores.get("after", {}).items():
        lines.append(f"{name.replace('_', ' ')}: {scores['before'][name]:.4f} before, {after:.4f} after")
    folder = shlex.quote(str(output))
    following = (
        f"squeezebert export {folder} --output EXPORTED"
        if scores
        else f"squeezebert train TABLE --base {folder} --output TRAINED"
    )
    return "\n".join([*lines, f"written: {output}", f"next: {following}"])
