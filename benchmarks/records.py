"""What a benchmark's record holds beside what was found: command, machine, versions, threads; how cells are merged."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from squeezebert.files.machine import describe_machine, package_versions


def command_of(script: str, places: Mapping[str, Path | None]) -> str:
    """The command as it was typed; places are this machine's business and go by their names."""
    arguments = []
    for argument in sys.argv[1:]:
        told = named(argument, places)
        if told == argument and "=" in argument:  # --work=PLACE, METHOD=PLACE
            what, _, place = argument.partition("=")
            told = f"{what}={named(place, places)}"
        arguments.append(told)
    return "python " + shlex.join([f"benchmarks/{script}.py", *arguments])


def named(value: str, places: Mapping[str, Path | None]) -> str:
    """The name of the place that a path is, or lies in, with the rest of the path; any other text as it is."""
    path = str(Path(value)) if value else ""
    for name, place in places.items():
        if place is not None and f"{path}/".startswith(f"{place}/"):
            return name + path[len(str(place)) :]
    return value


def with_places_named(value: Any, places: Mapping[str, Path | None]) -> Any:
    """A value of a record, in which each text that is a path of a place goes by the place's name."""
    if isinstance(value, str):
        return named(value, places)
    if isinstance(value, dict):
        return {key: with_places_named(one, places) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [with_places_named(one, places) for one in value]
    return value


def short_hash(*values: Any) -> str:
    """A few characters that change with any of the values; for names of what is kept."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def merged(there: list[dict[str, Any]], cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Recorded cells with new ones in their places, and behind them those that are not there yet."""
    return list({cell["cell"]: cell for cell in (*there, *cells)}.values())


def begun(
    script: str, places: Mapping[str, Path | None], threads: int, packages: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The beginning of a record; `packages` are those whose versions matter beside the project's own."""
    return {
        "command": command_of(script, places),
        **made_here(packages),
        "threads": threads,
    }


def made_here(packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """The machine, and the versions of the project, of what it needs, and of other packages."""
    return {"machine": describe_machine(), "versions": package_versions() | package_versions(packages)}
