"""Visual tokens for MLX-VLM, which takes those of images in place of pixels."""

from __future__ import annotations

from typing import Any

from qwenvis.adapters.modalities import checked, items_of
from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError, PackageError, quoted

__all__ = ["arguments"]

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_5")  # whose logits equal those of transformers; of its GLM-4V none do


def arguments(out: Embeddings, *, width: int | None = None) -> dict[str, Any]:
    """Return what ``generate_step(ids, model, mask=None, **arguments(out))`` needs besides the ids.

    - ``out``: the result of `Encoder.encode` for images, which fill the placeholders in order. ``ids`` have a
      placeholder for each token, as `qwenvis.adapters.transformers.inputs` writes them.
    - ``width``: the number of columns that the model takes, its hidden_size, to be checked.

    The result has arrays of MLX: ``cached_image_features`` (tokens, width) in the dtype of ``out``, ``image_grid_thw``
    (items, 3), and ``pixel_values``, one zero that MLX-VLM wants to see and does not read.

    Raises InputError for tokens with deepstack or of another family, for videos, for items that were left out, and
    where `Embeddings.check` does; PackageError without MLX.
    """
    if isinstance(out, Embeddings) and out.deepstack:
        raise InputError(
            f"the tokens have {len(out.deepstack)} levels of deepstack, which MLX-VLM would leave out without an "
            "error, so that its answers would be wrong: let it run its own tower, or use another engine"
        )
    if videos := items_of(checked(out, "MLX-VLM", FAMILIES, width)).get("video"):
        raise InputError(
            f"{quoted(out.sources[videos[0]])} is a video; MLX-VLM takes the tokens of images only, because it does "
            "not read the seconds between temporal steps: let it run its own tower, or use another engine"
        )
    try:
        import mlx.core as mx
    except ImportError as error:
        raise PackageError(f"qwenvis.adapters.mlx_vlm needs MLX: pip install mlx-vlm ({error})") from error
    return {
        "pixel_values": mx.zeros(1),
        "cached_image_features": mx.array(out.embeddings),
        "image_grid_thw": mx.array(out.grid_thw),
    }
