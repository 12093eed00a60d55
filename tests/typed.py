"""Commands as they are typed, in this process. Serves tests of verbs."""

from __future__ import annotations

from squeezebert.cli import main


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def refused(capsys, *arguments):
    assert run(*arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    return last
