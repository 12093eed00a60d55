"""Time from process start to the end of `import squeezebert` and of two kinds of `--help`, against bare Python.

python benchmarks/startup.py [--runs 15] [--output benchmarks/results/startup.json]
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.files.stopwatch import interleave

LIMIT_MS = 300
COMMANDS = {
    "python": ["-c", "pass"],
    "import squeezebert": ["-c", "import squeezebert"],
    "squeezebert --help": ["-m", "squeezebert", "--help"],
    "squeezebert check --help": ["-m", "squeezebert", "check", "--help"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    def start(command: list[str]) -> None:
        subprocess.run([sys.executable, *command], check=True, capture_output=True)

    timings = interleave(
        {name: lambda command=command: start(command) for name, command in COMMANDS.items()}, options.runs
    )
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "timings": {name: timing.to_dict() for name, timing in timings.items()},
        "limit_ms": LIMIT_MS,
    }
    text = json.dumps(record, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    return int(any(timing.median_ms > LIMIT_MS for timing in timings.values()))


if __name__ == "__main__":
    raise SystemExit(main())
