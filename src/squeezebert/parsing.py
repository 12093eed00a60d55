"""Dataclasses of options in, a command line's parser out: an option a field, its help from the docstring below it.

Serves `cli.py`; what is in a recipe and what is typed are put together here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import cache
from inspect import get_annotations
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from jsonargparse import ActionYesNo, ArgumentParser

from squeezebert import __version__

Verbs = Mapping[str, tuple[Callable[..., None], tuple[type, ...]]]
"""verb -> its function, and what its options are made of, in the order of the function's arguments"""

# Options that are written without a name, first things first
POSITIONAL = ("data", "corpus", "checkpoint", "folder", "file", "models", "sorter", "names", "texts")

_KINDS = {"int": "a whole number", "float": "a number"}


class Parser(ArgumentParser):
    """A parser that says what is wrong with a recipe in words."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End the program with a message."""
        if "does not support item assignment" in message or "object is not iterable" in message:
            message = "a recipe has one value where several can be given: write a list, as `text: [corpus.txt]`"
        super().error(_plainly(message), ex)


def _plainly(message: str) -> str:
    """What jsonargparse says of a value of another type, in the words of the other errors."""
    option, value = re.search('Parser key "([\\w.]+)":', message), re.search("(?:Given|Got) value: (.*)", message)
    wanted = [_KINDS[kind] for kind in re.findall(r"Expected a <class '(\w+)'>", message) if kind in _KINDS]
    wanted += [f"one of {names}" for names in re.findall(r"Expected a typing\.Literal\[(.*?)\]", message)]
    if option is None or value is None or len(wanted) != 1:
        return message
    return f"--{option[1].replace('_', '-')} {value[1]}: expected {wanted[0]}"


def parser_of(verbs: Verbs, families: Mapping[str, str], alone: str | None = None) -> ArgumentParser:
    """Return the parser of all verbs, made from their dataclasses; `families` are what verbs of two words share.

    With `alone`, no other verb gets its options, and with "" none: reading those of all takes longer than many a verb
    does.
    """
    parser = Parser(prog="squeezebert", description="Small, fast text models for the device the text is on.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subcommands(required=True, dest="verb")
    shared = {}
    for name, summary in families.items():
        family = Parser(description=summary)
        commands.add_subcommand(name, family, help=summary)
        shared[name] = family.add_subcommands(required=True, dest="verb")
    for name, (function, parts) in verbs.items():
        summary = (function.__doc__ or "").strip()
        verb = Parser(description=summary)
        for part in parts if alone in (None, name) else ():
            add_options(verb, part)
        verb.add_argument(
            "--recipe",
            action="config",
            help="YAML file of options, by their names here; what is typed beside it means more.",
        )
        family_name, _, own = name.rpartition(" ")
        (shared[family_name] if family_name else commands).add_subcommand(own, verb, help=summary)
    return parser


def add_options(parser: ArgumentParser, options: type) -> None:
    """Add an option for each field of a dataclass, its help from the docstring under the field."""
    hints = get_type_hints(options)
    group = parser.add_argument_group((options.__doc__ or "").strip().splitlines()[0].rstrip("."))
    documented = field_docstrings(options)
    own = get_annotations(options)
    for field in sorted(fields(options), key=lambda field: field.name not in own):  # what verbs share comes last
        help_text = documented[field.name]
        required = field.default is MISSING and field.default_factory is MISSING
        if hints[field.name] is bool:
            group.add_argument(
                f"--{field.name.replace('_', '-')}",
                action=ActionYesNo(no_prefix="no-"),
                default=field.default,
                help=help_text,
            )
        elif get_origin(hints[field.name]) in (list, tuple):
            several: dict[str, Any] = {"required": True} if required else {"default": _default(field)}
            of = get_args(hints[field.name])[0]
            if field.name in POSITIONAL:
                group.add_argument(field.name, type=of, nargs="+", help=help_text)
                continue
            group.add_argument(f"--{field.name.replace('_', '-')}", type=of, nargs="+", help=help_text, **several)
        elif field.name in POSITIONAL:
            group.add_argument(field.name, type=hints[field.name], help=help_text)
        else:
            extra: dict[str, Any] = {"required": True} if required else {"default": field.default}
            flag = f"--{field.name.replace('_', '-')}"
            group.add_argument(flag, type=hints[field.name], help=help_text, **extra)


def _default(field: Field[Any]) -> list[Any]:
    made: Any = field.default if field.default_factory is MISSING else field.default_factory()
    return list(made)


@cache
def field_docstrings(options: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass and of those it is made from."""
    from docstring_parser import parse_from_object

    found = {}
    for one in reversed(options.__mro__[:-1]):
        found.update(
            {entry.args[1]: " ".join((entry.description or "").split()) for entry in parse_from_object(one).params}
        )
    return found


def values_of(parts: Sequence[type], parsed: Any) -> list[Any]:
    """Return the dataclasses of a verb with what was parsed. Raises what they raise for values that cannot be."""
    return [
        part(**{field.name: _value(part, field.name, parsed[field.name]) for field in fields(part)}) for part in parts
    ]


def _value(options: type, name: str, given: Any) -> Any:
    """A parsed value as its dataclass has it: lists are how several words on a command line come."""
    return tuple(given) if get_origin(get_type_hints(options)[name]) is tuple else given


def recipes_first(arguments: Sequence[str], families: Mapping[str, str]) -> list[str]:
    """Put recipes before other options, whose values then count: what is typed means more than what a file says."""
    rest, recipes = [], []
    words = iter(arguments)
    for word in words:
        if word == "--recipe":
            recipes += [word, *(value for value in [next(words, None)] if value is not None)]
        elif word.startswith("--recipe="):
            recipes.append(word)
        else:
            rest.append(word)
    verb = 2 if rest and rest[0] in families else 1
    return [*rest[:verb], *recipes, *rest[verb:]]


def verb_of(arguments: Sequence[str], verbs: Verbs) -> str | None:
    """Return the verb that a command line begins with, of one word or two."""
    return next((" ".join(arguments[:words]) for words in (2, 1) if " ".join(arguments[:words]) in verbs), None)


def together(arguments: Sequence[str], verbs: Verbs) -> list[str]:
    """Put the values of an option that takes several behind its first mention, where it is given more than once.

    The parser would take the last ones for all: `--model a --model b` means the same as `--model a b`.
    """
    verb = verb_of(arguments, verbs)
    if verb is None:
        return list(arguments)
    several = set()
    for part in verbs[verb][1]:
        hints = get_type_hints(part)
        listed = (field.name for field in fields(part) if get_origin(hints[field.name]) in (list, tuple))
        several |= {f"--{name.replace('_', '-')}" for name in listed}
    before: list[str] = []  # verb and what stands alone; then each option with its values
    found = [before]
    own: dict[str, list[str]] = {}
    current = before
    for word in arguments:
        name, sign, value = word.partition("=")
        if not word.startswith("--"):
            current.append(word)
        elif name in several:
            if name not in own:
                own[name] = [name]
                found.append(own[name])
            own[name] += [value] if sign else []
            current = before if sign else own[name]
        else:
            current = before if sign else [word]
            found.append([word] if sign else current)
    return [word for words in found for word in words]


def dashed(arguments: Sequence[str]) -> list[str]:
    """Accept `--max_length` for `--max-length`, as recipes and Python spell it."""
    changed = []
    for argument in arguments:
        name, sign, value = argument.partition("=")
        changed.append(name.replace("_", "-") + sign + value if name.startswith("--") else argument)
    return changed
