"""Texts with gaps and an exported masked language model in, words for the gaps out: the job behind `complete`."""

from __future__ import annotations

from typing import Any

from squeezebert.data.reading import Example
from squeezebert.runtime.completion import Completer, filled
from squeezebert.runtime.predictor import load
from squeezebert.workflows.given import Given, answer_texts
from squeezebert.workflows.job_options import CompleteOptions


def complete_texts(options: CompleteOptions) -> str:
    """Fill the gaps of every text, or say which words come next; return a line about what was skipped, or nothing.

    Raises `FolderError` and `OptionError` for the model, `TableError` for a row without a gap unless they are skipped,
    and `OptionError` for an output that cannot be written.
    """
    completer = Completer(load(options.folder, options.threads, options.precision))

    def answer(example: Example) -> dict[str, Any]:
        if options.next_word:
            words = completer.next_word(example.text, options.top, ending="." if options.ending == "stop" else "")
            return {"next": [word.to_dict() for word in words]}
        gaps = completer.fill(example.text, options.top)
        return {"filled": filled(example.text, gaps), "gaps": [gap.to_dict() for gap in gaps]}

    made_by = ["complete", completer.model.digest, options.next_word, options.top, options.ending]
    given = Given(options.texts, options.text, options.encoding, options.skip_bad_rows)
    skipped = answer_texts(given, options.output, options.overwrite, answer, made_by)
    return f"skipped {len(skipped)} rows, the first: {skipped[0]}" if skipped else ""
