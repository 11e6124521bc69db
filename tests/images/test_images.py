"""``pixel_values`` and ``grid_thw`` against transformers, bit by bit; and many images at once."""

import numpy as np
import pytest
from PIL import Image

from made.images import assert_same_answer, noise, png, preprocess, stills
from oracle.transformers_processors import transformers_class
from qwenvis.errors import ImageError, LimitError
from qwenvis.images.image import ImageItem, resized_step
from qwenvis.processors.image import ImageProcessor

TOWER = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
SMALL = {"min_pixels": 3136, "max_pixels": 100352}
AS_EDGES = {"size": {"shortest_edge": 20000, "longest_edge": 60000}}
QWEN3_VL = {
    "patch_size": 16,
    "size": {"shortest_edge": 4096, "longest_edge": 80000},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}

# Height, width: single pixels and lines, the ratio limit, ties of the rounding, multiples of the factor (no resize),
# each side of the limits of SMALL, and photographs.
SIZES = [
    *[(1, 1), (1, 200), (200, 1), (2, 3), (13, 14), (14, 14), (14, 42), (27, 28), (29, 57)],
    *[(42, 70), (70, 98), (70, 126), (98, 182), (56, 56), (84, 112), (112, 84), (28, 112), (224, 448)],
    *[(55, 57), (56, 55), (316, 317), (317, 318), (316, 318), (5, 1000), (1000, 6), (640, 480), (720, 1280)],
]


@pytest.fixture(scope="module")
def hf():
    return transformers_class("qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil")


@pytest.fixture
def processor():
    return configured(SMALL)


def configured(config, **limits):
    tower = TOWER | {key: config[key] for key in TOWER if key in config}
    return ImageProcessor.from_config(config, **tower, **limits)


@pytest.mark.parametrize("config", [SMALL, AS_EDGES, QWEN3_VL], ids=["pixels", "edges", "qwen3-vl"])
def test_p01_bits_as_in_transformers(hf, config):
    arrays = [noise(*size) for size in SIZES]
    theirs = hf.from_dict(dict(config))
    expected = theirs(images=[Image.fromarray(array) for array in arrays])
    assert_same_answer(preprocess([Image.fromarray(array) for array in arrays], configured(config)), expected)
    assert_same_answer(preprocess(arrays, configured(config)), expected)
    assert_same_answer(preprocess([png(array) for array in arrays], configured(config)), expected)


def test_p01_bits_of_random_sizes(hf, processor):
    sides = np.exp(np.random.default_rng(1).uniform(0, np.log(900), (40, 2))).astype(int)
    sides = [(height, width) for height, width in sides.tolist() if max(height, width) <= 200 * min(height, width)]
    theirs = hf.from_dict(dict(SMALL))
    for height, width in sides:
        image = Image.fromarray(noise(height, width))
        assert_same_answer(preprocess([image], processor), theirs(images=[image]))


def test_p01_bits_of_paths(hf, processor, tmp_path):
    paths = []
    for size in [(70, 98), (333, 222)]:
        for kind in ("png", "jpg", "webp"):
            paths.append(tmp_path / f"{size[0]}.{kind}")
            Image.fromarray(noise(*size)).save(paths[-1])
    theirs = hf.from_dict(dict(SMALL))
    expected = theirs(images=theirs.fetch_images([str(path) for path in paths]))
    assert_same_answer(preprocess(paths, processor), expected)
    assert_same_answer(preprocess([path.read_bytes() for path in paths], processor), expected)


def test_p01_bits_of_arrays_and_alpha(hf, processor):
    rgba = np.dstack([noise(70, 98), noise(70, 98, 1)[..., 0]])
    theirs = hf.from_dict(dict(SMALL))
    for source in (noise(70, 98), rgba, Image.fromarray(rgba), Image.fromarray(rgba).convert("LA")):
        assert_same_answer(preprocess([source], processor), theirs(images=[source]))


@pytest.mark.parametrize(
    "limits", [{"min_pixels": 50000}, {"max_pixels": 30000}, {"min_pixels": 9e4, "max_pixels": 1e5}]
)
def test_p01_bits_with_limits_given(hf, limits):
    arrays = [noise(60, 90), noise(333, 222)]
    theirs = hf.from_dict(SMALL | {key: int(value) for key, value in limits.items()})
    assert_same_answer(preprocess(arrays, configured(SMALL, **limits)), theirs(images=arrays))


