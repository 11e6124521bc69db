"""The vision encoder of a Dynamo worker: ``--custom-encoder-class qwenvis.adapters.dynamo.VisionEncoder``.

This module imports Dynamo, and with it vLLM; ``import qwenvis`` does not. Raises PackageError without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from qwenvis.embeddings.convert import to_torch
from qwenvis.encoder import Encoder
from qwenvis.encoding.batching import Batch
from qwenvis.errors import PackageError
from qwenvis.geometry import PATCH_BUDGET
from qwenvis.io.data_urls import decoded_url

try:
    from dynamo.vllm.multimodal_utils.custom_encoder import Preprocessed, Qwen3VLImageEncoding, VisionEncoderBackend
except ImportError as error:
    raise PackageError(
        f"qwenvis.adapters.dynamo needs Dynamo for vLLM: pip install 'ai-dynamo[vllm]' ({error})"
    ) from error


class VisionEncoder(VisionEncoderBackend):  # type: ignore[misc]
    """The tower of the served model, which runs in the Dynamo worker on the CPU.

    Dynamo calls `preprocess` for one image while `forward_batch` runs for others. It takes such encoders for Qwen3-VL
    and Qwen3.5, dense or with experts, and for images only.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    """Arguments of `Encoder.from_pretrained`, such as a ``cache``, for a subclass to set."""

    preprocess_concurrency: int = 1
    max_batch_cost: int | None = PATCH_BUDGET

    def build(self, model_id: str) -> None:
        """Load the tower of the served model. Raises the errors of `Encoder.from_pretrained`."""
        self.encoder = Encoder.from_pretrained(model_id, **self.options)

    def image(self, raw: str) -> bytes:
        """Return the bytes of an image, a base64 ``data:`` URL; a subclass may fetch those of other URLs.

        Raises ImageError, whose message Dynamo sends to the client.
        """
        return decoded_url(raw, "image")

    def preprocess(self, raw: str) -> Any:
        """Return the patches of an image, and their number as the cost.

        An image above the budget costs as much as the budget, so that it goes alone: Dynamo refuses larger costs.

        Raises ImageError or LimitError for an image that cannot be used, which fails the request of this image alone.
        """
        batch = self.encoder.preprocess(self.image(raw))
        return Preprocessed(item=batch, cost=min(len(batch.pixel_values), PATCH_BUDGET))

    def forward_batch(self, items: Sequence[Batch], target_bucket: int | None = None) -> list[Any]:
        """Return an encoding for each image: the tokens with deepstack beside them, (tokens, W), and the grid.

        Raises NumericalError if the tower computes NaN or infinity, which fails the requests of the batch as an error
        of the server.
        """
        out = self.encoder(*map(np.concatenate, zip(*items, strict=True)))
        return [Qwen3VLImageEncoding(to_torch(item.wide()), tuple(item.grid_thw[0].tolist())) for item in out]

    def close(self) -> None:
        """Drop the weights."""
        del self.encoder
