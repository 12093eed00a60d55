"""Shards of a bulk prediction in, answered by workers of a Ray cluster: Ray Data starts, feeds and replaces them.

A worker is an actor that opens the exported folder once. It needs no torch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from squeezebert.files.errors import DependencyError, OptionError, SqueezeBertError, WorkerError
from squeezebert.runtime.predictor import load
from squeezebert.workflows.bulk import Done, Shard, answer_shard, from_row, predict_in_parts, prepared, to_row
from squeezebert.workflows.job_options import PredictOptions

# For a cluster that is started here: rows of the dataset are names of files and counts
_OBJECT_STORE = 100_000_000


def predict_on_cluster(options: PredictOptions) -> str:
    """Answer a file or a folder of files on a Ray cluster, into a folder of parts; return what was done.

    With `--address` a cluster that is there is used: all its machines need this package, and the files, the model and
    the output folder under the same names. Else one is started on this machine, for this run. Raises as
    `predict_in_parts` does, `DependencyError` without Ray, `OptionError` for a cluster that cannot be reached or has
    no room, and `WorkerError` where workers failed.
    """
    job = prepared(options)  # before a cluster takes its seconds to start
    ray = _import_ray()
    threads = options.threads or 1
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, options, threads)
    try:
        room = int(ray.cluster_resources().get("CPU", 0)) // threads
        workers = options.workers or room
        if not 1 <= workers <= room:
            raise OptionError(
                f"--workers {workers}: the cluster has room for {room} workers of {threads} threads (--threads)"
            )

        def run(shards: Sequence[Shard], options: PredictOptions, output: Path) -> Iterator[Done]:
            return _answered(ray, shards, options, output, min(workers, len(shards)), threads)

        return predict_in_parts(options, run, workers, job)
    finally:
        if mine:
            ray.shutdown()


class Worker:
    """An exported model in a process of its own."""

    def __init__(self, options: PredictOptions, folder: str, output: str, threads: int) -> None:
        self.options, self.output = options, Path(output)
        self.model = load(folder, threads, options.precision, verify=False)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Answer the shards of a batch of rows; an error that is explained comes back as a row, not as a traceback."""
        done = [to_row(self._answer(Shard(**row))) for row in _rows(batch)]
        return {name: [row[name] for row in done] for name in Done.__dataclass_fields__}

    def _answer(self, shard: Shard) -> Done:
        try:
            return answer_shard(self.model, shard, self.options, self.output)
        except SqueezeBertError as error:
            return Done(error=str(error))


def _answered(
    ray: Any, shards: Sequence[Shard], options: PredictOptions, output: Path, workers: int, threads: int
) -> Iterator[Done]:
    """Let workers answer the shards, and yield what came of each as it is known."""
    context = ray.data.DataContext.get_current()
    before, context.enable_progress_bars = context.enable_progress_bars, False
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what failed is said below, without a stack of calls
    rows = ray.data.from_items([asdict(shard) for shard in shards], override_num_blocks=len(shards))
    made = {"options": options, "folder": str(Path(options.folder).resolve()), "output": str(output.resolve())}
    answers = rows.map_batches(
        Worker,
        fn_constructor_kwargs=made | {"threads": threads},
        batch_size=1,
        num_cpus=threads,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    try:
        for row in answers.iter_rows():
            yield from_row(row)
    except ray.exceptions.RayError as error:
        raise WorkerError(
            f"the workers failed ({str(error).strip().splitlines()[-1]}): repeat the command to go on from the parts "
            f"that are in {output}"
        ) from error
    finally:
        context.enable_progress_bars = before
        log.setLevel(level)


def _rows(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a batch of columns, as plain values."""
    columns = {name: [getattr(value, "item", lambda value=value: value)() for value in batch[name]] for name in batch}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _connect(ray: Any, options: PredictOptions, threads: int) -> None:
    told: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address is not None:
        told["address"] = options.address
    else:
        cores = None if options.workers is None else options.workers * threads
        told |= {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        told["num_cpus"] = cores
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray warns of how its own Ray Data makes actors
    try:
        ray.init(**told)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        where = options.address or "this machine"
        raise OptionError(f"--address {where}: no Ray cluster can be reached ({error})") from error


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DependencyError(f"Ray cannot be imported ({error}): pip install 'squeezebert[cluster]'") from error
    return ray