def test_p05_alone_and_in_any_order(processor):
    arrays = [noise(*size) for size in [(70, 98), (14, 200), (333, 222)]]
    alone = [preprocess([array], processor).pixel_values for array in arrays]
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 0]):
        pixel_values, grid_thw = preprocess([arrays[i] for i in order], processor)
        assert np.array_equal(pixel_values, np.concatenate([alone[i] for i in order]))
        assert grid_thw.tolist() == [list(still.grid) for still in stills([arrays[i] for i in order], processor)]


def test_patches_into_a_given_array(processor):
    image = Image.fromarray(noise(70, 98))
    step = resized_step(image, processor.resized(image.height, image.width), processor)
    out = np.full((4 * 8, processor.columns), np.nan, np.float32)
    assert step.cut(out) is out
    assert step.grid == (1, 4, 8)
    assert np.array_equal(out, preprocess([image], processor).pixel_values)


def test_no_images(processor):
    pixel_values, grid_thw = preprocess([], processor)
    assert pixel_values.shape == (0, 1176)
    assert grid_thw.shape == (0, 3)


def test_planning_decodes_nothing(processor, monkeypatch):
    def fail(image):
        raise AssertionError("decoded")

    sources = [png(noise(70, 98)), noise(333, 222)]
    expected = [processor.grid(70, 98), processor.grid(333, 222)]
    monkeypatch.setattr(Image.Image, "load", fail)
    assert [still.grid for still in stills(sources, processor)] == expected


def test_all_bad_images_are_listed_before_one_is_decoded(processor, monkeypatch):
    monkeypatch.setattr("qwenvis.images.image.decode", None)
    sources = [noise(70, 98), "none.jpg", noise(1, 201), b"no image", noise(70, 98)]
    with pytest.raises(ImageError, match=r"^3 of 5 images cannot be used:\n") as caught:
        preprocess(sources, processor)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  image 1 ('none.jpg'): there is no such file"
    assert "image 2 (array of shape (1, 201, 3), uint8): absolute aspect ratio must be smaller than 200" in lines[2]
    assert "image 3 (8 bytes) is not an image" in lines[3]
    with pytest.raises(ImageError, match=r"^image 0 \('none.jpg'\): there is no such file$"):
        stills(["none.jpg"], processor)


def test_a_long_list_of_bad_images_is_cut(processor):
    with pytest.raises(ImageError, match=r"and 80 more$") as caught:
        stills(["none.jpg"] * 100, processor)
    assert len(str(caught.value).splitlines()) == 22


def test_p11_limits(processor, monkeypatch):
    monkeypatch.setattr("qwenvis.images.decode.MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(LimitError, match="2 of 3 images"):
        stills([noise(10, 10), noise(40, 40), noise(50, 40)], processor)
    with pytest.raises(ImageError, match="2 of 2 images"):
        stills([noise(40, 40), "none.jpg"], processor)
    with pytest.raises(LimitError, match=r"image 0 .*lower max_pixels"):
        stills([noise(10, 10)], processor.with_limits(2**40, 2**40))


def test_errors_name_an_image_by_the_index_it_is_given(processor):
    with pytest.raises(ImageError, match=r"^image 10 \('none.jpg'\): there is no such file$"):
        ImageItem("none.jpg", processor, 10)


def test_a_damaged_image_is_named(processor):
    sources = [noise(70, 98), png(noise(70, 98))[:-500]]
    with pytest.raises(ImageError, match=r"^image 1 \(\d+ bytes\) is truncated"):
        preprocess(sources, processor)


def test_an_image_that_changes_while_it_is_read(processor, monkeypatch):
    monkeypatch.setattr("qwenvis.images.image.decode", lambda source, where, policy: Image.fromarray(noise(333, 222)))
    with pytest.raises(ImageError, match=r"image 0 .* changed while it was read"):
        preprocess([noise(70, 98)], processor)


def test_grid_of_a_png_with_its_exif_at_the_end(processor, monkeypatch):
    # The header says 70 x 98 and the decoded image is 98 x 70: as many patches, another grid.
    turned = Image.fromarray(noise(98, 70))
    monkeypatch.setattr("qwenvis.images.image.decode", lambda source, where, policy: turned)
    pixel_values, grid_thw = preprocess([png(noise(70, 98))], processor)
    assert grid_thw.tolist() == [list(processor.grid(98, 70))]
    expected = resized_step(turned, processor.resized(98, 70), processor).cut(np.empty_like(pixel_values))
    assert np.array_equal(pixel_values, expected)
