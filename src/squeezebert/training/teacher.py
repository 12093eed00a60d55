"""A teacher's inner states: the model loaded, its hidden states kept on disk, queries, keys and values caught.

Serves `general.py`.
"""

from __future__ import annotations

import errno
import inspect
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from squeezebert.data.corpus import Corpus
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertModel
from squeezebert.model.configuration import TRANSLATED_TYPES, model_kind
from squeezebert.training.runs import first_line

# What encoders of transformers call the layers that make queries, keys and values; ours and BERT's come first
_QKV_NAMES = (
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("query_proj", "key_proj", "value_proj"),
    ("q", "k", "v"),
)


def load_teacher(name: str | Path, tokenizer: Any = None) -> Any:
    """Load an encoder from a folder or Hub id: BERT, ELECTRA and SqueezeBERT as our class, any other as transformers'.

    Of an encoder with a decoder, the encoder. With `tokenizer`, the student's, the teacher's has to have the same
    vocabulary. Raises `FolderError` when there is no such checkpoint, `OptionError` when its tokens are others.
    """
    try:
        if fits_ours(name):
            teacher = SqueezeBertModel.from_pretrained(str(name))
        else:
            teacher = transformers.AutoModel.from_pretrained(str(name))
        theirs = None if tokenizer is None else transformers.AutoTokenizer.from_pretrained(str(name)).get_vocab()
    except (OSError, ValueError) as error:
        raise FolderError(
            f"{name}: no teacher there. --teacher takes a folder with config.json, weights and tokenizer, or the id "
            f"of a model on the Hugging Face Hub, which has to be reachable ({first_line(error)})"
        ) from error
    if theirs is not None and theirs != tokenizer.get_vocab():
        raise OptionError(f"--teacher {name}: its vocabulary is not the student's, so it would read other words")
    if teacher.config.is_encoder_decoder:
        teacher = teacher.get_encoder()
    return teacher.eval()


def fits_ours(name: str | Path) -> bool:
    """Whether a checkpoint, a folder or a Hub id, is of an architecture that our classes have: BERT's or our own.

    Raises `OSError` when there is no such checkpoint.
    """
    kind = model_kind(transformers.PreTrainedConfig.get_config_dict(str(name))[0])
    return kind in (*TRANSLATED_TYPES, SqueezeBertConfig.model_type, SqueezeBertConfig.transformers_model_type)


def accepted(model: nn.Module) -> frozenset[str]:
    """Return the names of what a model's forward takes; no token types where there is but one."""
    types = getattr(getattr(model, "config", None), "type_vocab_size", None)
    return frozenset(inspect.signature(model.forward).parameters) - ({"token_type_ids"} if types == 1 else set())


