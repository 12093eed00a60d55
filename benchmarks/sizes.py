"""Megabytes of the files that `export` writes: SqueezeBERT and squeezed MiniLM-L6, each way to keep the word table.

python benchmarks/sizes.py --data DIR [--output FILE]

Random weights: a file's size does not depend on them. Vocabularies are pruned to SST-2's training texts; or all pieces
stay, with a third of the channels. What each way does to accuracy is measured on trained models, by
export_accuracy.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from records import command_of
from squeeze import BASE, RESULTS
from squeeze_controls import SHAPES
from squeeze_latency import config
from transformers import AutoTokenizer
from transformers.utils import logging

from squeezebert.benchmark.baselines import bert_base_config
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from squeezebert.workflows.options import PruneOptions
from squeezebert.workflows.prune import prune

MODELS = {
    "BERT-base": bert_base_config,
    "SqueezeBERT": SqueezeBertConfig,
    "MiniLM-L6": lambda: config({}),
    "MiniLM-L6, groups 4": lambda: config(SHAPES["groups 4"]),
    "MiniLM-L6, low rank": lambda: config(SHAPES["low rank"]),
}


def measure(folder: Path, made: Any, texts: Path) -> dict[str, Any]:
    """Sizes of one model's files, by vocabulary and by the bits of the word table."""
    torch.manual_seed(0)
    SqueezeBertForSequenceClassification(made).save_pretrained(folder / "whole")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder / "whole")
    narrow = {"least": 0, "word_rank": made.hidden_size // 3}
    for name, more in {"pruned": {}, "narrow": narrow}.items():
        pieces = PruneOptions(str(folder / "whole"), [str(texts)], str(folder / name), column="sentence", **more)
        prune(pieces, "prune", lambda line: None)
    found: dict[str, Any] = {}
    for name in ("whole", "pruned", "narrow"):
        sizes_of = json.loads((folder / name / "config.json").read_text())
        vocabulary, channels = sizes_of["vocab_size"], sizes_of.get("word_rank") or made.hidden_size
        sizes: dict[str, float] = {}
        for embeddings in ("int8", "int4"):
            options = ExportOptions(embeddings=embeddings, force=True, overwrite=True, threads=1)
            files = export_checkpoint(folder / name, folder / "exported", options).manifest.files
            sizes |= {f"{precision}": file.bytes / 1e6 for precision, file in files.items() if precision == "fp32"}
            sizes[f"words in {embeddings}"] = files["int8"].bytes / 1e6
        found[name] = {"pieces": vocabulary, "channels": channels, "megabytes": sizes}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=RESULTS / "sizes.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    models = {}
    for name, make in MODELS.items():
        with tempfile.TemporaryDirectory() as place:
            models[name] = measure(Path(place), make(), options.data / "glue" / "SST-2" / "train.tsv")
        print(name, models[name], flush=True)
    record = {
        "command": command_of("sizes", {"DATA": options.data}),
        "machine": describe_machine(),
        "versions": package_versions(),
        "models": models,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
