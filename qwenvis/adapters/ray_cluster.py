"""The CPUs of a Ray cluster, of which the tasks that read a dataset need one."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

from qwenvis.errors import InputError, checked_integer, counted

PATIENCE = 60.0  # seconds without a batch after which an actor looks for the reason

logger = logging.getLogger(__name__)


def cpus_of_an_actor(actors: int, num_cpus: int | None) -> int:
    """Return ``num_cpus``, or by default an equal share of all CPUs but one, at most those of the largest machine.

    Raises InputError if actors of so many CPUs would leave none to the readers, or would fit no machine.
    """
    import ray

    total, largest = int(ray.cluster_resources().get("CPU", 0)), _largest_machine(ray.nodes())
    if num_cpus is None:
        return min(max(total - 1, 0) // actors, largest)  # 0 is allowed: such an actor has one thread
    cpus = checked_integer(num_cpus, "num_cpus", 0)
    asked = f"{counted(actors, 'actor')} of {counted(cpus, 'CPU')}"
    if cpus > largest:
        raise InputError(f"{asked}: the largest machine of the Ray cluster has {counted(largest, 'CPU')}")
    if cpus and actors * cpus >= total:
        raise InputError(
            f"{asked} would take all of Ray's {counted(total, 'CPU')}, and the tasks that read the rows would wait for "
            "ever: ask for fewer, or start Ray with more CPUs (ray.init(num_cpus=...)); they are a count, not cores"
        )
    return cpus


def _largest_machine(nodes: list[dict[str, Any]]) -> int:
    return max((int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]), default=0)


class StarvationWatch:
    """Logs a warning if this actor gets no batch, and no CPU of the cluster is free for a task that reads one."""

    def __init__(self) -> None:
        self._timer = threading.Timer(PATIENCE, self._look)
        self._timer.daemon = True
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            self._timer.start()

    def stop(self) -> None:
        """End the watch: a batch came."""
        self._timer.cancel()

    @staticmethod
    def _look() -> None:
        if sys.modules["ray"].available_resources().get("CPU", 0) < 1:
            logger.warning(
                "no batch has come for %d seconds, and no CPU of the Ray cluster is free: if actors hold all of them, "
                "the tasks that read the rows wait for ever; use fewer actors, or qwenvis.adapters.ray_data.encode",
                PATIENCE,
            )
