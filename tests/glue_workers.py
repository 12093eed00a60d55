"""What workers of `glue run` are given in tests in place of training runs, light and importable by their processes."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from squeezebert.files.errors import TableError


def fails_or_takes_long(job: Any) -> dict[str, Any]:
    """Fail for the first learning rate, and take a minute for any other."""
    if job.cell.learning_rate == 1e-3:
        raise TableError("the first of them failed")
    time.sleep(60)
    return {"score": 1.0, "subsets": []}


def is_killed(job: Any) -> dict[str, Any]:
    """Die as a process does that the system ends for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}
