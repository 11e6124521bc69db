"""Visual tokens for SGLang's offline engine, which takes them in place of images and videos."""

from __future__ import annotations

from typing import Any

from qwenvis.adapters.modalities import check_times, checked, items_of
from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.convert import to_torch

__all__ = ["arguments"]

# Those of its QwenVLImageProcessor.
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
TIMED = "qwen2_5_vl"  # the family whose positions in a video follow from the seconds; in Qwen3-VL they are an error


def arguments(out: Embeddings, *, width: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return ``image_data`` and ``video_data`` for ``Engine.generate(input_ids=ids, **arguments(out))``.

    - ``out``: the result of `Encoder.encode`: its images fill the placeholders of images in order, and its videos those
      of videos. ``ids`` have a placeholder for each token, as `qwenvis.adapters.transformers.inputs` writes them.
    - ``width``: the number of columns that the model takes, hidden_size * (1 + levels of deepstack), to be checked.

    Each list has one dict: ``precomputed_embeddings`` (tokens, W), which is `Embeddings.wide` as a tensor;
    ``image_grid_thw`` or ``video_grid_thw`` (items, 3) int64; and ``second_per_grid_ts`` of videos of Qwen2.5-VL.

    Raises InputError where `Embeddings.check` does, for items that were left out, for tokens of a family that SGLang
    cannot take, and for videos of Qwen2.5-VL without times; PackageError without PyTorch.
    """
    numbers = items_of(checked(out, "SGLang", FAMILIES, width))
    seconds = {}
    if "video" in numbers and out.provenance["family"] == TIMED:
        videos = out[numbers["video"]]
        check_times(videos)
        # SGLang looks for them in the first dict of a request, which is that of the images, if there are any
        seconds["second_per_grid_ts"] = videos.second_per_grid_ts.tolist()
    return {f"{name}_data": [{**_data(out[chosen], name), **seconds}] for name, chosen in numbers.items()}


def _data(out: Embeddings, modality: str) -> dict[str, Any]:
    """Return the dict of the images or of the videos of a prompt.

    SGLang's other format, "precomputed_embedding", goes through the tower of Qwen2-VL and Qwen3-VL like pixels. There
    is no ``hash``: SGLang hashes the tokens itself.
    """
    return {
        "format": "processor_output",
        "modality": modality,
        "precomputed_embeddings": to_torch(out.wide()),
        f"{modality}_grid_thw": to_torch(out.grid_thw),
    }
