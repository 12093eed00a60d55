"""Record what runs of `squeezebert squeeze` learned on a corpus, from the logs that they left.

python benchmarks/squeeze_healing.py DIR...     DIR: outputs of `squeezebert squeeze ... --text ... [--milestones ...]`

Writes benchmarks/results/squeeze_healing.json: of each run its command, options, corpus and the rows of its log. Where
files lie is this machine's business: paths are cut to their last part.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.training.general import LOG, RECORD

RESULTS = Path(__file__).parent / "results"


def read_run(folder: Path) -> dict[str, Any]:
    told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    kept = ("step", "seconds", "tokens", "train_loss", "held_out_loss", "hidden_errors")
    found = {
        "run": folder.name,
        "command": told["command"],
        "options": told["options"],
        "corpus": told["corpus"],
        "steps": told["steps"],
        "rows": [{name: row[name] for name in kept} for row in rows],
    }
    whole = json.dumps(found)
    cut: dict[str, Any] = json.loads(re.sub(r"(?<![\w.])/?(?:[\w.-]+/)+(?=[\w.-])", "", whole))
    return cut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    folders = parser.parse_args().folders
    record = {
        "command": f"python benchmarks/squeeze_healing.py {' '.join(folder.name for folder in folders)}",
        "machine": describe_machine(),
        "versions": package_versions(),
        "runs": [read_run(folder) for folder in folders],
    }
    (RESULTS / "squeeze_healing.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
