"""What every record of a job's benchmark begins with: the command, the machine, the versions, the threads."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from squeezebert.files.machine import describe_machine, package_versions


def command_of(script: str, places: Mapping[str, Path | None]) -> str:
    """The command as it was typed; places are this machine's business and go by their names."""
    command = "python " + shlex.join([f"benchmarks/{script}.py", *sys.argv[1:]])
    for name, place in places.items():
        command = command.replace(str(place), name)
    return command


def begun(
    script: str, places: Mapping[str, Path | None], threads: int, packages: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The beginning of a record; `packages` are those whose versions matter beside the project's own."""
    return {
        "command": command_of(script, places),
        "machine": describe_machine(),
        "versions": package_versions() | package_versions(packages),
        "threads": threads,
    }
