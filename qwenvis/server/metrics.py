"""The metrics of a service, for Prometheus, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # bounds of the histograms


class Metrics:
    """What is counted while requests are served."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, descriptors, CPU time; on Linux only
        made = {"registry": self.registry}
        self.requests = Counter("qwenvis_requests", "Requests by path and status", ["path", "status"], **made)
        self.items = Counter("qwenvis_items", "Images and videos that were encoded", **made)
        self.tokens = Counter("qwenvis_tokens", "Tokens of the items that were encoded", **made)
        self.queue_items = Gauge("qwenvis_queue_items", "Items that wait to be encoded", **made)
        self.queue_patches = Gauge("qwenvis_queue_patches", "Patches of the items that wait to be encoded", **made)
        self.memory = Gauge("qwenvis_held_bytes", "Bytes that the requests in the service hold", **made)
        times = {"registry": self.registry, "buckets": SECONDS}
        self.queue_seconds = Histogram("qwenvis_queue_seconds", "Time that an item waited in the queue", **times)
        self.encode_seconds = Histogram("qwenvis_encode_seconds", "Time in which a batch was encoded", **times)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
