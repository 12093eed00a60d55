"""What the full recipe costs, from counts that are checked here with 1, 2 and 4 processes.

python benchmarks/pretrain_scale.py [--steps 8] [--processes 1,2,4]

Every number of processes runs the same steps of a small model (gloo, one thread each); a hook counts the bytes of
gradients that are added up. Then the paper's recipe is computed for the hardware that is named. Writes
benchmarks/results/pretrain_scale.json; the table is in docs/pretrain.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from squeezebert.benchmark.scale import step_cost
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertConfig, SqueezeBertForPreTraining
from squeezebert.training.options import PretrainOptions
from squeezebert.training.pretraining import optimizer_of

RESULTS = Path(__file__).parent / "results"
SMALL = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024}
ROWS, LENGTH = 8, 128
# Hardware as its vendor gives it: peak of dense bf16 or fp16 products a second, and bytes a second of one device's
# network, in a machine of 8 devices and between machines
DEVICES = {
    "Titan RTX (the paper's)": (130e12, {8: 12e9}),
    "A100 80 GB, NVLink, 200 Gbit/s a device between machines": (312e12, {8: 300e9, 64: 25e9}),
    "H100 SXM, NVLink, 400 Gbit/s a device between machines": (989e12, {8: 450e9, 64: 50e9}),
    "A100 80 GB, 25 Gbit/s Ethernet a device": (312e12, {8: 3.1e9, 64: 3.1e9}),
}
PAPERS = (8, 4 * 86400, 130e12)  # devices, seconds and peak of the paper's own run
GOOD_SHARE = 0.3  # of the peak; what well-fed training of wide models reaches, and an assumption here
PHASES = (("pretrain-128", 56_000, 128), ("pretrain-512", 6_000, 512))


def worker(steps: int) -> None:
    """Run steps in one of several processes; the first prints what it measured."""
    torch.set_num_threads(1)
    several = int(os.environ["WORLD_SIZE"]) > 1
    if several:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    plain = SqueezeBertForPreTraining(SqueezeBertConfig(vocab_size=8000, **SMALL))
    counted = [0]
    model: Any = plain
    if several:
        model = DistributedDataParallel(plain)

        def add_up(state, bucket):  # torch looks at annotations, and takes no strings
            counted[0] += bucket.buffer().numel() * bucket.buffer().element_size()
            told = dist.all_reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True)
            return told.get_future().then(lambda future: future.value()[0])

        model.register_comm_hook(None, add_up)
    optimiser = optimizer_of(plain, PretrainOptions())
    ids = torch.randint(5, 8000, (ROWS, LENGTH))
    labels = ids.masked_fill(torch.rand(ids.shape) > 0.15, -100)
    order = torch.randint(0, 2, (ROWS,))
    seconds = []
    for step in range(steps + 2):
        began = time.perf_counter()
        model(ids, labels=labels, sentence_order_label=order, masked_only=True).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if step >= 2:
            seconds.append(time.perf_counter() - began)
    if int(os.environ["RANK"]) == 0:
        print(json.dumps({"seconds": statistics.median(seconds), "bytes": counted[0] / (steps + 2)}))
    if several:
        dist.destroy_process_group()


def measure(processes: int, steps: int) -> dict[str, float]:
    """Run this file in so many processes; return the seconds and the bytes of gradients of a step."""
    with tempfile.TemporaryDirectory() as place:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        told = [*launch, __file__, "--worker", "--steps", str(steps)]
        made = subprocess.run(told, check=True, capture_output=True, text=True, cwd=place)
    found: dict[str, float] = json.loads(next(line for line in made.stdout.splitlines() if line.startswith("{")))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.steps)
        return
    small = SqueezeBertForPreTraining(SqueezeBertConfig(vocab_size=8000, **SMALL))
    cost = step_cost(small, ROWS, LENGTH, 0.15)
    runs = []
    for processes in map(int, options.processes.split(",")):
        found = measure(processes, options.steps)
        expected = float(cost.gradient_bytes) if processes > 1 else 0.0
        runs.append(
            {
                "processes": processes,
                "seconds_a_step": found["seconds"],
                "rows_a_step": ROWS * processes,
                "operations_a_second": cost.operations * processes / found["seconds"],
                "gradient_bytes": found["bytes"],
                "expected_gradient_bytes": expected,
            }
        )
        print(runs[-1], flush=True)
    paper = SqueezeBertForPreTraining(SqueezeBertConfig(vocab_size=30_528))
    phases = []
    for name, steps, length in PHASES:
        one = step_cost(paper, 8192, length, 0.15)
        phases.append(
            {
                "recipe": name,
                "steps": steps,
                "length": length,
                "tokens": one.tokens * steps,
                "operations": one.operations,
            }
        )
    devices, seconds, peak = PAPERS
    share = sum(one["operations"] * one["steps"] for one in phases) / (devices * seconds * peak)
    hardware = []
    for name, (peak, networks) in DEVICES.items():
        for devices, network in networks.items():
            row: dict[str, Any] = {"device": name, "devices": devices, "phases": []}
            for recipe, steps, length in PHASES:
                cost = step_cost(paper, 8192, length, 0.15)
                told = {of: cost.seconds(devices, peak * of, network) for of in (share, GOOD_SHARE)}
                row["phases"].append(
                    {
                        "recipe": recipe,
                        "network_s": told[share][1],
                        "arithmetic_s": {"as the paper's run": told[share][0], "at 30 % of peak": told[GOOD_SHARE][0]},
                        "days": {
                            "as the paper's run": steps * max(told[share]) / 86400,
                            "at 30 % of peak": steps * max(told[GOOD_SHARE]) / 86400,
                        },
                    }
                )
            hardware.append(row)
    record = {
        "command": "python " + shlex.join(["benchmarks/pretrain_scale.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "runs": runs,
        "phases": phases,
        "parameters": sum(parameter.numel() for parameter in paper.parameters()),
        "state_bytes": step_cost(paper, 1, 128, 0.15).state_bytes,
        "gradient_bytes": step_cost(paper, 1, 128, 0.15).gradient_bytes,
        "papers_share_of_peak": share,
        "papers_run": "8 Titan RTX for 4 days (Iandola et al. 2020)",
        "hardware": hardware,
    }
    (RESULTS / "pretrain_scale.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
