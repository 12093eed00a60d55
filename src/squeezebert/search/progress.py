"""How far a stage of a search is, in lines with the time that is left. Serves everything in this room."""

from __future__ import annotations

import time
from collections.abc import Callable

from squeezebert.training.trainer import duration

_SAID = 20.0  # seconds between lines


class Progress:
    """Says now and then how far a stage is, and how long the rest of it takes."""

    def __init__(self, what: str, total: int, report: Callable[[str], None], before: int = 0) -> None:
        """Of `total`, `before` were done by an earlier run."""
        self.what, self.total, self.report, self.before = what, total, report, before
        self.began = self.said = time.monotonic()

    def told(self, done: int, more: str = "", *, surely: bool = False) -> None:
        """Say that `done` of the total is done: `surely`, or where nothing was said for a while."""
        now = time.monotonic()
        if surely or now - self.said > _SAID:
            self.said = now
            left = duration((now - self.began) / (done - self.before) * (self.total - done))
            self.report(f"{self.what} {done} of {self.total}{more}" + f", about {left} left" * (done < self.total))
