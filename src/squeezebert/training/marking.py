"""Good sentences and an encoder in, a marker of wrong words with its dictionary out. Serves `train-marker`.

A marker labels each word of a sentence with what is wrong with it (`files.english.TAGS`). It learns from errors that
`data.corruption` puts into the sentences anew in each pass. A killed run goes on where it was when the same call is
made again.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from squeezebert.data.calibration import fit_temperature
from squeezebert.data.corpus import tokenizer_hash
from squeezebert.data.corruption import Corrupted, CorruptionOptions, Corruptor
from squeezebert.data.metrics import probabilities_of
from squeezebert.files.english import TAGS, is_word, units
from squeezebert.files.errors import FolderError, OptionError, TableError
from squeezebert.model import SqueezeBertForTokenClassification
from squeezebert.runtime.checking import FEWEST_UNITS, checked_spans, decide_tags, first_tokens
from squeezebert.runtime.dictionary import DICTIONARY, Dictionary
from squeezebert.training.checkpoint import EVALUATION, FORMAT
from squeezebert.training.checkpoint import RECORD as DESCRIPTION
from squeezebert.training.classifiers import longest
from squeezebert.training.options import MarkerOptions
from squeezebert.training.pretraining import MicroBatches
from squeezebert.training.runs import (
    PROGRESS_FOLDER,
    add_model,
    begin,
    check_output,
    dropout_of,
    first_line,
    latest_save,
    save_model,
)
from squeezebert.training.stepping import (
    Saves,
    StepTrainer,
    StopsOnTerm,
    check_devices,
    one_batch,
    replace_text,
    step_arguments,
    write_json,
)
from squeezebert.training.trainer import Progress, Report

RECORD = "marker.json"
LOG = "marker.jsonl"
IGNORED = -100
# Units of the longest sentence that is learned from
_MOST_UNITS = 60
# Every so many sentences one is held out, by a hash of its words
_HELD_OUT_SALT = b"held out"
_BETA = 0.5
# Least probability that something is wrong, tried for each tag
_GRID = np.round(np.arange(0.05, 0.96, 0.01), 2)


@dataclass(frozen=True)
class Sentences:
    """What a marker learns from, and is measured on."""

    train: list[str]
    """sentences to put errors into"""
    held_out: list[str]
    """others, which are not learned from"""
    counts: dict[str, int]
    """the words of the text with how often each occurs"""

    @property
    def digest(self) -> str:
        """A hash of what is learned from."""
        told = json.dumps([self.train, self.held_out, self.counts], ensure_ascii=True)
        return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True)
class MarkerResult:
    """What a run found when it ended."""

    checkpoint: Path
    """The folder with model, tokenizer, dictionary and record."""
    finished: bool
    """Whether it took all its steps, or was asked to end before."""
    steps: int
    """Optimiser steps that were taken, over resumes."""
    scores: dict[str, float]
    """Precision, recall and F0.5 of marked words on held-out sentences with errors; empty before the end."""


def choose_sentences(paragraphs: Iterable[str], options: MarkerOptions) -> Sentences:
    """Return an even sample of the sentences of a text, and the words of all of it.

    Sentences have 4 to 60 words and signs. Which are held out depends on their words alone, so that a sentence is
    never on both sides. Raises `TableError` for a text with too few.
    """
    counts: Counter[str] = Counter()
    sides: tuple[list[str], list[str]] = ([], [])
    seen = [0, 0]
    room = (options.sentences, options.held_out)
    chance = random.Random(options.seed)
    for text in paragraphs:
        for start, end in checked_spans(text):
            sentence = text[start:end]
            words = units(sentence)
            names = [sentence[a:b].lower() for a, b in words if is_word(sentence[a:b])]
            drawn = hashlib.blake2b(" ".join(names).encode(), digest_size=8, salt=_HELD_OUT_SALT).digest()
            side = int(int.from_bytes(drawn, "little") < options.held_out_share * 2**64)
            if not side:
                counts.update(name.replace("\u2019", "'") for name in names)
            if not FEWEST_UNITS <= len(words) <= _MOST_UNITS:
                continue
            seen[side] += 1
            if len(sides[side]) < room[side]:
                sides[side].append(sentence)
            else:  # reservoir sampling: each sentence so far is kept with the same probability
                place = chance.randrange(seen[side])
                if place < room[side]:
                    sides[side][place] = sentence
    if len(sides[0]) < options.batch_size or not sides[1]:
        raise TableError(
            f"--text: {len(sides[0])} sentences of {FEWEST_UNITS} to {_MOST_UNITS} words and signs to learn from and "
            f"{len(sides[1])} to measure on, too few for batches of {options.batch_size}: give more text"
        )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: options.dictionary]
    return Sentences(*sides, {word: count for word, count in ordered if count >= options.least_count})


def load_marker(base: str | Path) -> Any:
    """Load an encoder, whatever its head, as a model that labels tokens with `TAGS`.

    Raises `FolderError` when there is none, `OptionError` for another architecture.
    """
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # a head that starts from nothing is what was asked for
    try:
        return SqueezeBertForTokenClassification.from_pretrained(
            str(base),
            num_labels=len(TAGS),
            id2label=dict(enumerate(TAGS)),
            label2id={tag: number for number, tag in enumerate(TAGS)},
            ignore_mismatched_sizes=True,
        )
    except OSError as error:
        raise FolderError(f"--base {base}: no checkpoint there ({first_line(error)})") from error
    except ValueError as error:
        raise OptionError(f"--base {base}: {error}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)


def train_marker(
    model: Any,
    tokenizer: Any,
    sentences: Sentences,
    output: Path,
    options: MarkerOptions,
    corruption: CorruptionOptions,
    *,
    command: str = "",
    report: Report = lambda line: None,
) -> MarkerResult:
    """Train `model`, of `load_marker`, on sentences with errors, and write it to `output`.

    The model is trained in place. `output` gets its checkpoint and tokenizer, the dictionary, held-out sentences with
    errors, the log, and last of all `marker.json`. SIGTERM ends the run behind the step it is in, saved.

    Raises `FolderError` for an output that holds something else, `OptionError` for options and model that do not fit,
    `DivergedError` when training diverged.
    """
    check_devices()
    max_length = min(options.max_length, longest(model))
    work = output / PROGRESS_FOLDER
    fingerprint = _fingerprint(model, tokenizer, sentences, options, corruption)
    check_output(output, fingerprint, RECORD, overwrites=False)
    transformers.set_seed(options.seed)
    corruptor = Corruptor(corruption, sentences.counts)
    batches = MarkerBatches(sentences.train, corruptor, tokenizer, options.batch_size, max_length, options.seed)
    held_out = [corruptor.corrupt(text, ("held out", i)) for i, text in enumerate(sentences.held_out)]
    report(
        f"{len(sentences.train)} sentences to put errors into, {len(held_out)} to measure on with "
        f"{sum(tag != TAGS[0] for one in held_out for tag in one.tags)} errors; {len(sentences.counts)} words in the "
        "dictionary"
    )
    begin(work, fingerprint)
    save = latest_save(work)
    with dropout_of(model, options.dropout):
        trainer = MarkerTrainer(
            model=model,
            args=step_arguments(
                options, work, options.steps, weight_decay=options.weight_decay, bf16=options.precision == "bf16"
            ),
            train_dataset=MicroBatches(cast(Any, batches), options.steps),
            data_collator=one_batch,
            callbacks=[Progress(report), StopsOnTerm(report)],
            held_out=TaggedSentences(held_out, tokenizer, max_length),
            log=output / LOG,
            report=report,
        )
        saves = Saves(trainer, options.save_every, (), options.steps, output, tokenizer)
        steps = trainer.carry_out(saves, save)
    if steps < options.steps:
        return MarkerResult(output, False, steps, {})
    trained = trainer.accelerator.unwrap_model(trainer.model)
    scores = _write(output, trained, tokenizer, sentences, held_out, max_length, options, corruption, command, trainer)
    shutil.rmtree(work)
    return MarkerResult(output, True, steps, scores)


class TaggedSentences:
    """Sentences with errors as batches of token ids with the tag of each word at its first token."""

    def __init__(self, rows: Sequence[Corrupted], tokenizer: Any, max_length: int) -> None:
        self.rows, self.tokenizer, self.max_length = rows, tokenizer, max_length

    def batch(self, rows: Sequence[Corrupted]) -> dict[str, np.ndarray]:
        """Return input_ids, attention_mask, token_type_ids and labels, (B, T) each; -100 where nothing is asked."""
        encoded = self.tokenizer(
            [row.text for row in rows],
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
            split_special_tokens=True,
        )
        ids = np.array(encoded["input_ids"], dtype=np.int64)
        labels = np.full_like(ids, IGNORED)
        for place, row in enumerate(rows):
            inside = [t for t, side in enumerate(encoded.sequence_ids(place)) if side == 0]
            offsets = [encoded["offset_mapping"][place][t] for t in inside]
            for unit, token in first_tokens(units(row.text), offsets):
                labels[place, inside[token]] = TAGS.index(row.tags[unit])
        return {
            "input_ids": ids,
            "attention_mask": np.array(encoded["attention_mask"], dtype=np.int64),
            "token_type_ids": np.array(encoded["token_type_ids"], dtype=np.int64),
            "labels": labels,
        }

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Return all sentences in batches of like length."""
        ordered = sorted(self.rows, key=lambda row: len(row.text))
        for start in range(0, len(ordered), size):
            yield self.batch(ordered[start : start + size])


