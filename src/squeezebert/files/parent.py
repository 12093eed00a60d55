"""The process that started a worker in; the worker's end with it, out. Serves what starts processes of its own."""

from __future__ import annotations

import os
import threading
import time


def end_with(parent: int) -> None:
    """End this process when `parent`, which started it, is gone: one that is killed cannot end its workers itself."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
