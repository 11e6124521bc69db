"""Grids, limits and byte values against transformers; configs that ask for other pixels."""

import dataclasses
import json

import numpy as np
import pytest

from oracle.transformers_processors import transformers_class
from qwenvis.errors import ConfigError, InputError, LimitError
from qwenvis.processors.image import ImageProcessor

TOWER = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
QWEN2_VL = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}
QWEN3_VL = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessorFast",
}


@pytest.fixture(scope="module")
def hf():
    return transformers_class("qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil")


def configured(config, **limits):
    tower = TOWER | {key: config[key] for key in TOWER if key in config}
    return ImageProcessor.from_config(config, **tower, **limits)


def test_grid_is_the_resized_size_in_patches():
    processor = configured(QWEN2_VL)
    assert processor.resized(450, 630).canvas == (448, 616)
    assert processor.grid(450, 630) == (1, 32, 44)
    assert processor.columns == 1176


@pytest.mark.parametrize(
    "config",
    [
        QWEN2_VL,
        QWEN3_VL,
        {"image_processor_type": "Qwen2VLImageProcessor"},
        {"size": {"shortest_edge": 5000, "longest_edge": 60000}, "min_pixels": 4000},
        {"size": {"shortest_edge": 5000, "longest_edge": 60000}, "max_pixels": 50000, "min_pixels": None},
        {"size": {"longest_edge": 60000}, "min_pixels": 4000},
        {"size": {"min_pixels": 1, "max_pixels": 2}, "min_pixels": 4000, "max_pixels": 50000},
        {"min_pixels": 4000},
        {"max_pixels": 4000, "size": None},
    ],
)
def test_limits_of_a_config_as_in_transformers(hf, config):
    theirs = hf.from_dict(json.loads(json.dumps(config)))
    ours = configured(config)
    assert (ours.min_pixels, ours.max_pixels) == (theirs.size.shortest_edge, theirs.size.longest_edge)


def test_a_size_that_transformers_cannot_use_means_what_it_says():
    processor = configured({"size": {"min_pixels": 4000, "max_pixels": 5000}})
    assert (processor.min_pixels, processor.max_pixels) == (4000, 5000)


def test_limits_given_rule():
    processor = configured(QWEN2_VL, min_pixels=4000, max_pixels=1e6)
    assert (processor.min_pixels, processor.max_pixels) == (4000, 1_000_000)
    assert configured(QWEN2_VL, max_pixels=np.int64(5000)).min_pixels == 3136
    assert processor.with_limits(max_pixels=5000) == dataclasses.replace(processor, max_pixels=5000)
    assert processor.with_limits() == processor


@pytest.mark.parametrize("bad", [0, -1, 0.5, float("nan"), float("inf"), "100", True, 2**63])
def test_limits_given_that_cannot_be(bad):
    with pytest.raises(InputError, match=r"max_pixels is .*; expected a whole number"):
        configured(QWEN2_VL, max_pixels=bad)


def test_limits_given_that_contradict():
    with pytest.raises(InputError, match="min_pixels 3136 of the checkpoint is larger than max_pixels 1000; pass both"):
        configured(QWEN2_VL, max_pixels=1000)


def test_a_missing_config_is_refused_unless_nothing_is_unknown():
    with pytest.raises(ConfigError, match=r"no preprocessor_config\.json"):
        configured({}, max_pixels=10**6)
    assert configured({}, min_pixels=3136, max_pixels=10**6).max_pixels == 10**6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "do_resize = False"),
        ({"do_rescale": False}, "do_rescale = False"),
        ({"do_normalize": False}, "do_normalize = False"),
        ({"resample": 2}, "resample = 2"),
        ({"patch_size": 16}, "patch_size = 16; expected 14, as the tower has it"),
        ({"merge_size": 4}, "merge_size = 4; expected 2"),
        ({"temporal_patch_size": 1}, "temporal_patch_size = 1; expected 2"),
        ({"min_pixels": 0}, "min_pixels = 0"),
        ({"max_pixels": "many"}, "'many'"),
        ({"min_pixels": 10**9}, "min_pixels 1000000000 is larger"),
        (
            {"min_pixels": None, "max_pixels": None, "size": {"height": 28, "width": 28}},
            "expected shortest_edge in it, or min",
        ),
        ({"size": 448}, "size = 448"),
        ({"image_mean": [0.5, 0.5]}, "image_mean = \\[0\\.5, 0\\.5\\]; expected 3 numbers"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean = 'a'"),
        ({"image_mean": float("nan")}, "image_mean = nan"),
        ({"image_std": [0.5, 0, 0.5]}, "infinite"),
        ({"image_std": float("inf")}, "image_std = inf"),
        ({"rescale_factor": 10**400}, "rescale_factor = 1000"),
        ({"rescale_factor": True}, "rescale_factor = True"),
    ],
)
def test_configs_that_ask_for_other_pixels(change, message):
    with pytest.raises(ConfigError, match=message):
        ImageProcessor.from_config(QWEN2_VL | change, **TOWER)


@pytest.mark.parametrize(
    "config",
    [QWEN2_VL, QWEN3_VL, QWEN2_VL | {"image_mean": 0.4, "image_std": 0.3}, QWEN2_VL | {"rescale_factor": 0.004}],
)
def test_lut_bits_as_in_transformers(hf, config):
    theirs = hf.from_dict(dict(config))
    every_byte = np.tile(np.arange(256, dtype=np.uint8), (3, 16, 1))
    expected = theirs.normalize(theirs.rescale(every_byte, theirs.rescale_factor), theirs.image_mean, theirs.image_std)[
        :, 0
    ]
    lut = configured(config).lut
    assert lut.dtype == np.float32
    assert lut.flags.c_contiguous
    assert not lut.flags.writeable
    assert lut.tobytes() == np.ascontiguousarray(expected).tobytes()


def test_a_hostile_config_cannot_make_a_huge_image():
    processor = configured(QWEN2_VL | {"min_pixels": 2**62, "max_pixels": 2**62})
    with pytest.raises(LimitError, match="lower max_pixels"):
        processor.grid(100, 100)