class MarkerBatches:
    """An endless, seeded row of batches of sentences of like length; each pass puts other errors in.

    Batch k of a seed is always the same, so that a run that goes on sees what it would have seen.
    """

    _STRETCH = 32  # batches whose sentences are sorted by length together

    def __init__(
        self, sentences: list[str], corruptor: Corruptor, tokenizer: Any, size: int, max_length: int, seed: int
    ) -> None:
        self.sentences, self.corruptor, self.size, self.seed = sentences, corruptor, size, seed
        self.tagged = TaggedSentences((), tokenizer, max_length)
        self.of_pass = len(sentences) // size
        self._pass: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, batch: int) -> dict[str, np.ndarray]:
        """Return batch `batch`, from 0, in any pass."""
        number, place = divmod(batch, self.of_pass)
        if self._pass[0] != number:
            self._pass = (number, self._order(np.random.default_rng((self.seed, number))))
        rows = self._pass[1][place]
        return self.tagged.batch(
            [self.corruptor.corrupt(self.sentences[i], (self.seed, number, int(i))) for i in rows]
        )

    def _order(self, generator: np.random.Generator) -> np.ndarray:
        order = generator.permutation(len(self.sentences))[: self.of_pass * self.size]
        lengths = np.array([len(self.sentences[i]) for i in order])
        for start in range(0, len(order), self._STRETCH * self.size):
            stretch = slice(start, start + self._STRETCH * self.size)
            piece = order[stretch][np.argsort(lengths[stretch], kind="stable")].reshape(-1, self.size)
            order[stretch] = piece[generator.permutation(len(piece))].ravel()
        return order.reshape(-1, self.size)


