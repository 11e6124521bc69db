"""Prompts with pixels for the tiny full models, as a processor of transformers returns them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from oracle.full_families import FULL_FAMILIES
from oracle.transformers_models import full_model
from qwenvis import Encoder
from qwenvis.adapters.transformers import inputs

Sizes = tuple[tuple[int, ...], ...]
IMAGES: Sizes = ((84, 112), (56, 140))  # heights and widths
VIDEO: Sizes = ((4, 84, 56),)  # frames, heights and widths
# The models of these families take images and videos in one call only if both are encoded before.
APART = ("glm4v", "glm46v", "glm4v_moe", "glm_ocr")


@functools.cache
def encoder(family: str) -> Encoder:
    """Load the tower of a tiny full model."""
    return Encoder.from_pretrained(full_model(family).directory, threads=1)


def cases(family: str) -> dict[str, dict[str, Any]]:
    """Return the prompts that a family takes, as arguments of `pixel_inputs`."""
    found: dict[str, dict[str, Any]] = {
        "text": {},
        "image": {"images": IMAGES[:1]},
        "images": {"images": IMAGES},
        "batch": {"images": IMAGES, "prompts": 2},
    }
    if FULL_FAMILIES[family].video_processor:
        found["video"] = {"videos": VIDEO}
        if family not in APART:
            found["both"] = {"images": IMAGES[:1], "videos": VIDEO}
    return found


def pixel_inputs(family: str, images: Sizes = (), videos: Sizes = (), prompts: int = 1) -> dict[str, Any]:
    """Return the arguments of ``generate`` for random images and videos of these sizes, in each of some prompts."""
    full, tower, rng = full_model(family), encoder(family), np.random.default_rng(0)
    pictures, films = ([rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes * prompts] for sizes in (images, videos))
    rate = {"video_fps": 2.0} if films else {}
    out = tower.encode(pictures, videos=films, **rate) if pictures or films else None
    text = f"See {full.image * len(images)}{full.video * len(videos)} and say"
    given = dict(inputs([text + " more" * n for n in range(prompts)], out, full.processor, full.model))
    given.pop("mm_encoder_outputs", None)
    if pictures:
        given["pixel_values"] = torch.from_numpy(tower.preprocess(pictures).pixel_values)
    if films:
        given["pixel_values_videos"] = torch.from_numpy(tower.preprocess(videos=films, **rate).pixel_values)
    if pictures and family == "paddleocr_vl":  # its processor keeps the axes of a patch
        side = tower.config.patch_size
        given["pixel_values"] = given["pixel_values"].unflatten(1, (3, side, side))
    return given
