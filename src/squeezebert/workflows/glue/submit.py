"""Runs of `squeezebert glue run` in; the leaderboard's zip out. Serves `squeezebert glue submit`."""

from __future__ import annotations

from pathlib import Path

from squeezebert.data.glue import GLUE
from squeezebert.data.glue.submission import FILES, write_submission
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.workflows.glue.options import GlueSubmitOptions
from squeezebert.workflows.glue.results import TaskResult, read_predictions, summarise


def submit(options: GlueSubmitOptions) -> list[str]:
    """Write the zip of a model's best runs; return a line for each file, and one for what is missing.

    Raises `OptionError` for a model or recipe without results, `FolderError` where answers are missing or not of the
    official number of rows.
    """
    results = _results_of(options)
    answers, lines, missing = {}, [], []
    for name, (task, split) in FILES.items():
        result = results.get(task.name)
        found = {} if result is None else read_predictions(result.best)
        if result is None or split.name not in found:
            missing.append(name)
            continue
        answers[name] = found[split.name]
        best = max(result.scores)
        where = f"{best:.1f} on the dev rows, the best of {len(result.scores)} seeds there"
        lines.append(f"{name}: {len(found[split.name])} answers of {result.best.name} ({where})")
    if missing and not options.partial:
        raise FolderError(
            f"{options.folder}: {options.model} has no answers for {', '.join(missing)}: run those tasks with "
            "their test rows, or write an incomplete zip with --partial (the leaderboard takes complete ones only)"
        )
    if not answers:
        raise FolderError(
            f"{options.folder}: {options.model} has no answers to any test rows; run it without --no-test"
        )
    output = Path(options.output)
    if not output.name or output.is_dir():
        raise OptionError(f"--output {options.output}: expected the name of a zip file")
    write_submission(output, answers)
    taken = " (incomplete: the leaderboard does not take it)" if missing else ""
    return [*lines, *([f"missing: {', '.join(missing)}"] if missing else []), f"written: {output}{taken}"]


def _results_of(options: GlueSubmitOptions) -> dict[str, TaskResult]:
    """The model's results by task."""
    mine = [result for result in summarise(Path(options.folder)) if result.model == options.model]
    if not mine:
        there = sorted({result.model for result in summarise(Path(options.folder))})
        raise OptionError(f"--model {options.model}: no results; {options.folder} has {', '.join(there) or 'none'}")
    recipes = sorted({result.recipe for result in mine})
    if options.recipe_name is None and len(recipes) > 1:
        raise OptionError(f"--recipe-name: {options.model} has results of {', '.join(recipes)}: name one")
    chosen = options.recipe_name or recipes[0]
    if chosen not in recipes:
        raise OptionError(f"--recipe-name {chosen}: {options.model} has results of {', '.join(recipes)}")
    of_recipe = {result.task: result for result in mine if result.recipe == chosen}
    return {name: of_recipe[name] for name in GLUE if name in of_recipe}