class Relations:
    """The queries, keys and values that one layer of a model computes, caught by forward hooks while it runs."""

    def __init__(self, model: nn.Module, layer: int = -1) -> None:
        """Catch those of `layer`, from 0, or from the end below 0.

        Raises `OptionError` for a model whose layers for them are not found by name, and for a layer it has not.
        """
        found = _find_qkv(model)
        if not found:
            raise OptionError(
                f"--relation-weight: no layers named query, key and value in a {type(model).__name__}: set it to 0"
            )
        if not -len(found) <= layer < len(found):
            raise OptionError(f"--relation-layer {layer}: {type(model).__name__} has {len(found)} layers")
        self._caught: dict[int, Tensor] = {}
        self._group_major = bool(getattr(found[layer][0], "shared_groups", None))
        self._handles = [
            module.register_forward_hook(self._catch(place)) for place, module in enumerate(found[layer][1])
        ]

    def _catch(self, place: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._caught[place] = output

        return hook

    def take(self, batch: int) -> list[Tensor]:
        """Return what the last forward pass made of `batch` texts, as query, key and value (B, T, C); once."""
        caught, self._caught = self._caught, {}
        outputs = [caught[place] for place in range(3)]
        if self._group_major:  # (G, N, C / G)
            outputs = [output.transpose(0, 1).reshape(output.shape[1], -1) for output in outputs]
        return [output.reshape(batch, -1, output.shape[-1]) for output in outputs]

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()


def _find_qkv(model: nn.Module) -> list[tuple[nn.Module, list[nn.Module]]]:
    """Each layer's attention and its three modules, in the order of computation."""
    for names in _QKV_NAMES:
        found = []
        for module in model.modules():
            three = [getattr(module, name, None) for name in names]
            if all(isinstance(one, nn.Module) for one in three):
                found.append((module, [one for one in three if isinstance(one, nn.Module)]))
        if found:
            return found
    return []


def check_cache(corpus: Corpus, layers: int, width: int, gigabytes: float) -> None:
    """Raise `OptionError` when the states of a corpus, `layers` of `width` channels, take more than `gigabytes`."""
    size = corpus.tokens * layers * width * 2
    if size > gigabytes * 1e9:
        raise OptionError(
            f"--cache-teacher: the states of {corpus.tokens} tokens take {size / 1e9:.2g} GB, and "
            f"--cache-gigabytes is {gigabytes:g}"
        )


def _reserve(path: Path) -> None:
    """Take the disk that a sparse file will fill: a write to a mapped page that has none kills the process.

    Raises `OSError` when the disk is full, and leaves no file.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error
        # Some file systems cannot say beforehand


class StateCache:
    """A teacher's hidden states of every token of a corpus, float16 in a memory-mapped file, filled as they are made.

    A batch's states come from here when all its sequences are known. They are rounded to float16 when they are made,
    so that a run is the same whichever of the two it is. `save` marks what is known on disk, after the data: a kill
    costs only what came after the last save.
    """

    def __init__(self, folder: Path, corpus: Corpus, layers: int, width: int) -> None:
        """Open or begin the cache of `corpus` for `layers` layers of `width` channels."""
        self.corpus, self._marks = corpus, folder / "known.npy"
        data, shape = folder / "states.npy", (corpus.tokens, layers, width)
        if self._marks.exists():
            self._states = np.load(data, mmap_mode="r+")
            self._known = np.load(self._marks)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._states = np.lib.format.open_memmap(data, mode="w+", dtype=np.float16, shape=shape)
            _reserve(data)
            self._known = np.zeros(len(corpus), dtype=bool)
        self._spent = {"read": [0, 0.0], "made": [0, 0.0]}

    def states(self, sequences: np.ndarray, mask_BT: Tensor, make: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        """Return the states (B, T, C) of each layer, float32 and 0 where there is no text; `make` computes them."""
        began = time.monotonic()
        known = bool(self._known[sequences].all())
        places = [slice(self.corpus.offsets[one], self.corpus.offsets[one + 1]) for one in sequences]
        text = mask_BT.bool().cpu()
        if known:
            rows = torch.from_numpy(np.concatenate([self._states[place] for place in places]))
        else:
            made = torch.stack([state[text.to(state.device)].cpu() for state in make()], dim=1)  # (N, layers, C)
            rows = made.half()
            self._fill(sequences, places, rows.numpy())
        layers = []
        for layer in range(rows.shape[1]):
            padded = torch.zeros(*text.shape, rows.shape[2])
            padded[text] = rows[:, layer].float()
            layers.append(padded.to(mask_BT.device))
        spent = self._spent["read" if known else "made"]
        spent[0] += len(rows)
        spent[1] += time.monotonic() - began
        return layers

    def _fill(self, sequences: np.ndarray, places: Sequence[slice], rows: np.ndarray) -> None:
        start = 0
        for place in places:
            length = place.stop - place.start
            self._states[place] = rows[start : start + length]
            start += length
        self._known[sequences] = True

    def save(self) -> None:
        """Put on disk what is known, the data first."""
        self._states.flush()
        new = self._marks.with_suffix(".new")
        with new.open("wb") as stream:
            np.save(stream, self._known)
        new.replace(self._marks)

    def gain(self) -> str:
        """Say how fast states were made and read, and what that saves a token; empty before any was read."""
        made, read = self._rate("made"), self._rate("read")
        if not made or not read:
            return ""
        return (
            f"the teacher's states: {made:.0f} tokens a second computed, {read:.0f} read from the cache, which saves "
            f"{1e6 * (1 / made - 1 / read):.0f} s of a million tokens"
        )

    def _rate(self, way: str) -> float:
        tokens, seconds = self._spent[way]
        return tokens / seconds if seconds else 0.0
