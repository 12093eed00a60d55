"""A checkpoint folder in, a verified exported folder out. What the command line and the workflows call."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

import squeezebert
from squeezebert.export.checkpoint import (
    EVALUATION,
    Checkpoint,
    EvaluationRow,
    check_rows,
    quiet_transformers,
    read_checkpoint,
    read_rows,
)
from squeezebert.export.graph import FORM, write_graph
from squeezebert.export.int8 import FEW_TEXTS, Int8File, check_calibration, feed_of
from squeezebert.export.options import ExportOptions
from squeezebert.export.packing import block_of
from squeezebert.export.places import HiddenWords, LabelledWords, masked_text
from squeezebert.export.ranges import Feed
from squeezebert.export.samples import KEPT, TEXTS
from squeezebert.export.smoothing import BlockScales, find_scales
from squeezebert.export.verify import (
    BUILT_IN_TEXT,
    EVALUATION_ROWS,
    Evidence,
    verify_fp32,
    verify_int8,
)
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError, OptionError, SqueezeBertError
from squeezebert.files.manifest import (
    MANIFEST,
    Manifest,
    ModelFile,
    Precision,
    Sample,
    Verification,
    describe_file,
    write_manifest,
)
from squeezebert.runtime.completion import PIECES_A_WORD, Completer, pieces_a_word
from squeezebert.runtime.dictionary import DICTIONARY, Dictionary
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.runtime.session import open_session
from squeezebert.runtime.tokens import Text

Array = NDArray[np.float64]

# The names that transformers.js looks for
MODEL_PATHS: Mapping[Precision, str] = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
# Fused, it is slower on CPUs than the Add and LayerNormalization it replaces (onnxruntime 1.32); check each release
DISABLED_OPTIMIZERS = ("SkipLayerNormFusion",)
# With what sentence-transformers loads an encoder. Folders that are out there name this class: it must not move
_SENTENCE_MODULES: list[dict[str, Any]] = [
    {"idx": 0, "name": "0", "path": "", "type": "squeezebert.workflows.sentences.SentenceEncoder"},
]
_SENTENCE_CONFIG: dict[str, Any] = {
    "model_type": "SentenceTransformer",
    "prompts": {},
    "default_prompt_name": None,
    "similarity_fn_name": "cosine",
}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# All that an export writes: what else lies in its folder is somebody's
_WRITTEN = frozenset(
    {
        *(MANIFEST, "config.json", "modules.json", "config_sentence_transformers.json", DICTIONARY),
        *(*_TOKENIZER_FILES, *MODEL_PATHS.values()),
    }
)
# The layout of the manifest that knows a task; the others are of the first
_FORMATS = {"embedding": 2, "masked-lm": 3, "token-labels": 3}
# Pieces whose probabilities a sample of a masked-lm keeps
_SAMPLE_WORDS = 8
_PACKAGES = ("torch", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and found."""

    output: Path
    """the exported folder"""
    manifest: Manifest
    """as written there"""
    texts: tuple[Text, ...]
    """the texts that were compared"""
    probabilities: Mapping[str, Array]
    """"torch", "fp32" and "int8" -> answers (N, L) to `texts`; the written files repeat theirs exactly. Of a masked-lm
    they are those of `masked.HiddenWords`"""
    warnings: tuple[str, ...]
    """what the rows could not decide, and what was forced"""
    refused: str | None
    """why int8 was not written, or only by force"""


class ExportRefused(SqueezeBertError):
    """A model that answers differently from its checkpoint; `report` is None when nothing was written."""

    def __init__(self, message: str, report: ExportReport | None = None):
        super().__init__(message)
        self.report = report


