"""A checkpoint in memory: the weights of a tower that another library has loaded, and may have changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qwenvis.checkpoints.checkpoint import Checkpoint, Progress
from qwenvis.errors import CheckpointError, shown
from qwenvis.weights import Request


@dataclass(frozen=True, kw_only=True)
class InMemory(Checkpoint):
    """A checkpoint without files. ``arrays`` returns each tensor of the tower as a contiguous array, when asked."""

    arrays: Mapping[str, Callable[[], np.ndarray]]

    def load(self, requests: Sequence[Request], progress: Progress | None = None) -> None:
        """Serve every request with its array, one at a time.

        ``progress(tensors_done, tensors_total)`` is called after each tensor. Raises CheckpointError where the arrays
        are not those of the tower, or where one is not finite.
        """
        self._compare(requests)
        for done, request in enumerate(requests, 1):
            try:
                request.receive(self.arrays[request.name]())
            except FloatingPointError as error:
                raise CheckpointError(f"{self.path}: {shown(request.name)} is not finite") from error
            if progress is not None:
                progress(done, len(requests))
