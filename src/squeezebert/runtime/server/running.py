"""From a service to a process that answers on a port until it is told to end."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from squeezebert.files.errors import OptionError
from squeezebert.runtime.server.application import make_application
from squeezebert.runtime.server.service import Service

# How long connections may take to close, and a thread to end, once everything is answered
_CLOSING_SECONDS = 5
# Connections that the system keeps until they are taken up
_BACKLOG = 2048


def serve(service: Service, host: str, port: int, report: Callable[[str], None]) -> None:
    """Listen on `host` and `port` (0: one that is free), load the model, answer until SIGTERM or SIGINT.

    While the model is loaded, `/health` answers and `/ready` refuses. Raises `OptionError` for an address that cannot
    be listened on, and what `Service.start` raises; returns after a signal, when every request that was let in is
    answered. A second signal ends the process at once. Signals are heard in the main thread only.
    """
    with listen(host, port) as listener:
        server = _Server(service, listener, report)
        loader = threading.Thread(target=server.load, name="loader")
        loader.start()
        try:
            server.run(sockets=[listener])
        finally:
            loader.join()
            service.close(_CLOSING_SECONDS)
    if service.error is not None:
        raise service.error


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises `OptionError` for a port in use and a host that is not of this machine."""
    listener = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # With its protocol named, which `socket.create_server` leaves out: asyncio sends the small packets of others
        # only after a delay of some 40 ms
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            raise OptionError(
                f"--port {port}: in use on {host}: end the program that listens there, or choose another port "
                "(0: one that is free)"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise OptionError(f"--port {port}: {error.strerror}: choose a port from 1024") from error
        raise OptionError(f"--host {host}: cannot be listened on: {error.strerror or error}") from error


class _Server(uvicorn.Server):
    """uvicorn, except that it answers with refusals while it shuts down, and ends with 0 after the first signal."""

    def __init__(self, service: Service, listener: socket.socket, report: Callable[[str], None]) -> None:
        super().__init__(
            uvicorn.Config(
                make_application(service),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_CLOSING_SECONDS,
            )
        )
        self.service = service
        host, port = listener.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.report = report
        self._told = False

    def load(self) -> None:
        """Start the service, or keep its error and end."""
        self.report(f"loading {self.service.folder}: {self.address}/ready says when it is done")
        try:
            self.service.start()
        except Exception:  # noqa: BLE001 - the service keeps it, and `serve` raises it
            return
        predictor = self.service.predictor
        if predictor is not None and self.service.state == "ready":
            self.report(f"serving {predictor.task} in {predictor.precision}: {self.address}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down after the first signal, end after the second."""
        if self.service.state == "stopping":
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.service.stop()

    async def on_tick(self, counter: int) -> bool:
        """Return whether everything that was let in is answered after a signal, or the model could not be loaded."""
        if self.service.state == "stopping":
            if not self._told:
                self.report(f"shutting down: {self.service.in_hand} requests are being answered")
                self._told = True
            self.should_exit = not self.service.in_hand
        elif self.service.state == "failed":
            self.should_exit = True
        return await super().on_tick(counter)
