"""What stands before `POST /predict`: admission, the size of the body, the time limit, and the count of outcomes.

In: an ASGI request of any size and speed. Out: a request with its whole body at hand, or a refusal as JSON.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from email.message import Message as Headers
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from squeezebert.runtime.server.limits import Refusal
from squeezebert.runtime.server.service import Service

PATH = "/predict"
# A refused body is read and thrown away, so that the client reads the refusal instead of a broken connection: up to
# so many times the limit, for so many seconds
_DISCARDED, _DISCARDING = 16, 2.0


class Gate:
    """An ASGI middleware for one service."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or refuse it, and count how it ended; requests to other routes are passed on."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        measures = self.service.measures
        outcome = "failed"
        try:
            outcome = await self._let_through(scope, receive, send)
        finally:
            measures.requests.labels(outcome).inc()
        if outcome == "answered":
            measures.seconds.observe(time.perf_counter() - began)

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Pass a request on, or refuse it; return how it ended."""
        body = _Body(receive)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            with self.service.admitted():
                async with asyncio.timeout(self.service.limits.seconds):
                    content = await self._read(scope, body)
                    if content is None:
                        return "abandoned"
                    await self.app(scope, _replay(content, receive), watched)
                return str(scope.get("state", {}).get("outcome", "answered"))
        except TimeoutError:
            seconds = self.service.limits.seconds
            refusal = Refusal(503, "timed_out", f"not answered within {seconds:g} s: ask for less, or later")
        except Refusal as found:
            refusal = found
            await body.discard(scope, _DISCARDED * self.service.limits.bytes)
        if started:
            # The answer was on its way to a client that does not read: only the connection can tell
            raise TimeoutError(refusal.detail)
        headers = refusal.headers() if body.complete else {**refusal.headers(), "Connection": "close"}
        await json_response(refusal.to_dict(), refusal.status, headers)(scope, receive, send)
        return refusal.kind

    async def _read(self, scope: Scope, body: _Body) -> bytes | None:
        """Return the whole body, None when the client left. Raises `Refusal` for one that is too large or no JSON."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        limit = self.service.limits.bytes
        told = headers.get("content-length", "")
        if told.isdecimal() and int(told) > limit:
            raise Refusal(413, "body_too_large", f"the body has {told} bytes, and the limit is {limit}")
        kind = Headers()
        kind["content-type"] = headers.get("content-type", "")
        if kind.get_content_type() != "application/json":
            raise Refusal(415, "not_json", "send JSON, with the header Content-Type: application/json")
        content = bytearray()
        while not body.complete:
            chunk = await body.next()
            if chunk is None:
                return None
            content += chunk
            if len(content) > limit:
                raise Refusal(413, "body_too_large", f"the body has more than {limit} bytes, which is the limit")
        return bytes(content)


class _Body:
    """The body of a request as it arrives."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.complete = False

    async def next(self) -> bytes | None:
        """Return the next piece, or None when the client left."""
        message = await self._receive()
        if message["type"] != "http.request":
            self.complete = True
            return None
        self.complete = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def discard(self, scope: Scope, at_most: int) -> None:
        """Read on, keeping nothing, to the end or to `at_most` bytes; a client that waits to be asked is not asked."""
        if any(name == b"expect" for name, _ in scope["headers"]):
            return
        try:
            async with asyncio.timeout(_DISCARDING):
                while not self.complete and at_most > 0:
                    at_most -= len(await self.next() or b"")
        except TimeoutError:
            return


def _replay(content: bytes, receive: Receive) -> Receive:
    """Give a body that was read, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": content, "more_body": False}

    return again


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of JSON in ASCII: half a surrogate pair, as a label may hold, has no UTF-8."""
    return Response(json.dumps(content, allow_nan=False), status, headers, media_type="application/json")
