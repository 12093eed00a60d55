"""A model file in; how long a new process takes to its first answer, and its memory, out. Serves `bench`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from squeezebert.benchmark.latency import TimedFile
from squeezebert.files.errors import FolderError

# An exported folder answers the first of its own texts; a bare file has no tokenizer, and answers token ids
_FOLDER = """
import squeezebert
model = squeezebert.load({folder!r}, threads={threads}, precision={precision!r})
model.answer_sample(model.manifest.samples[0])
"""
_FILE = """
import numpy as np
from pathlib import Path
from squeezebert.runtime.session import open_session
session = open_session(Path({path!r}), {threads}, {disabled!r}, {exact!r})
ids = np.ones((1, 16), np.int64)
session.run(None, {{given.name: ids * (given.name != "token_type_ids") for given in session.get_inputs()}})
"""
_END = """
import re, resource, sys
from pathlib import Path
status = Path("/proc/self/status")
if status.exists():  # Linux counts what a process held before it became this program, but here
    peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(peak, "torch" in sys.modules, flush=True)
"""


@dataclass(frozen=True)
class Start:
    """A new process that answers once."""

    seconds: float
    """From the start of the process to its first answer, median."""
    peak_bytes: int
    """Most memory it held, Python and libraries included."""
    needs_torch: bool
    """Whether it imported torch on the way."""


def measure_start(
    file: TimedFile, threads: int, folder: Path | None = None, precision: str = "", runs: int = 5
) -> Start:
    """Start a process several times and let it answer once: a text with an exported `folder`, else token ids.

    Raises `FolderError` where it cannot.
    """
    if folder is not None:
        code = _FOLDER.format(folder=str(folder), threads=threads, precision=precision)
    else:
        told = {"path": str(file.path), "disabled": file.disabled_optimizers, "exact": file.exact}
        code = _FILE.format(threads=threads, **told)
    found, peaks, answer = [], [], "0 False"
    for _ in range(runs + 1):
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", code + _END], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        answer = process.stdout.readline()
        found.append(time.perf_counter() - began)
        if process.wait():
            raise FolderError(
                f"{file.path}: a new process that loads it to answer ended with {process.returncode}: what it said is "
                "above; --no-starts leaves starts out"
            )
        peaks.append(int(answer.split()[0]))
    return Start(statistics.median(found[1:]), max(peaks), json.loads(answer.split()[1].lower()))
