"""Texts and an exported marker in, wrong words with suggestions out: the job behind `check`. It needs no torch."""

from __future__ import annotations

from typing import Any

from squeezebert.data.reading import Example
from squeezebert.runtime.checking import open_checker
from squeezebert.workflows.given import Given, answer_texts
from squeezebert.workflows.job_options import CheckOptions


def check_texts(options: CheckOptions) -> str:
    """Mark the wrong words of every text; return a line about what was skipped, or nothing.

    Raises `FolderError` and `OptionError` for the models, `TableError` for a bad row unless they are skipped, and
    `OptionError` for an output that cannot be written.
    """
    checker = open_checker(options.folder, options.words, options.acceptability, options.threads, options.precision)
    given = Given(options.texts, options.text, options.encoding, options.skip_bad_rows)

    def answer(example: Example) -> dict[str, Any]:
        return checker.check(example.text, options.suggestions).to_dict()

    models = (checker.marker, checker.words and checker.words.model, checker.acceptability)
    made_by = [
        "check",
        options.suggestions,
        checker.thresholds,
        checker.marker.manifest.dictionary,
        *(model and model.digest for model in models),
    ]
    skipped = answer_texts(given, options.output, options.overwrite, answer, made_by)
    return f"skipped {len(skipped)} rows, the first: {skipped[0]}" if skipped else ""
