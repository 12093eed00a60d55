"""A small YAML file that people edit: read so that nothing in it is lost, written at once or not at all.

Serves the policies of moderation and the rules of pairs.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from squeezebert.files.errors import OptionError


def read_settings(path: Path, kind: str) -> Any:
    """Return what a YAML file holds. Raises `OptionError` where it is none, or a mapping has one name twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - it is a SafeLoader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise OptionError(f"{path}: cannot be read as a {kind} ({str(error).splitlines()[0]})") from error


def write_settings(path: Path, told: Mapping[str, Any]) -> None:
    """Write a YAML file. Raises `OptionError` where it cannot be written; what was there is then still there."""
    part = _part(path)
    try:
        part.write_text(yaml.safe_dump(dict(told), sort_keys=False, allow_unicode=True), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OptionError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def check_place(name: str) -> None:
    """Raise `OptionError` where `write_settings` could not write the file that `--output` names, before any work."""
    path = Path(name)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        raise OptionError(f"--output {name}: is a folder: name a file")
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise OptionError(f"--output {name}: there is no folder {path.parent}: make it, or name another")
    part = _part(path)
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise OptionError(f"--output {name}: cannot be written: {error.strerror}") from error


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


class _Loader(yaml.SafeLoader):
    """YAML's own loader lets the last of two equal names win, silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            # As text, for so are labels read: 1 and "1" are one
            name = str(self.construct_object(key, deep=True))
            if name in seen:
                problem = f"{name} is there twice, again in line {key.start_mark.line + 1}: leave one out"
                raise yaml.constructor.ConstructorError(None, None, problem, None)
            seen.add(name)
        return super().construct_mapping(node, deep)
