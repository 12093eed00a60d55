"""Runs of `squeezebert glue run` in; the leaderboard's zip out. Serves `squeezebert glue submit`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from squeezebert.data.glue import GLUE
from squeezebert.data.glue.submission import FILES, write_submission
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.workflows.glue.options import GlueSubmitOptions
from squeezebert.workflows.glue.plan import check_one_kind
from squeezebert.workflows.glue.results import TaskResult, read_predictions, read_result, summarise


def submit(options: GlueSubmitOptions) -> list[str]:
    """Write the zip of a model's best runs; return a line for each file, and one for what is missing.

    Raises `OptionError` for a model or recipe without results, `FolderError` where answers are missing or not of the
    official number of rows.
    """
    results = _results_of(options)
    answers: dict[str, np.ndarray] = {}
    lines, missing = [], []
    for name, (task, split) in FILES.items():
        result = results.get(task.name)
        predictions = {} if result is None else read_predictions(result.best)
        # Answers to other test rows than those that came after, by a model that is gone
        stale = [] if result is None else (read_result(result.best) or {}).get("stale", [])
        if result is None or split.name not in predictions or split.name in stale:
            missing.append(name)
            continue
        answers[name] = predictions[split.name]
        best = max(result.scores)
        rows = "a subset of the dev rows, or trained on one" if result.subsets else "the dev rows"
        where = f"{best:.1f} on {rows}, the best of {len(result.scores)} seeds there"
        lines.append(f"{name}: {len(answers[name])} answers of {result.best.name} ({where})")
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
    if output.suffix.lower() != ".zip" or output.is_dir():
        raise OptionError(f"--output {options.output}: expected the name of a zip file")
    for name, found in answers.items():
        task, split = FILES[name]
        if len(found) != split.rows:
            raise FolderError(
                f"{results[task.name].best}: it answered {len(found)} rows of {task.name} {split.name}, and {name} "
                f"has to have {split.rows}: repeat glue run with the whole test table in --data-dir"
            )
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
    of_task = {name: [r for r in mine if (r.recipe, r.task) == (chosen, name)] for name in GLUE}
    for results in of_task.values():
        check_one_kind(results, Path(options.folder))
    variants = sorted({result.variant for results in of_task.values() for result in results})
    if len(variants) > 1:
        raise FolderError(
            f"{options.folder}: the tasks of {options.model}, {chosen} are not of one model ({'; '.join(variants)}): "
            "delete those that are not meant"
        )
    return {name: results[0] for name, results in of_task.items() if results}
