"""Options in, a running service out: the job behind `squeezebert serve`. It needs the `[server]` extra, no torch."""

from __future__ import annotations

from collections.abc import Callable

from squeezebert.runtime.server.limits import Limits
from squeezebert.runtime.server.running import serve
from squeezebert.runtime.server.service import Service
from squeezebert.workflows.options import ServeOptions


def serve_folder(options: ServeOptions, report: Callable[[str], None]) -> None:
    """Serve an exported folder until a signal ends it.

    Raises `FolderError` for a folder that cannot be loaded or answers otherwise than at its export, and `OptionError`
    for an address that cannot be listened on.
    """
    limits = Limits(options.max_characters, options.max_texts, options.max_bytes, options.queue, options.timeout)
    service = Service(options.folder, limits, options.workers, options.threads, options.precision)
    serve(service, options.host, options.port, report)