def export_checkpoint(
    checkpoint: Path,
    output: Path,
    options: ExportOptions | None = None,
    examples: Sequence[Mapping[str, Any]] | None = None,
    progress: Callable[[str], None] | None = None,
    calibration: Sequence[Text] | None = None,
) -> ExportReport:
    """Export a classifier, a marker of words, an encoder or a masked language model, verified before it is written.

    The files are for ONNX Runtime; classifiers and encoders are read by transformers.js too.

    The files are compared with torch on `examples` ({"text", "text_pair", "label"}), else on the
    checkpoint's evaluation.jsonl; without either on built-in text, and then no accuracy is claimed. Static ranges are
    found on `calibration`: texts like those to be read, pairs for a model of pairs; of many, 256 evenly spaced.
    `progress` is told each step. `output` appears complete or not at all; a folder it replaces stays until then.

    Raises `FolderError` for a checkpoint that cannot be exported and an `output` that may not be replaced,
    `TableError` for unusable rows, `OptionError` for static ranges without calibration text, and `ExportRefused` when
    a file's answers are not good enough: with precision "both", the fp32 folder has been written by then.
    """
    checkpoint, output, options = Path(checkpoint), Path(output), options or ExportOptions()
    tell = progress or (lambda step: None)
    _check_output(output, options)
    tell("reading the checkpoint")
    source = read_checkpoint(checkpoint)
    if source.task == "masked-lm" and options.precision != "fp32" and options.embeddings == "int4":
        raise OptionError(
            "embeddings = 'int4': the output product of a masked language model reads the same table, which it cannot "
            "in 4 bits: give int8"
        )
    if options.precision != "fp32" and options.embeddings == "int4":
        block_of(cast(Any, source.model).get_input_embeddings().embedding_dim)
    evidence = _gather_evidence(source, examples)
    calibration = check_calibration(calibration, source, options)
    with _torch_threads(options.threads), new_folder(output) as folder:
        report = _build(folder, source, evidence, options, calibration, tell)
        _check_output(output, options)
    report = replace(report, output=output)
    if report.refused and "int8" not in report.manifest.files:
        raise ExportRefused(
            f"int8 was refused: {report.refused}. Written: {output} with fp32 only. "
            f"To have int8 all the same, export with force; to be surer, give more evaluation rows; to lose less, "
            f"{_ways_to_lose_less(options)}",
            report,
        )
    return report


def _ways_to_lose_less(options: ExportOptions) -> str:
    ways = ["give the words 8 bits"] if options.embeddings == "int4" else []
    ways += [] if options.spare_blocks else ["let blocks stay fp32 (spare_blocks)"]
    return ", ".join([*ways, "finetune longer or with distillation"])


def _check_output(output: Path, options: ExportOptions) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise FolderError(f"{output}: exists and is not an exported folder; it is left alone: choose another name")
    if not options.overwrite:
        raise FolderError(f"{output}: an exported folder is there already; choose another name, or overwrite it")
    others = [path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir()]
    others = sorted(name for name in others if name not in _WRITTEN and not Path(name).name.startswith("."))
    if others:
        raise FolderError(
            f"{output}: holds {', '.join(others[:3])} beside an exported model, which would be lost: move them, or "
            "choose another name"
        )


def _gather_evidence(source: Checkpoint, examples: Sequence[Mapping[str, Any]] | None) -> Evidence:
    rows: Sequence[EvaluationRow] = ()
    if examples is not None:
        rows = check_rows(examples, source)
    elif (source.folder / EVALUATION).is_file():
        rows = read_rows(source.folder / EVALUATION, source)
    origin = EVALUATION_ROWS if rows else BUILT_IN_TEXT
    if not rows:
        rows = _built_in_rows(source)
    kinds: dict[str, type[Evidence]] = {"masked-lm": HiddenWords, "token-labels": LabelledWords}
    return kinds.get(source.task, Evidence)(source.task, source.labels, source.thresholds, rows, origin)


def _built_in_rows(source: Checkpoint) -> list[EvaluationRow]:
    others = (*TEXTS[1:], TEXTS[0])
    return [EvaluationRow(a, b if source.pair else None, None) for a, b in zip(TEXTS, others, strict=True)]