class MarkerTrainer(StepTrainer):
    """A Trainer of tags of words."""

    def __init__(self, *args: Any, held_out: TaggedSentences, **kwargs: Any) -> None:
        self.held_out = held_out
        super().__init__(*args, **kwargs)

    def loss_of(self, model: nn.Module, inputs: dict[str, Any], asked: Tensor | int | None) -> tuple[Tensor, Any]:
        """Return the mean cross-entropy of a batch's words and signs, and the outputs."""
        outputs = model(**inputs)
        return outputs.loss, outputs

    def measure(self) -> dict[str, Any]:
        """Return the loss on held-out sentences, and how well words are marked from a probability of 0.5 on."""
        logits, targets = self.answers()
        shifted = logits - logits.max(1, keepdims=True)
        log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        given = decide_tags(np.exp(log), None)
        return {"loss": float(-log[np.arange(len(targets)), targets].mean()), **word_scores(given, targets)}

    def told(self, row: dict[str, Any]) -> str:
        """Say how well words are marked."""
        return (
            f"held-out loss {row['held_out_loss']:.4f}; of marked words {row['held_out_precision']:.1%} are wrong, "
            f"of wrong words {row['held_out_recall']:.1%} are marked"
        )

    @torch.no_grad()
    def answers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return logits (U, L) and tags (U,) of the words and signs of all held-out sentences."""
        model = self.accelerator.unwrap_model(self.model).eval()
        logits, targets = [], []
        for batch in self.held_out.batches(64):
            inputs = {name: torch.from_numpy(array).to(self.args.device) for name, array in batch.items()}
            labels = inputs.pop("labels")
            with self.compute_loss_context_manager():
                found = model(**inputs).logits
            asked = labels != IGNORED
            logits.append(found[asked].double().cpu().numpy())
            targets.append(labels[asked].cpu().numpy())
        model.train()
        return np.concatenate(logits), np.concatenate(targets)


def word_scores(given: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return precision, recall and F0.5 of words that are marked, with whatever tag, from tags (U,) and right ones."""
    marked, wrong = given != 0, targets != 0
    both = int((marked & wrong).sum())
    precision, recall = both / max(int(marked.sum()), 1), both / max(int(wrong.sum()), 1)
    return {"precision": precision, "recall": recall, "f05": f_score(precision, recall)}


