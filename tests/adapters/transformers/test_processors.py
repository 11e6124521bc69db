"""Prompts as the processors of transformers expand them with pixels: ids, types, grids, times of the same frames."""

import numpy as np
import pytest

from adapters.transformers.pixel_path import encoder, images
from made import video_files
from oracle.full_families import FULL_FAMILIES
from oracle.transformers_models import full_model
from oracle.transformers_processors import Call, needs_torchvision, torchvision_results
from qwenvis.adapters.transformers import inputs

FAMILIES = [family for family, case in FULL_FAMILIES.items() if case.video_processor]
# Times between the tenths of a second that a prompt states, an odd number of frames, and one frame pair alone.
RATES = [1.7, 24.0]
FRAMES = [7, 2]
# This processor passes limits of its own to the video processor, over those of the checkpoint.
LIMITS = {"qwen3_omni_moe": {"min_pixels": 128 * 32 * 32, "max_pixels": 768 * 32 * 32}}


def clips():
    return [video_files.frames(count, 60, 90) for count in FRAMES]


def texts(full):
    return [f"{full.image} and {full.video}", f"{full.video}, at last"]


def call_of(family):
    """What a user calls who knows the rates of videos whose frames are chosen."""
    metadata = [
        {"total_num_frames": count, "fps": rate, "frames_indices": list(range(count))}
        for count, rate in zip(FRAMES, RATES, strict=True)
    ]
    given = {"images": images(1), "videos": clips(), "video_metadata": metadata, "do_sample_frames": False}
    padding = {"padding": True, "padding_side": "left"}
    full = full_model(family)
    return Call("auto.processing_auto.AutoProcessor", full.directory, {"text": texts(full), **given, **padding})


@pytest.fixture(scope="module")
def results():
    return dict(zip(FAMILIES, torchvision_results([call_of(family) for family in FAMILIES]), strict=True))


@needs_torchvision
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_those_of_the_processor(results, family):
    full, want = full_model(family), results[family]
    assert "error" not in want, want
    parts = [encoder(family).encode(images(1))]
    parts += [
        encoder(family).encode(videos=[clip], video_fps=rate, **LIMITS.get(family, {}))
        for clip, rate in zip(clips(), RATES, strict=True)
    ]
    found = inputs(texts(full), parts[0].concatenate(parts), full.processor, full.model)
    del found["mm_encoder_outputs"]
    if "video_second_per_grid" in found:  # the Omni processors take 2 over their argument `fps`, 2 by default
        want["video_second_per_grid"] = [2 / rate for rate in RATES]
    assert found.keys() == want.keys() - {"pixel_values", "pixel_values_videos"}
    for name, value in found.items():
        assert value.numpy().tolist() == np.asarray(want[name], value.numpy().dtype).tolist(), name
