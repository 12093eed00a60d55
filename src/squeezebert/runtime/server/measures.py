"""What the service counts, in Prometheus' terms: `GET /metrics`."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Every way a request can end; programs that watch rates want them all from the start
OUTCOMES = (
    "answered",
    "invalid_json",
    "invalid_request",
    "text_too_long",
    "too_many_texts",
    "body_too_large",
    "not_json",
    "queue_full",
    "not_ready",
    "timed_out",
    "abandoned",
    "failed",
)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Measures:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "squeezebert_requests", "Requests to /predict, by how they ended.", ["outcome"], registry=self.registry
        )
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        self.seconds = Histogram(
            "squeezebert_request_seconds",
            "Time from an answered request's first byte to the end of its answer.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.texts = Counter("squeezebert_texts", "Texts answered.", registry=self.registry)
        self.truncated = Counter(
            "squeezebert_truncated_texts", "Texts cut to the model's longest input.", registry=self.registry
        )
        self.batches = Histogram(
            "squeezebert_batch_texts",
            "Texts that a worker took from the queue at once.",
            registry=self.registry,
            buckets=_TEXTS,
        )

    def watch(self, queue: Callable[[], int], in_hand: Callable[[], int]) -> None:
        """Report the numbers that `queue` and `in_hand` return at the time they are asked for."""
        Gauge("squeezebert_queue_texts", "Texts waiting for a worker.", registry=self.registry).set_function(queue)
        Gauge(
            "squeezebert_requests_in_hand", "Requests being read, waiting or computed.", registry=self.registry
        ).set_function(in_hand)
