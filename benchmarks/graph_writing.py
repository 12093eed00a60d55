"""Seconds to write a classifier as an fp32 ONNX file: our graph by its writer, next to `torch.onnx.export`.

python benchmarks/graph_writing.py [--runs 3] [--output benchmarks/results/graph_writing.json]

Dense networks of random weights and equal sizes, ours and transformers' BERT, one thread, in turns in one run; both
files are read and answer before they are timed. Imports are not part of the times.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from records import begun
from transformers import BertConfig, BertForSequenceClassification

from squeezebert.benchmark.baselines import export_by_torch
from squeezebert.benchmark.latency import made_up_inputs
from squeezebert.export.graph import write_graph
from squeezebert.export.options import ExportOptions
from squeezebert.files.stopwatch import interleave
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from squeezebert.model.configuration import GROUP_FIELDS

RESULTS = Path(__file__).parent / "results" / "graph_writing.json"
SIZES: dict[str, dict[str, int]] = {
    "MiniLM-L6": {
        "num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536,
        "vocab_size": 30522,
    },
    "BERT-base": {
        "num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
        "vocab_size": 30522,
    },
}  # fmt: skip


def ways(sizes: dict[str, int], folder: Path) -> dict[str, partial[None]]:
    """Both ways to write one network, which have been seen to work."""
    ours = SqueezeBertForSequenceClassification(
        SqueezeBertConfig(**{**sizes, **dict.fromkeys(GROUP_FIELDS, 1), "embedding_size": sizes["hidden_size"]})
    ).eval()
    usual = BertForSequenceClassification(BertConfig(**sizes)).eval()
    opset = ExportOptions().opset
    files = {name: folder / f"{name}.onnx" for name in ("writer", "torch")}
    found = {
        "writer": partial(write_graph, ours, files["writer"], opset),
        "torch": partial(export_by_torch, usual, files["torch"]),
    }
    for name, write in found.items():
        write()
        session = onnxruntime.InferenceSession(str(files[name]))
        inputs = made_up_inputs(1, 16)
        answers: Any = session.run(None, {given.name: inputs[given.name] for given in session.get_inputs()})[0]
        assert answers.shape == (1, 2) and np.isfinite(answers).all()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for name, sizes in SIZES.items():
            timings = interleave(ways(sizes, Path(place)), options.runs, warmup=0)
            found[name] = {way: timing.to_dict() for way, timing in timings.items()}
            found[name]["times_faster"] = timings["torch"].median_ms / timings["writer"].median_ms
            print(name, {way: f"{timing.median_ms / 1e3:.2f} s" for way, timing in timings.items()}, flush=True)
    record = {
        **begun("graph_writing", {}, 1),
        "sizes": SIZES,
        "found": found,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
