"""Images of every family against the processor that transformers has for it: grids, counts and every bit."""

import functools

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from made.images import assert_same_answer, noise, preprocess
from made.presets import PRESETS
from oracle.families import FAMILIES
from qwenvis import models
from qwenvis.errors import ConfigError
from qwenvis.processors.image import TYPES, processor_class
from qwenvis.sources.presets import PRESETS as PUBLISHED

# Single pixels and lines, ties, whole units, both sides of the class's limits, narrow strips, a photograph.
SIZES = [(1, 1), (3, 150), (150, 3), (14, 42), (70, 98), (56, 112), (64, 160), (111, 113), (119, 97), (333, 222)]
SIZES += [(20, 2000), (700, 900), (1300, 1700)]


def named(family):
    """The class that AutoImageProcessor chooses; where it has none, the one that published configs name."""
    published = PUBLISHED[PRESETS[family]].preprocessor["image_processor_type"].removesuffix("Fast")
    return IMAGE_PROCESSOR_MAPPING_NAMES.get(family, {}).get("torchvision", published)


def transformers_class(family):
    """The class of transformers that prepares images with Pillow."""
    return getattr(transformers, f"{named(family)}Pil")


def configs(family):
    """The class's defaults, what the Hub has, and limits that enlarge nearly all images, or shrink them."""
    published = PUBLISHED[PRESETS[family]].preprocessor
    sizes = {key: published[key] for key in ("patch_size", "temporal_patch_size", "merge_size")}
    kind = {"image_processor_type": named(family)}
    narrow = {"size": {"shortest_edge": 20000, "longest_edge": 60000}}
    if family == "glm5_next":
        narrow = {"min_image_tokens": 30, "max_image_tokens": 40}
    return {"class": sizes | kind, "published": published, "narrow": sizes | kind | narrow}


def configured(family, config):
    names = ("patch_size", "temporal_patch_size", "merge_size")
    return processor_class(family, config).from_config(config, **{name: config[name] for name in names})


@functools.cache
def processors(family, kind):
    """Ours and transformers', from the same config."""
    config = configs(family)[kind]
    return configured(family, config), transformers_class(family).from_dict(dict(config))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["class", "published", "narrow"])
def test_p01_bits_of_every_family(family, kind):
    """Of several families with the same processor of transformers, the first has the bits, the others its processor."""
    processor, theirs = processors(family, kind)
    first = next(each for each in FAMILIES if processors(each, kind)[1].to_dict() == theirs.to_dict())
    if first != family:
        ours, same = processors(first, kind)
        assert (type(processor), processor, type(theirs)) == (type(ours), ours, type(same))
        return
    images = [Image.fromarray(noise(*size)) for size in SIZES]
    assert_same_answer(preprocess(images, processor), theirs(images=images))
    for size in SIZES:
        assert np.prod(processor.grid(*size)) == theirs.get_number_of_image_patches(*size)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_state_what_transformers_chooses(family):
    stated = models.FAMILIES[family].processors
    assert stated.image.removesuffix("Fast") == named(family)
    if family in CONFIG_MAPPING_NAMES:
        assert stated.auto == (family in IMAGE_PROCESSOR_MAPPING_NAMES)


@pytest.mark.parametrize("spelling", ["", "Fast", "Pil"])
@pytest.mark.parametrize("name", TYPES)
def test_a_config_names_its_processor(name, spelling):
    assert processor_class("qwen2_vl", {"image_processor_type": name + spelling}) is TYPES[name]
    assert processor_class("glm4v", {"image_processor_type": name + spelling}) is TYPES[name]


@pytest.mark.parametrize("name", ["CLIPImageProcessor", "Glm4vImageProcessorSlow", "", 7])
def test_unknown_names(name):
    with pytest.raises(ConfigError, match=r"image_processor_type = .*; expected (Qwen2VLImageProcessor or |a string)"):
        processor_class("glm4v", {"image_processor_type": name})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_config_where_the_class_does_not_tell_mean_and_std(family):
    sizes = {name: configs(family)["class"][name] for name in ("patch_size", "temporal_patch_size", "merge_size")}
    limits = {"min_pixels": 3136, "max_pixels": 10**6}
    if models.FAMILIES[family].processors.class_normalisation:
        assert processor_class(family, {}).from_config({}, **sizes, **limits).max_pixels == 10**6
        published = PUBLISHED[PRESETS[family]].preprocessor
        assert configured(family, published).normalisation == configured(family, configs(family)["class"]).normalisation
    else:
        with pytest.raises(
            ConfigError, match=r"no preprocessor_config.json .* mean and std are unknown; copy the file"
        ):
            processor_class(family, {})


def test_limits_of_a_volume_stand_in_size_alone():
    config = configs("glm4v")["narrow"]
    given = configured("glm4v", config | {"min_pixels": 1, "max_pixels": 2})
    assert given == configured("glm4v", config)
    theirs = transformers_class("glm4v").from_dict(config | {"min_pixels": 1, "max_pixels": 2})
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
