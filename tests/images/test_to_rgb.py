"""What images are passed as, read as transformers reads it: bit by bit, or refused by both."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from made.images import assert_same_answer, noise, preprocess
from oracle.transformers_processors import ROOT, Call, needs_torchvision, result_of, torchvision_results
from qwenvis.errors import ImageError
from qwenvis.images import to_rgb
from qwenvis.images.decode import decode
from qwenvis.images.image import ImageItem
from qwenvis.processors.image import BACKENDS, PIXELS, ImageProcessor

SMALL = {"min_pixels": 3136, "max_pixels": 60000, "image_processor_type": "Qwen2VLImageProcessor"}
SIZES = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
PIL = "qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil"
TORCHVISION = "qwen2_vl.image_processing_qwen2_vl.Qwen2VLImageProcessor"
MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I",
    "I;16",
    "F",
]
# Pillow maps a TIFF that is not compressed, and scrambles it if it is to be turned.
FORMATS = {"PNG": {}, "JPEG": {"quality": 80}, "WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_lzw"}}
SAVED = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"],
}


def processor(pixels="transformers", backend="pil"):
    return ImageProcessor.from_config(SMALL, **SIZES, pixels=pixels, backend=backend)


def assert_as(theirs, sources, ours):
    """Our answer to one source is theirs; where they refuse it, so do we."""
    if "error" in theirs:
        with pytest.raises(ImageError):
            preprocess(sources, ours)
    else:
        assert_same_answer(preprocess(sources, ours), theirs)


def sides(rng, largest=4096):
    """A (height, width), short ones as often as long ones; its ratio may be refused."""
    return tuple(np.exp(rng.uniform(0, np.log(largest), 2)).astype(int).tolist())


def in_mode(mode, size, seed=0):
    """An image of random pixels."""
    rgba = Image.fromarray(np.dstack([noise(*size, seed), noise(*size, seed + 1)[..., :1]]))
    if mode in ("I", "I;16", "F"):
        values = np.random.default_rng(seed).integers(0, 600, size)
        return Image.fromarray(values.astype({"I": np.int32, "I;16": np.uint16, "F": np.float32}[mode]))
    if mode == "PA":
        return Image.merge("LA", [rgba.getchannel("R"), rgba.getchannel("A")]).convert("PA")
    if mode == "La":
        return rgba.convert("LA").convert("La")
    if mode in ("LAB", "HSV", "YCbCr", "CMYK", "P", "RGBX"):
        return rgba.convert("RGB").convert(mode) if mode != "LAB" else Image.fromarray(noise(*size, seed), "RGB")
    return rgba.convert(mode)


def exif(orientation):
    found = Image.Exif()
    found[ExifTags.Base.Orientation] = orientation
    return found


def transparent(size, seed):
    """Images with one transparent value or colour, or a palette of alphas, by what they would be saved as."""
    rng = np.random.default_rng(seed)
    colour = Image.fromarray(rng.integers(0, 4, (*size, 3), np.uint8) * 80)
    yield colour, (80, 160, 0)
    yield colour.convert("L"), int(np.asarray(colour.convert("L"))[0, 0])
    yield colour.quantize(8), 3
    yield colour.quantize(8), bytes(rng.integers(0, 256, 8).tolist())


@pytest.mark.parametrize("mode", MODES)
def test_p01_pil_images_of_every_mode(mode):
    """14 sizes of each of 17 modes."""
    rng, ours = np.random.default_rng(7), processor()
    for seed in range(14):
        size = sides(rng, 4096 if seed < 3 else 400)
        image = in_mode(mode, size, seed)
        assert_as(result_of(Call(PIL, SMALL, {"images": [image]})), [image], ours)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", FORMATS)
def test_p01_files_of_every_orientation(tmp_path, format, orientation):
    """Each as a path, as the PIL image that it opens as, and as bytes, which transformers refuses."""
    rng, ours = np.random.default_rng([orientation, len(format)]), processor()
    for seed, mode in enumerate(SAVED[format]):
        path = tmp_path / f"{mode.replace(';', '')}.{format.lower()}"
        in_mode(mode, sides(rng, 300), seed).save(path, format, exif=exif(orientation), **FORMATS[format])
        theirs = result_of(Call(PIL, SMALL, {"images": [str(path)]}))
        for source in (path, str(path), path.read_bytes()):
            assert_as(theirs, [source], ours)
        with Image.open(path) as image:
            assert_as(result_of(Call(PIL, SMALL, {"images": [image]})), [image], ours)


@pytest.mark.parametrize("size", [(60, 90), (5, 300), (211, 97)])
def test_p01_transparent_values(tmp_path, size):
    ours = processor()
    for index, (image, value) in enumerate(transparent(size, 3)):
        path = tmp_path / f"{index}.png"
        image.save(path, transparency=value)
        assert_as(result_of(Call(PIL, SMALL, {"images": [str(path)]})), [path], ours)
        with Image.open(path) as opened:
            assert "transparency" in opened.info
            assert_as(result_of(Call(PIL, SMALL, {"images": [opened]})), [opened], ours)


def arrays():
    """Arrays of every kind: what transformers accepts, and what it refuses."""
    rng = np.random.default_rng(11)
    for height, width in [(60, 90), (33, 211), (4, 90), (90, 3), (1, 60), (57, 57)]:
        for channels in (1, 2, 3, 4):
            whole = rng.integers(0, 256, (height, width, channels))
            few = rng.integers(0, 2, whole.shape)
            yield from (whole.astype(np.uint8), whole, whole.astype(np.uint16), whole.astype(np.float32), few > 0)
            yield from (few.astype(np.float32), rng.random(whole.shape), rng.random(whole.shape, np.float32))
            yield from (rng.random(whole.shape).astype(np.float16), np.moveaxis(whole, -1, 0).astype(np.uint8))
            yield from (whole + 0.5, whole * 2, -whole, whole / 255 - 0.1, whole.astype(np.uint8)[..., 0])
    yield np.full((30, 30, 3), np.nan)
    yield np.full((30, 30, 3), "a")


def test_p01_arrays_of_every_type():
    """360 of them."""
    ours, accepted, refused = processor(), 0, 0
    for array in arrays():
        with np.errstate(invalid="ignore"):
            theirs = result_of(Call(PIL, SMALL, {"images": [array]}))
        assert_as(theirs, [array], ours)
        accepted, refused = accepted + ("error" not in theirs), refused + ("error" in theirs)
    assert accepted > 150
    assert refused > 100


def test_alpha_of_every_array():
    """Every value under every alpha, as transformers blends it; Pillow, which blends PIL images, differs by one."""
    values, alphas = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    rgba = np.dstack([values, values, values, alphas])
    want = np.round(alphas / 255 * values + (1 - alphas / 255) * 255)
    assert np.array_equal(np.asarray(to_rgb.rgb_policy("transformers", "pil").picture(rgba, ""))[..., 0], want)
    natural = np.asarray(decode(rgba))[..., 0]
    assert np.abs(natural - want).max() <= 1


@needs_torchvision
def test_p01_torchvision_to_the_bit():
    """The other class: PIL images and uint8 arrays, every size of step, enlarged and made smaller."""
    rng, ours = np.random.default_rng(13), processor(backend="torchvision")
    sources = [in_mode(mode, sides(rng, 500), seed) for seed, mode in enumerate(MODES * 3)]
    sources += [noise(*sides(rng, 1500), seed) for seed in range(40)]
    sources += [np.moveaxis(noise(50, 70), -1, 0), noise(70, 98), noise(56, 56), noise(90, 300)[..., :1]]
    values, alphas = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    sources.append(np.dstack([values, values, values, alphas]))
    results = torchvision_results([Call(TORCHVISION, SMALL, {"images": [source]}) for source in sources])
    for source, theirs in zip(sources, results, strict=True):
        assert_as(theirs, [source], ours)
    assert sum("error" not in theirs for theirs in results) > 60


def test_distance_of_the_backends():
    """As docs/pixels.md states it: mostly a level of a byte after a resize, and 3e-7 where nothing is resized."""
    one, other = (processor(backend=backend) for backend in BACKENDS)
    step = np.diff(one.lut, axis=1).max()
    with Image.open(ROOT / "qwenvis" / "demo.jpg") as image:
        distance = np.abs(preprocess([image], one).pixel_values - preprocess([image], other).pixel_values)
    assert 0 < (distance > 0.5 * step).mean() < 0.2
    assert (distance > 1.01 * step).mean() < 1e-3
    distance = preprocess([noise(56, 112)], one).pixel_values - preprocess([noise(56, 112)], other).pixel_values
    assert 0 < np.abs(distance).max() < 3e-7


@pytest.mark.parametrize("array", [np.zeros((30, 30, 3)), np.zeros((30, 30, 3), bool)])
def test_torchvision_keeps_floats_and_we_refuse_them(array):
    with pytest.raises(ImageError, match="with backend 'torchvision', pixels must be uint8"):
        ImageItem(array, processor(backend="torchvision"), 0)


def test_every_choice_has_a_policy():
    assert {type(to_rgb.rgb_policy(pixels, backend)) for pixels in PIXELS for backend in BACKENDS} == {
        to_rgb.Natural,
        to_rgb.Transformers,
        to_rgb.TransformersTorchvision,
    }


def test_natural_is_not_transformers():
    """What the table of docs/pixels.md says of one file."""
    file = io.BytesIO()
    in_mode("RGBA", (60, 90)).save(file, "PNG", exif=exif(6))
    grids = [ImageItem(source, processor(pixels), 0).grid for pixels in PIXELS for source in (file, Image.open(file))]
    assert grids == [(1, 6, 4), (1, 6, 4), (1, 6, 4), (1, 4, 6)]
