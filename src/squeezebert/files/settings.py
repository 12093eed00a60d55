"""A small YAML file that people edit: read so that nothing in it is lost, written at once or not at all.

Serves the policies of moderation and the rules of pairs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from squeezebert.files.errors import OptionError
from squeezebert.files.places import part_of


def read_settings(path: Path, kind: str) -> Any:
    """Return what a YAML file holds. Raises `OptionError` where it is none, or a mapping has one name twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - it is a SafeLoader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise OptionError(f"{path}: cannot be read as a {kind} ({str(error).splitlines()[0]})") from error


def write_settings(path: Path, told: Mapping[str, Any]) -> None:
    """Write a YAML file. Raises `OptionError` where it cannot be written; what was there is then still there."""
    part = part_of(path)
    try:
        part.write_text(yaml.safe_dump(dict(told), sort_keys=False, allow_unicode=True), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OptionError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


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
