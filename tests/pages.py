"""Runs the code blocks of a page of docs/ as they stand there, in the folder that a test has prepared."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from squeezebert.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language, in their order."""
    return [code for found, code in _BLOCK.findall((DOCS / page).read_text(encoding="utf-8")) if found == language]


def run_commands(block: str) -> int:
    """Run the squeezebert commands of a shell block; returns how many there were."""
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("squeezebert ")]
    for line in lines:
        status = main(shlex.split(line, comments=True)[1:])
        assert status == 0, f"{line}: exit status {status}"
    return len(lines)


def run_python(block: str) -> dict[str, Any]:
    """Run a Python block; returns its names."""
    names: dict[str, Any] = {}
    exec(compile(block, "page", "exec"), names)
    return names