def _build(
    folder: Path,
    source: Checkpoint,
    evidence: Evidence,
    options: ExportOptions,
    calibration: Sequence[Text],
    tell: Callable[[str], None],
) -> ExportReport:
    """Fill `folder` with everything that passed."""
    tell("writing the fp32 model")
    _write_tokenizer_and_config(folder, source)
    _write_graph(folder / MODEL_PATHS["fp32"], source, options)
    manifest = _first_manifest(folder, source)
    write_manifest(folder, manifest)

    tell(f"comparing fp32 with torch on {len(evidence.rows)} {evidence.source}")
    texts = evidence.texts
    predictor = load(folder, options.threads, "fp32")
    reference = evidence.reference(source, predictor)
    answers: dict[str, Array] = {"torch": reference, "fp32": evidence.answers(predictor)}
    verification: dict[str, Verification] = {"fp32": verify_fp32(evidence, reference, answers["fp32"])}
    if verification["fp32"].refused:
        raise ExportRefused(
            f"{source.folder}: the exported model does not repeat the checkpoint: {verification['fp32'].refused}. "
            "Nothing was written. If the checkpoint works in torch, this is our fault: please report it"
        )
    if source.task == "masked-lm":
        texts_read = [row.text for row in evidence.rows]
        manifest = replace(manifest, notes={**manifest.notes, PIECES_A_WORD: pieces_a_word(predictor, texts_read)})
    kept = _samples(source, predictor)
    expected: dict[str, list[Array]] = {"fp32": _answer_samples(predictor, kept)}
    if options.precision != "fp32":
        tell("quantising to int8")
        feeds = [feed_of(predictor, text) for text in calibration]
        del predictor
        smooth = folder / "onnx" / "smooth.onnx"
        _write_graph(smooth, source, options, find_scales(source.model, _calibration(source)))
        int8 = Int8File(smooth, folder / MODEL_PATHS["int8"], options, feeds)
        blocks: int = source.model.config.num_hidden_layers
        spared: list[int] = []
        order: list[int] = []
        while True:
            int8.write(spared)
            described = _describe_model(folder, "int8", int8.describe(spared), batch_invariant=int8.static)
            manifest = replace(manifest, files={**manifest.files, "int8": described})
            write_manifest(folder, manifest)
            tell(f"comparing int8 with fp32 on {len(evidence.rows)} {evidence.source}")
            predictor = load(folder, options.threads, "int8")
            answers["int8"] = evidence.answers(predictor)
            verification["int8"] = verify_int8(evidence, reference, answers["fp32"], answers["int8"], options)
            if not verification["int8"].refused or len(spared) >= min(options.spare_blocks, blocks):
                break
            if not order:
                tell("int8 would be refused: looking for the blocks that err most")
                some = feeds or [feed_of(predictor, row.as_text) for row in _built_in_rows(source)]
                order = _blocks_by_error(int8, blocks, some)
            spared.append(order[len(spared)])
            tell(f"block {spared[-1]} stays fp32")
        smooth.unlink()
        expected["int8"] = _answer_samples(predictor, kept)
    del predictor

    files, refused = dict(manifest.files), None
    warnings: list[str] = []
    if "int8" in verification:
        refused = verification["int8"].refused
        if refused and spared:
            refused += f", although {len(spared)} of {blocks} blocks stayed fp32"
        warnings += verification["int8"].warnings
        if options.activations == "static" and len(calibration) < FEW_TEXTS:
            warnings.append(
                f"ranges were found on {len(calibration)} texts alone: give a few hundred like those to be read"
            )
        finite = all(np.isfinite(found).all() for found in (answers["int8"], *expected["int8"]))
        if refused and options.force and finite:
            verification["int8"] = replace(verification["int8"], forced=True)
            warnings.append(f"int8 was refused and written by force: {refused}")
        elif refused:
            if options.precision == "int8":
                raise ExportRefused(
                    f"int8 was refused: {refused}. Nothing was written. Export precision fp32, or int8 with force"
                )
            del files["int8"]
            (folder / MODEL_PATHS["int8"]).unlink()
    if options.precision == "int8":
        del files["fp32"]
        (folder / MODEL_PATHS["fp32"]).unlink()
    samples = tuple(
        replace(sample, expected={precision: tuple(expected[precision][i].tolist()) for precision in files})
        for i, sample in enumerate(kept)
    )
    manifest = replace(manifest, files=files, verification=verification, samples=samples)
    write_manifest(folder, manifest)
    tell("done")
    return ExportReport(folder, manifest, tuple(texts), answers, tuple(warnings), refused)


def _write_graph(
    path: Path, source: Checkpoint, options: ExportOptions, scales: Sequence[BlockScales] | None = None
) -> None:
    write_graph(source.model, path, options.opset, scales, temperature=source.temperature, pooling=source.pooling)


