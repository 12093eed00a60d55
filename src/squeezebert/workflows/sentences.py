"""An exported encoder as a module of sentence-transformers, with the vectors of `Predictor.encode`.

`SentenceTransformer(modules=[SentenceEncoder(folder)])` reads nothing that could be run. By a folder's name alone
sentence-transformers finds this class in `modules.json`, and wants to be told that the folder may name classes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from sentence_transformers.base.modules import InputModule
from sentence_transformers.util import load_dir_path

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.runtime.predictor import LIMIT, load

# What sentence-transformers writes itself when it saves a model
_OF_THE_LIBRARY = ("modules.json", "config_sentence_transformers.json", "README.md")


class SentenceEncoder(InputModule):
    """The only module of a `SentenceTransformer`: texts in, vectors of length 1 out, computed by ONNX Runtime."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        threads: int | None = None,
        precision: str | None = None,
    ) -> None:
        """Open an exported encoder, with `threads` and `precision` as in `squeezebert.load`.

        Raises `FolderError` for a folder that cannot be loaded, `OptionError` for a model that does not embed.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.predictor = load(folder, threads, precision)
        if self.predictor.task != "embedding":
            raise OptionError(
                f"{folder}: sentence-transformers needs an encoder, and this is a model of {self.predictor.task}"
            )

    @property
    def max_seq_length(self) -> int:
        """Longest input in tokens, special ones included; a longer text is cut. It can be set lower."""
        return self.predictor.tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, length: int) -> None:
        self.predictor.shorten(length)

    def get_embedding_dimension(self) -> int:
        """Numbers of a vector."""
        return cast(int, self.predictor.manifest.dimension)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Hand texts on as they are: the predictor tokenises, pads and batches them."""
        return {"texts": [f"{prompt}{text}" if prompt else text for text in inputs]}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `sentence_embedding` (B, C). Raises `TextError` for what is no text."""
        features["sentence_embedding"] = torch.from_numpy(self.predictor.encode(features["texts"]))
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Copy the exported folder into another, with the longest input as it was set.

        Raises `FolderError` where a file cannot be written.
        """
        target, source = Path(output_path), self.predictor.folder
        if target.resolve() == source.resolve():
            return
        try:
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_OF_THE_LIBRARY))
            told = json.dumps({"max_seq_length": self.max_seq_length})
            (target / LIMIT).write_text(told + "\n", encoding="utf-8")
        except OSError as error:
            raise FolderError(f"{target}: cannot be written ({error})") from error

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> SentenceEncoder:
        """Open a folder, or one of the Hub, as sentence-transformers does.

        `model_kwargs` may have `threads` and `precision`. Raises `OptionError` for others, and as `__init__` does.
        """
        options = dict(model_kwargs or {})
        unknown = sorted(set(options) - {"threads", "precision"})
        if unknown:
            raise OptionError(f"model_kwargs: {unknown[0]} is neither threads nor precision")
        folder = load_dir_path(
            model_name_or_path,
            subfolder,
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        if folder is None:
            raise FolderError(f"{model_name_or_path}: no such folder, and no model of the Hub")
        return cls(folder, **options)
