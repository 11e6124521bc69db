"""Each rule of resizing against transformers': every small size, random large ones, ties, ratios."""

import numpy as np
import pytest

from oracle.transformers_processors import transformers_class
from qwenvis.errors import ImageError
from qwenvis.processors import smart_resize as our_rules


def smart_resize(module):
    return transformers_class(f"{module}.smart_resize")


def qwen2_vl(size, factor, limits):
    return smart_resize("qwen2_vl.image_processing_pil_qwen2_vl")(*size, factor, *limits)


def compass(size, factor, limits):
    return smart_resize("cohere_compass.image_processing_pil_cohere_compass")(*size, factor, *limits)


def paddle(size, factor, limits):
    return smart_resize("paddleocr_vl.image_processing_pil_paddleocr_vl")(*size, factor, *limits)


def glm4v(size, factor, limits):
    return smart_resize("glm4v.image_processing_pil_glm4v")(2, *size, 2, factor, *limits)


def glm46v(size, factor, limits):
    return smart_resize("glm46v.image_processing_pil_glm46v")(2, *size, 2, factor, *limits)


def qwen3_vl_video(size, factor, limits):
    return smart_resize("qwen3_vl.video_processing_qwen3_vl")(7, *size, 2, factor, *limits)


def glm5_next(size, factor, limits):
    tokens = [limit // (2 * factor**2) for limit in limits]
    return smart_resize("glm5_next.image_processing_pil_glm5_next")(2, *size, 2, factor, *tokens)


def area(size, factor, limits):
    return our_rules.area(*size, factor, *limits)


def lifted(size, factor, limits):
    return our_rules.lifted(*size, factor, *limits)


def still(size, factor, limits):
    return our_rules.volume(2, *size, (2, factor), *limits)


def clip(size, factor, limits):
    return our_rules.volume(7, *size, (2, factor), *limits)


def canvas(size, factor, limits):
    return our_rules.canvas(2, *size, (2, factor), *limits)


# Ours, transformers', the factor, the limits: those of the classes and of published checkpoints, and narrow ones.
CASES = {
    "qwen2_vl class": (area, qwen2_vl, 28, (3136, 1003520)),
    "qwen2_vl published": (area, qwen2_vl, 28, (3136, 12845056)),
    "qwen2_vl narrow": (area, qwen2_vl, 28, (20000, 20000)),
    "qwen2_vl one unit": (area, qwen2_vl, 28, (1, 784)),
    "qwen3_vl published": (area, qwen2_vl, 32, (65536, 16777216)),
    "compass": (area, compass, 32, (3136, 1003520)),
    "paddle class": (lifted, paddle, 28, (147456, 2359296)),
    "paddle narrow": (lifted, paddle, 28, (9000, 60000)),
    "glm4v class": (still, glm4v, 28, (12544, 11760000)),
    "glm4v narrow": (still, glm4v, 28, (30000, 60000)),
    "glm46v": (still, glm46v, 28, (12544, 9633792)),
    "qwen3_vl video": (clip, qwen3_vl_video, 32, (131072, 786432)),
    "glm5_next class": (canvas, glm5_next, 28, (16 * 1568, 8000 * 1568)),
    "glm5_next narrow": (canvas, glm5_next, 28, (20 * 1568, 40 * 1568)),
}
EVERY = ["qwen2_vl class", "qwen2_vl narrow", "qwen3_vl published", "paddle class", "glm4v class", "glm5_next class"]
RULES = {"area": (area, qwen2_vl), "lifted": (lifted, paddle), "volume": (still, glm4v)}
rules = pytest.mark.parametrize(("ours", "theirs"), RULES.values(), ids=RULES)


def answer(rule, size, factor, limits):
    """What a rule makes of a size; why, where it refuses it."""
    try:
        return rule(size, factor, limits)
    except ValueError as error:
        return str(error).partition(": the image")[0]  # ours says more


@pytest.mark.parametrize("case", EVERY)
@pytest.mark.parametrize("share", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_p02_every_small_size_as_in_transformers(case, share):
    """By default on every ninth diagonal, where each side meets every ninth of the others."""
    ours, theirs, *rest = CASES[case]
    for height in range(1, 513):
        for width in range(1 + height % share, 513, share):
            size = height, width
            assert answer(ours, size, *rest) == answer(theirs, size, *rest), size


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("largest", [512, 40000])
def test_p02_random_sizes_as_in_transformers(case, largest):
    ours, theirs, *rest = CASES[case]
    refused = 0
    for size in np.exp(np.random.default_rng(2).uniform(0, np.log(largest), (4000, 2))).astype(int).tolist():
        got = answer(ours, size, *rest)
        assert got == answer(theirs, size, *rest), size
        refused += isinstance(got, str)
    assert (refused > 0) is (ours is not canvas)


def test_p02_ties_round_to_even():
    # 0.5, 1.5, 2.5, 3.5 factors become 0, 2, 2, 4; a side of 0 grows again by min_pixels.
    assert [our_rules.area(560, side, 28, 1, 10**7)[1] for side in (14, 42, 70, 98)] == [28, 56, 56, 112]


@rules
def test_p02_ratio(ours, theirs):
    for size in [(28, 5600), (5600, 28), (140, 28000)]:
        assert ours(size, 28, (3136, 10**6)) == theirs(size, 28, (3136, 10**6))
    with pytest.raises(ValueError, match="absolute aspect ratio") as theirs_says:
        theirs((5628, 28), 28, (3136, 10**6))
    with pytest.raises(ImageError, match="5628 x 28") as ours_says:
        ours((5628, 28), 28, (3136, 10**6))
    assert str(ours_says.value).startswith(str(theirs_says.value))


def test_too_few_frames_as_in_transformers():
    theirs = smart_resize("glm4v.image_processing_pil_glm4v")
    with pytest.raises(ValueError, match="must be larger") as theirs_says:
        theirs(1, 50, 50, 2)
    with pytest.raises(ImageError) as ours_says:
        our_rules.volume(1, 50, 50, (2, 28), 1, 10**6)
    assert str(ours_says.value) == str(theirs_says.value)


def test_a_canvas_that_holds_no_unit_as_in_transformers():
    with pytest.raises(ValueError, match="too small") as theirs_says:
        smart_resize("glm5_next.image_processing_pil_glm5_next")(2, 50, 50, 2, 28, 0, 0)
    with pytest.raises(ImageError) as ours_says:
        our_rules.canvas(2, 50, 50, (2, 28), 0, 0)
    assert str(ours_says.value) == str(theirs_says.value)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("rule", [area, lifted, still, canvas])
def test_no_pixels(rule, size):
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]}"):
        rule(size, 28, (3136, 10**6))