def _blocks_by_error(int8: Int8File, blocks: int, feeds: Sequence[Feed]) -> list[int]:
    """Return the blocks, first the one that as fp32 brings the outputs nearest to those of the fp32 graph.

    On calibration or built-in text: the rows that the file is verified on have no part in choosing.
    """

    def outputs(path: Path) -> Array:
        session = open_session(path, int8.options.threads, DISABLED_OPTIMIZERS)
        return np.concatenate([session.run(None, dict(feed))[0].reshape(1, -1) for feed in feeds], axis=1)

    wanted, errors = outputs(int8.smooth), []
    for block in range(blocks):
        int8.write([block])
        errors.append(float(np.square(outputs(int8.target) - wanted).mean()))
    return sorted(range(blocks), key=lambda block: errors[block])


def _write_tokenizer_and_config(folder: Path, source: Checkpoint) -> None:
    with quiet_transformers():
        source.tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        if path.name not in _TOKENIZER_FILES:
            path.unlink()
    if source.task == "token-labels" and (source.folder / DICTIONARY).is_file():
        Dictionary.open(source.folder / DICTIONARY)  # a damaged one is said now
        shutil.copyfile(source.folder / DICTIONARY, folder / DICTIONARY)
    written: dict[str, Any] = {"config.json": source.config()}
    if source.task == "embedding":
        written |= {"modules.json": _SENTENCE_MODULES, "config_sentence_transformers.json": _SENTENCE_CONFIG}
    for name, content in written.items():
        text = json.dumps(content, indent=2, sort_keys=True)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _first_manifest(folder: Path, source: Checkpoint) -> Manifest:
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return Manifest(
        task=source.task,
        labels=source.labels,
        max_length=source.max_length,
        pair=source.pair,
        token_types=source.token_types,
        temperature=source.temperature,
        thresholds=source.thresholds,
        files={"fp32": _describe_model(folder, "fp32")},
        tokenizer=describe_file(folder, "tokenizer.json"),
        dictionary=describe_file(folder, DICTIONARY) if (folder / DICTIONARY).is_file() else None,
        versions={"squeezebert": squeezebert.__version__, **versions},
        verification={},
        samples=(),
        calibrated_logits=True,
        source=source.folder.resolve().name,
        format=_FORMATS.get(source.task, 1),
        dimension=source.outputs if source.task in ("embedding", "masked-lm") else None,
    )


def _describe_model(
    folder: Path, precision: Precision, quantisation: str = "none", batch_invariant: bool = True
) -> ModelFile:
    file = describe_file(folder, MODEL_PATHS[precision])
    return ModelFile(
        path=file.path,
        bytes=file.bytes,
        sha256=file.sha256,
        quantisation=quantisation,
        form=FORM,
        disabled_optimizers=DISABLED_OPTIMIZERS,
        batch_invariant=batch_invariant,
    )


def _calibration(source: Checkpoint) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the built-in texts as token ids and types, (1, T) each. Evaluation rows have no part in the model."""
    for row in _built_in_rows(source):
        encoded = source.tokenizer(row.text, row.text_pair, truncation=True, max_length=source.max_length)
        ids = torch.tensor([encoded["input_ids"]])
        yield ids, torch.tensor([encoded["token_type_ids"]]) if source.token_types else torch.zeros_like(ids)


def _samples(source: Checkpoint, predictor: Predictor) -> list[Sample]:
    """Built-in texts; for a masked-lm each with a word hidden, and the pieces that are likeliest there in fp32."""
    step = len(TEXTS) // KEPT
    if source.task != "masked-lm":
        return [Sample(row.text, row.text_pair, {}) for row in _built_in_rows(source)[::step]]
    every = range(source.outputs)
    texts = [masked_text(text) for text in TEXTS[::step]]
    completer = Completer(predictor)
    best = [np.argsort(-completer.probabilities(text, every), kind="stable")[:_SAMPLE_WORDS] for text in texts]
    return [Sample(text, None, {}, tuple(map(int, words))) for text, words in zip(texts, best, strict=True)]


def _answer_samples(predictor: Any, samples: Sequence[Sample]) -> list[Array]:
    """Answer the built-in texts one at a time, as `Predictor.self_check` does."""
    return [predictor.answer_sample(sample) for sample in samples]


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch use `threads` cores meanwhile."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
