"""What `qwenvis.adapters.dynamo` uses of Dynamo, as it stands in ai-dynamo 1.6.1, for a machine without it.

`test_dynamo.py` compares the names and signatures with those of an installed Dynamo.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

MODULE = "dynamo.vllm.multimodal_utils.custom_encoder"


@dataclass(frozen=True)
class Preprocessed:
    """What `VisionEncoderBackend.preprocess` returns: Dynamo adds costs up to ``max_batch_cost``."""

    item: Any
    cost: int = 1


@dataclass(frozen=True)
class Qwen3VLImageEncoding:
    """What `VisionEncoderBackend.forward_batch` returns for an image."""

    embeddings: Any
    grid_thw: tuple[int, int, int]


class VisionEncoderBackend(ABC):
    """The base class of encoders, which Dynamo makes without arguments."""

    max_batch_cost = None
    buckets = None
    preprocess_concurrency = 0

    @abstractmethod
    def build(self, model_id):
        """Load the weights."""

    def preprocess(self, raw):
        """Prepare an image, outside of the thread of the other methods."""
        return Preprocessed(item=raw)

    @abstractmethod
    def forward_batch(self, items, target_bucket=None):
        """Encode a batch."""

    def close(self):  # noqa: B027
        """Release everything."""
