"""The metrics of a service, for Prometheus, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # bounds of the histograms


class Metrics:
    """What is counted while requests are served."""

    def __init__(self) -> None:
        self.registry = into = CollectorRegistry()
        ProcessCollector(registry=into)  # memory, descriptors, CPU time; on Linux only
        self.requests = Counter("qwenvis_requests", "Requests by path and status", ["path", "status"], registry=into)
        self.items = Counter("qwenvis_items", "Images and videos that were encoded", registry=into)
        self.tokens = Counter("qwenvis_tokens", "Tokens of the items that were encoded", registry=into)
        self.queue_items = Gauge("qwenvis_queue_items", "Items that wait to be encoded", registry=into)
        self.queue_patches = Gauge("qwenvis_queue_patches", "Patches of these items", registry=into)
        self.memory = Gauge("qwenvis_held_bytes", "Bytes that the requests in the service hold", registry=into)
        text = "Time that an item waited in the queue"
        self.queue_seconds = Histogram("qwenvis_queue_seconds", text, registry=into, buckets=SECONDS)
        text = "Time in which a batch was encoded"
        self.encode_seconds = Histogram("qwenvis_encode_seconds", text, registry=into, buckets=SECONDS)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
