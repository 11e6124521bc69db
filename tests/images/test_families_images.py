"""Images of every family against the processor that transformers has for it: grids, counts and every bit."""

import numpy as np
import pytest
from PIL import Image

from made.images import assert_same_answer, noise, preprocess
from made.presets import PRESETS
from oracle.transformers_processors import judge
from qwenvis.errors import ConfigError
from qwenvis.models import FAMILIES
from qwenvis.processors.image import PROCESSORS, TYPES, processor_class
from qwenvis.sources.presets import PRESETS as PUBLISHED

QWEN2_VL = "qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessor"
GLM4V = "glm4v.image_processing_pil_glm4v.Glm4vImageProcessor"
GLM46V = "glm46v.image_processing_pil_glm46v.Glm46VImageProcessor"
# transformers.models.auto.image_processing_auto, and the types that published preprocessor configs name.
JUDGES = {
    **dict.fromkeys(["qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "exaone4_5", "qwen3_vl", "qwen3_vl_moe"], QWEN2_VL),
    **dict.fromkeys(["qwen3_omni_moe", "qwen3_5", "qwen3_5_moe", "qwen4_exp"], QWEN2_VL),
    "cohere_compass": "cohere_compass.image_processing_pil_cohere_compass.CohereCompassImageProcessor",
    "glm4v": GLM4V,
    "glm4v_moe": GLM4V,
    "glm46v": GLM46V,
    "glm_ocr": GLM46V,
    "glm5_next": "glm5_next.image_processing_pil_glm5_next.Glm5NextImageProcessor",
    "paddleocr_vl": "paddleocr_vl.image_processing_pil_paddleocr_vl.PaddleOCRVLImageProcessor",
}
# Single pixels and lines, ties, whole units, both sides of the class's limits, narrow strips, a photograph.
SIZES = [(1, 1), (3, 150), (150, 3), (14, 42), (70, 98), (56, 112), (64, 160), (111, 113), (119, 97), (333, 222)]
SIZES += [(20, 2000), (700, 900), (1300, 1700)]


def configs(family):
    """The class's defaults, what the Hub has, and limits that enlarge nearly all images, or shrink them."""
    published = PUBLISHED[PRESETS[family]].preprocessor
    sizes = {key: published[key] for key in ("patch_size", "temporal_patch_size", "merge_size")}
    kind = {"image_processor_type": JUDGES[family].rpartition(".")[2]}
    narrow = {"size": {"shortest_edge": 20000, "longest_edge": 60000}}
    if family == "glm5_next":
        narrow = {"min_image_tokens": 30, "max_image_tokens": 40}
    return {"class": sizes | kind, "published": published, "narrow": sizes | kind | narrow}


def configured(family, config):
    names = ("patch_size", "temporal_patch_size", "merge_size")
    return processor_class(family, config).from_config(config, **{name: config[name] for name in names})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["class", "published", "narrow"])
def test_p01_bits_of_every_family(family, kind):
    config = configs(family)[kind]
    processor, theirs = configured(family, config), judge(JUDGES[family] + "Pil").from_dict(dict(config))
    images = [Image.fromarray(noise(*size)) for size in SIZES]
    assert_same_answer(preprocess(images, processor), theirs(images=images))
    for size in SIZES:
        assert np.prod(processor.grid(*size)) == theirs.get_number_of_image_patches(*size)


def test_every_family_has_a_processor():
    assert PROCESSORS.keys() == FAMILIES.keys() == JUDGES.keys()
    for family, name in JUDGES.items():
        assert issubclass(PROCESSORS[family], TYPES[name.rpartition(".")[2]])


@pytest.mark.parametrize("spelling", ["", "Fast", "Pil"])
@pytest.mark.parametrize("name", TYPES)
def test_a_config_names_its_processor(name, spelling):
    assert processor_class("qwen2_vl", {"image_processor_type": name + spelling}) is TYPES[name]
    assert processor_class("glm4v", {"image_processor_type": name + spelling}) is TYPES[name]


@pytest.mark.parametrize("name", ["CLIPImageProcessor", "Glm4vImageProcessorSlow", "", 7])
def test_unknown_names(name):
    with pytest.raises(ConfigError, match=r"image_processor_type = .*; expected (Qwen2VLImageProcessor or |a text)"):
        processor_class("glm4v", {"image_processor_type": name})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_config_where_the_class_does_not_tell_mean_and_std(family):
    sizes = {name: configs(family)["class"][name] for name in ("patch_size", "temporal_patch_size", "merge_size")}
    limits = {"min_pixels": 3136, "max_pixels": 10**6}
    if PROCESSORS[family].usual:
        assert PROCESSORS[family].from_config({}, **sizes, **limits).max_pixels == 10**6
        published = PUBLISHED[PRESETS[family]].preprocessor
        assert configured(family, published).normalisation == configured(family, configs(family)["class"]).normalisation
    else:
        with pytest.raises(
            ConfigError, match=r"no preprocessor_config.json .* mean and std are unknown; copy the file"
        ):
            PROCESSORS[family].from_config({}, **sizes, **limits)


def test_limits_of_a_volume_stand_in_size_alone():
    config = configs("glm4v")["narrow"]
    given = configured("glm4v", config | {"min_pixels": 1, "max_pixels": 2})
    assert given == configured("glm4v", config)
    theirs = judge(GLM4V + "Pil").from_dict(config | {"min_pixels": 1, "max_pixels": 2})
    assert (given.min_pixels, given.max_pixels) == (theirs.size["shortest_edge"], theirs.size["longest_edge"])
    with pytest.raises(ConfigError, match=r"expected longest_edge in it$"):
        configured("glm4v", config | {"size": {"shortest_edge": 5}, "max_pixels": 2})


def test_limits_in_tokens():
    config = configs("glm5_next")["class"]
    assert configured("glm5_next", config | {"max_image_tokens": 100}).max_pixels == 100 * 2 * 28**2
    assert configured("glm5_next", config | {"size": {"longest_edge": 1}}) == configured("glm5_next", config)
    with pytest.raises(ConfigError, match="min_image_tokens 200 is larger than max_image_tokens 100"):
        configured("glm5_next", config | {"min_image_tokens": 200, "max_image_tokens": 100})


def test_what_is_added_to_an_image_is_black():
    processor = configured("glm5_next", configs("glm5_next")["class"])
    batch = preprocess([np.full((157, 200, 3), 255, np.uint8)], processor)
    assert batch.grid_thw.tolist() == [[1, 12, 16]]
    black, white = np.isin(batch.pixel_values, processor.lut[:, 0]), np.isin(batch.pixel_values, processor.lut[:, 255])
    assert (black | white).all()
    assert white.sum() == 157 * 200 * 3 * 2
