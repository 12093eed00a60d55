"""Latency of squeezed shapes at MiniLM-L6's size, against the dense model as people export and quantise it by default.

python benchmarks/squeeze_latency.py [--runs 12] [--burst 10] [--output benchmarks/results/squeeze_latency.json]

Random weights, one thread, batch 1, ONNX Runtime. Two ways of timing: in bursts, each file with its own data in the
caches, as on a device that runs one model; and in turns, each file after all the others.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from squeeze_controls import SHAPES

from squeezebert.benchmark.baselines import write_baseline, write_usual
from squeezebert.benchmark.latency import TimedFile, measure_latency
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertConfig
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.runtime.session import integer_products_saturate
from squeezebert.training.shapes import describe_shape

BASELINE = "dense, exported the usual way"
OVERFLOWING = f"{BASELINE}, products overflow"
SIZES = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
MODELS: dict[str, dict[str, Any]] = {
    "dense, our graph": {},
    **SHAPES,
    "2 of 6 layers": {"num_hidden_layers": 2},
    "3 of 6 layers": {"num_hidden_layers": 3},
    "FFN 256 wide": {"intermediate_size": 256},
}


def config(shape: dict[str, Any]) -> SqueezeBertConfig:
    return SqueezeBertConfig(**SIZES | dict.fromkeys(GROUP_FIELDS, 1) | {"num_labels": 2} | shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--burst", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "squeeze_latency.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, dict[str, TimedFile]] = {BASELINE: write_usual(config({}), Path(folder) / "usual")}
        for name, shape in MODELS.items():
            files[name] = write_baseline(config(shape), Path(folder) / name.replace(" ", "_"))
        if integer_products_saturate():  # what people get on such a CPU by default, wrong answers included
            files[OVERFLOWING] = {p: replace(file, exact=False) for p, file in files[BASELINE].items()}
        flat = {f"{name} {precision}": file for name, both in files.items() for precision, file in both.items()}
        timings = {
            way: measure_latency(flat, (32, 128), threads=1, runs=runs, burst=burst, report=print)
            for way, runs, burst in (("bursts", options.runs, options.burst), ("turns", 3 * options.burst, 1))
        }
        megabytes = {name: file.path.stat().st_size / 1e6 for name, file in flat.items()}
    rows = []
    for name in files:
        for precision in ("fp32", "int8"):
            row: dict[str, Any] = {
                "shape": name,
                "precision": precision,
                "megabytes": megabytes[f"{name} {precision}"],
            }
            row["fields"] = describe_shape(MODELS.get(name, {}))
            for way, found in timings.items():
                reference, own = found[f"{BASELINE} {precision}"], found[f"{name} {precision}"]
                row[way] = {
                    tokens: own[tokens].to_dict() | {"ratio": reference[tokens].median_ms / own[tokens].median_ms}
                    for tokens in own
                }
            rows.append(row)
            print(name, precision, {way: {t: round(v["ratio"], 2) for t, v in row[way].items()} for way in timings})
    record = {
        "command": "python " + shlex.join(["benchmarks/squeeze_latency.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "baseline": BASELINE,
        "rows": rows,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
