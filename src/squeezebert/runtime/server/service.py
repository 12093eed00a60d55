"""One loaded model behind one bounded queue: texts of any number of requests in, answers by worker threads out."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from squeezebert.files.cores import check_threads, usable_cores
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.manifest import read_manifest
from squeezebert.runtime.predictor import Prediction, Predictor, load
from squeezebert.runtime.server.limits import Limits, Refusal
from squeezebert.runtime.server.measures import Measures
from squeezebert.runtime.tokens import Text

State = Literal["starting", "ready", "stopping", "failed"]

# Texts that a worker takes from several requests at once
_TEXTS_AT_ONCE = 64
# How much the latest batch moves the estimate of the time a text takes
_NEWEST = 0.2


@dataclass(eq=False)
class Job:
    """The texts of one request and, later, their answers."""

    texts: Sequence[Text]
    """one or more"""
    future: Future[list[Prediction]] = field(default_factory=Future)
    """an answer a text, in their order"""


class Service:
    """A model that is loaded by `start`, answers what is submitted, and ends by `stop` and `close`.

    Safe to share between threads. A worker takes what waits, or its share of it when there are several workers, and
    answers it in one call; a file whose answers would depend on the batch is given one request at a time, which costs
    nothing, as the predictor runs its texts one by one.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        limits: Limits | None = None,
        workers: int | None = None,
        threads: int | None = 1,
        precision: str | None = None,
    ) -> None:
        """Read the manifest of `folder`; nothing is loaded yet.

        `workers` is the number of requests that are computed at a time (None: one a core), `threads` the number of
        cores each may use. Raises `FolderError` for a folder that is none, `OptionError` for unusable numbers.
        """
        self.limits = limits or Limits()
        if self.limits.queue < self.limits.texts:
            raise OptionError(
                f"a queue of {self.limits.queue} texts cannot hold a request of {self.limits.texts}: "
                "make the queue longer, or allow fewer texts a request"
            )
        if workers is not None and workers < 1:
            raise OptionError(f"workers = {workers}: expected 1 or more")
        check_threads(threads)
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if self.manifest.task == "embedding":
            raise OptionError(f"{self.folder}: an encoder, which embeds and gives no labels: serve a classifier")
        if self.manifest.task in ("masked-lm", "token-labels"):
            raise OptionError(
                f"{self.folder}: a model of {self.manifest.task}, which gives texts no labels: serve a classifier"
            )
        self.workers = workers or usable_cores()
        self.predictor: Predictor | None = None
        self.error: Exception | None = None
        self.measures = Measures()
        self.measures.watch(lambda: self.waiting, lambda: self.in_hand)
        self._threads = threads
        self._precision = precision
        self._state: State = "starting"
        self._stopped = False
        self._jobs: deque[Job] = deque()
        self._waiting = 0
        self._in_hand = 0
        self._seconds_a_text = 0.0
        self._changed = threading.Condition()
        self._closing = False
        self._running: list[threading.Thread] = []

    @property
    def state(self) -> State:
        """`starting`, `ready`, `stopping` or `failed`."""
        return "stopping" if self._stopped else self._state

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return self._waiting

    @property
    def in_hand(self) -> int:
        """Requests that were let in and are not answered yet."""
        return self._in_hand

    def start(self) -> None:
        """Load the model, check its answers to the manifest's texts, start the workers, and be ready.

        Raises `FolderError` for a folder that cannot be loaded or answers otherwise than it did at the export, and
        `OptionError` for a precision that it does not hold; the state is `failed` then.
        """
        try:
            predictor = load(self.folder, self._threads, self._precision)
            found = predictor.self_check()
            if not found.passed:
                raise FolderError(
                    f"{self.folder}: its {found.precision} answers differ here by {found.max_difference:.2g} from "
                    f"those at the export, and {found.tolerance:g} is allowed: update onnxruntime, or export the "
                    "checkpoint on this machine"
                )
        except Exception as error:
            with self._changed:
                self.error, self._state = error, "failed"
            raise
        with self._changed:
            self.predictor = predictor
            self._running = [
                threading.Thread(target=self._work, args=(predictor,), name=f"worker-{number}", daemon=True)
                for number in range(self.workers)
            ]
            for thread in self._running:
                thread.start()
            self._state = "ready"

    def check_ready(self) -> None:
        """Raise `Refusal` (503) unless new requests are answered."""
        reasons: dict[State, str] = {
            "starting": "the model is being loaded: ask again in a moment",
            "stopping": "the service is shutting down: ask another one",
            "failed": "the model could not be loaded: see the log of the service",
        }
        state = self.state
        if state != "ready":
            raise Refusal(503, "not_ready", reasons[state], 1 if state == "starting" else None)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place for a request until it is answered; one that was let in is answered before the service ends.

        Raises `Refusal` when the service is not ready (503) or too many requests are in hand (429).
        """
        with self._changed:
            self.check_ready()
            if self._in_hand >= 2 * self.limits.queue:
                raise self._full(f"{self._in_hand} requests are in hand")
            self._in_hand += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_hand -= 1

    def submit(self, texts: Sequence[Text]) -> Job:
        """Put the texts of a request, one or more, into the queue. Raises `Refusal` (429) when they don't fit in."""
        job = Job(texts)
        with self._changed:
            if self._waiting + len(texts) > self.limits.queue:
                raise self._full(f"{self._waiting} texts wait, and {self.limits.queue} may")
            self._jobs.append(job)
            self._waiting += len(texts)
            self._changed.notify()
        return job

    def withdraw(self, job: Job) -> None:
        """Take a job that nobody waits for out of the queue; one that was begun is computed to its end."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= len(job.texts)
        job.future.cancel()

    def stop(self) -> None:
        """Let no new request in; those that were let in are answered. Takes no lock: signal handlers call it."""
        self._stopped = True

    def close(self, seconds: float | None = None) -> None:
        """Answer what waits, then end the workers; wait for them no longer than `seconds`."""
        self.stop()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._running:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))

    def _full(self, found: str) -> Refusal:
        seconds = math.ceil(self._waiting * self._seconds_a_text / self.workers)
        wait = max(1, min(seconds, math.ceil(self.limits.seconds)))
        return Refusal(429, "queue_full", f"{found}: ask again in {wait} s", wait)

    def _work(self, predictor: Predictor) -> None:
        alone = not predictor.manifest.files[predictor.precision].batch_invariant
        while (jobs := self._take(alone)) is not None:
            if jobs:
                self._answer(predictor, jobs)

    def _take(self, alone: bool) -> list[Job] | None:
        """Wait for jobs and take a share of them, or one if `alone`; None when the service has closed."""
        with self._changed:
            while not self._jobs:
                if self._closing:
                    return None
                self._changed.wait()
            share = 1 if alone else math.ceil(len(self._jobs) / self.workers)
            taken: list[Job] = []
            texts = 0
            while self._jobs and len(taken) < share:
                size = len(self._jobs[0].texts)
                if taken and texts + size > _TEXTS_AT_ONCE:
                    break
                job = self._jobs.popleft()
                self._waiting -= size
                if job.future.set_running_or_notify_cancel():
                    taken.append(job)
                    texts += size
            return taken

    def _answer(self, predictor: Predictor, jobs: list[Job]) -> None:
        """Answer jobs in one call; if that fails, each by itself, so that nobody pays for the company."""
        began, texts = time.perf_counter(), [text for job in jobs for text in job.texts]
        self.measures.batches.observe(len(texts))
        try:
            # A stream, so that a job is answered as soon as its own texts are
            answers = predictor.predict(iter(texts))
            for job in jobs:
                job.future.set_result(list(itertools.islice(answers, len(job.texts))))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the request, not to the worker
            left = [job for job in jobs if not job.future.done()]
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in left:
                self._answer(predictor, [job])
            return
        seconds = (time.perf_counter() - began) / len(texts)
        known = self._seconds_a_text
        self._seconds_a_text = seconds if not known else known + _NEWEST * (seconds - known)