def f_score(precision: float, recall: float, beta: float = _BETA) -> float:
    """Return the F score that counts recall beta times as much as precision; 0 where both are."""
    weighted = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / weighted if weighted else 0.0


def choose_thresholds(probabilities: np.ndarray, targets: np.ndarray) -> tuple[float, ...]:
    """Return for each tag the probability that something is wrong from which on it is given, for the best F0.5.

    From probabilities (U, L) and right tags (U,); tag after tag, twice, with the others as they are.
    """
    likeliest = probabilities[:, 1:].argmax(1) + 1
    wrong_by = 1.0 - probabilities[:, 0]
    wrong = targets != 0
    total = int(wrong.sum())
    thresholds = np.full(probabilities.shape[1], 0.5)
    for _ in range(2):
        for tag in range(1, len(thresholds)):
            others = (likeliest != tag) & (wrong_by >= thresholds[likeliest])
            marked, right = int(others.sum()), int((others & wrong).sum())
            own, own_wrong = wrong_by[likeliest == tag], wrong[likeliest == tag]
            if not len(own):
                continue
            best = (-1.0, 0.5)
            for least in _GRID:
                chosen = own >= least
                hits = right + int((chosen & own_wrong).sum())
                score = f_score(hits / max(marked + int(chosen.sum()), 1), hits / max(total, 1))
                if score > best[0] + 1e-12:
                    best = (score, float(least))
            thresholds[tag] = best[1]
    return tuple(round(float(one), 4) for one in thresholds)


def _write(
    output: Path,
    model: Any,
    tokenizer: Any,
    sentences: Sentences,
    held_out: list[Corrupted],
    max_length: int,
    options: MarkerOptions,
    corruption: CorruptionOptions,
    command: str,
    trainer: MarkerTrainer,
) -> dict[str, float]:
    """Write the finished model, its record last; return how it does on held-out sentences.

    Temperature and thresholds are chosen on all of them; the scores are those of thresholds chosen on the other half.
    """
    logits, targets = trainer.answers()
    temperature = fit_temperature(logits, targets, "single_label")
    probabilities = probabilities_of(logits, "single_label", temperature)
    halves = np.arange(len(targets)) % 2 == 0
    given = np.zeros(len(targets), dtype=np.int64)
    for half in (halves, ~halves):
        given[half] = decide_tags(probabilities[half], choose_thresholds(probabilities[~half], targets[~half]))
    scores = word_scores(given, targets)
    thresholds = choose_thresholds(probabilities, targets)
    save_model(output, model, tokenizer)
    Dictionary(sentences.counts).save(output / DICTIONARY)
    rows = ({"text": row.text, "text_pair": None, "label": list(row.tags)} for row in held_out)
    replace_text(output / EVALUATION, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    described = {
        "format": FORMAT,
        "task": "token-labels",
        "labels": list(TAGS),
        "max_length": max_length,
        "text_columns": {"text": "text", "text_pair": None},
        "calibration": {"temperature": temperature},
        "thresholds": list(thresholds),
    }
    replace_text(output / DESCRIPTION, json.dumps(described, indent=2) + "\n")
    done = {
        "command": command,
        "options": asdict(options),
        "corruption": asdict(corruption),
        "sentences": {"train": len(sentences.train), "held_out": len(sentences.held_out)},
        "dictionary": len(sentences.counts),
        "scores": scores,
        "log": trainer.rows[-1],
        "versions": {name: version(name) for name in ("squeezebert", "torch", "transformers")},
    }
    write_json(output / RECORD, done)  # last: a folder that has it is complete
    return scores


def _fingerprint(
    model: Any, tokenizer: Any, sentences: Sentences, options: MarkerOptions, corruption: CorruptionOptions
) -> str:
    told = [asdict(options), asdict(corruption), sentences.digest, tokenizer_hash(tokenizer)]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    add_model(digest, model)
    return digest.hexdigest()
