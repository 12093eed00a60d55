"""What a request may ask of the service, and how it hears that it asked too much. Serves every part of the server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Bounds that keep memory and waiting time finite."""

    characters: int = 20_000
    """characters of a text, at most"""
    texts: int = 64
    """texts of a request, at most"""
    bytes: int = 1_048_576
    """bytes of a request's body, at most"""
    queue: int = 256
    """texts that may wait for a worker; twice as many requests may be in hand, those whose body arrives included"""
    seconds: float = 30.0
    """time that a request may take, from its first byte to the last one of its answer"""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON takes them."""
        return asdict(self)


class Refusal(Exception):
    """A request that gets no answer: HTTP status, a word for programs, a sentence for people."""

    def __init__(self, status: int, kind: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        """seconds after which to ask again, where that helps"""

    def to_dict(self) -> dict[str, str]:
        """Return the body of the response."""
        return {"error": self.kind, "detail": self.detail}

    def headers(self) -> dict[str, str]:
        """Return the headers of the response beside its type and length."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
