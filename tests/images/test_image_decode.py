"""Every kind of picture that people pass, upright and on white."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from made.images import HEIGHT, WIDTH, chunk, encoded
from qwenvis.images.decode import as_iterable, decode, label, probe


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def oriented(image, orientation, format):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(image, format, exif=exif)


def test_every_kind_gives_the_same_pixels(tmp_path, rgb):
    image = Image.fromarray(rgb)
    data = encoded(image)
    path = tmp_path / "image.png"
    path.write_bytes(data)
    read_to_its_end = io.BytesIO(data)
    read_to_its_end.read()
    with path.open("rb") as file:
        kinds = [str(path), path, data, bytearray(data), memoryview(data), file, read_to_its_end]
        for kind in [*kinds, image, Image.open(path), rgb]:
            assert probe(kind) == (HEIGHT, WIDTH)
            for _ in range(2):
                decoded = decode(kind)
                assert decoded.mode == "RGB"
                assert np.array_equal(np.asarray(decoded), rgb)


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA"])
def test_formats(format, rgb):
    image = Image.fromarray(rgb)
    image = image.quantize(200) if format == "GIF" else image
    data = encoded(image, format, **{"lossless": True} if format == "WEBP" else {})
    assert probe(data) == (HEIGHT, WIDTH)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(image.convert("RGB")))


def test_arrays_are_left_alone(rgb):
    padded = np.zeros((2 * HEIGHT, WIDTH + 3, 3), np.uint8)
    view = padded[::-2, 1:-2]
    view[...] = rgb
    before = padded.copy()
    padded.flags.writeable = False
    assert np.array_equal(np.asarray(decode(view)), rgb)
    assert np.array_equal(padded, before)


def test_grey_arrays(rgb):
    grey = rgb[..., 0]
    for array in (grey, grey[..., None], grey.copy()):
        assert probe(array) == (HEIGHT, WIDTH)
        assert np.array_equal(np.asarray(decode(array)), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_p01_upright(format, orientation):
    corner = np.zeros((16, 32, 3), np.uint8)
    corner[:8, :8] = 255
    upright = {  # how EXIF 2.3 defines each: where the first row and the first column belong
        1: corner,
        2: corner[:, ::-1],
        3: corner[::-1, ::-1],
        4: corner[::-1],
        5: corner.transpose(1, 0, 2),
        6: corner.transpose(1, 0, 2)[:, ::-1],
        7: corner.transpose(1, 0, 2)[::-1, ::-1],
        8: corner.transpose(1, 0, 2)[::-1],
    }[orientation]
    data = oriented(Image.fromarray(corner), orientation, format)
    for source in (data, Image.open(io.BytesIO(data))):
        assert probe(source) == upright.shape[:2]
        assert probe(source) == upright.shape[:2]
        assert np.array_equal(np.asarray(decode(source)) > 127, upright > 127)


def test_orientation_behind_the_pixels_of_a_png(rgb):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encoded(Image.fromarray(rgb))
    end = data.index(b"IEND") - 4
    data = data[:end] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[end:]
    assert probe(data) == (HEIGHT, WIDTH)
    assert np.array_equal(np.asarray(decode(data)), rgb.transpose(1, 0, 2)[:, ::-1])


def test_unreadable_exif_is_no_orientation(rgb):
    image = Image.fromarray(rgb)
    image.info["exif"] = b"Exif\0\0nonsense that is no TIFF header"
    assert probe(image) == (HEIGHT, WIDTH)
    assert decode(image).size == (WIDTH, HEIGHT)


def on_white(rgba):
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def test_p01_alpha_on_white(rng):
    rgba = rng.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    image = Image.fromarray(rgba)
    data = encoded(image)
    for source in (rgba, image, data, Image.open(io.BytesIO(data))):
        assert np.abs(np.asarray(decode(source)) - on_white(rgba)).max() <= 1
    grey = Image.merge("LA", [image.getchannel("R"), image.getchannel("A")])
    for source in (grey, encoded(grey), image.convert("RGBa")):
        expected = on_white(np.asarray((grey if source is not grey else source).convert("RGBA")))
        expected = on_white(rgba) if isinstance(source, Image.Image) and source.mode == "RGBa" else expected
        assert np.abs(np.asarray(decode(source)) - expected).max() <= 2


def test_p01_transparent_colours_on_white(rgb):
    rgb[3:9, 4:20] = (10, 20, 30)
    image = Image.fromarray(rgb)
    pixels = np.asarray(decode(encoded(image, transparency=(10, 20, 30))))
    assert (pixels[3:9, 4:20] == 255).all()
    assert np.array_equal(pixels[10:], rgb[10:])

    palette = image.quantize(8)
    seen = np.asarray(palette)
    for transparency in (3, bytes([255, 255, 255, 0, 255, 255, 255, 255])):
        for format in ("PNG", "GIF")[: 1 + isinstance(transparency, int)]:
            pixels = np.asarray(decode(encoded(palette, format, transparency=transparency)))
            assert (pixels[seen == 3] == 255).all()
            assert np.array_equal(pixels[seen != 3], np.asarray(palette.convert("RGB"))[seen != 3])


def test_p01_16_bits_are_scaled():
    values = np.linspace(0, 65535, 300).astype(np.uint16).reshape(10, 30)
    expected = np.round(values / 257.0).astype(np.uint8)
    image = Image.fromarray(values)
    assert image.mode == "I;16"
    for source in (image, encoded(image), encoded(image, "TIFF"), Image.fromarray(values.astype(np.int32))):
        assert probe(source) == (10, 30)
        assert np.array_equal(np.asarray(decode(source)), np.repeat(expected[..., None], 3, axis=2))
    image.info["transparency"] = int(values[2, 3])
    expected[2, 3] = 255
    assert np.array_equal(np.asarray(decode(image))[..., 0], expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV"])
def test_other_modes_convert(mode, rgb):
    image = Image.fromarray(rgb).convert(mode)
    assert np.array_equal(np.asarray(decode(image)), np.asarray(image.convert("RGB")))


def test_first_frame(rgb):
    frames = [Image.fromarray(frame) for frame in (rgb, 255 - rgb)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert np.array_equal(np.asarray(decode(data)), rgb)
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    assert np.array_equal(np.asarray(decode(image)), 255 - rgb)


def test_stream(rgb):
    file = io.BytesIO()
    for single in ("a.jpg", b"x", rgb, Image.fromarray(rgb), file, None):
        (got,) = as_iterable(single)
        assert got is single
    assert list(as_iterable(("a", "b"))) == ["a", "b"]
    assert list(as_iterable(name for name in "ab")) == ["a", "b"]
    assert list(as_iterable([])) == []


def test_labels(rgb):
    assert label("cat.jpg", 3) == "image 3 ('cat.jpg')"
    assert label(memoryview(b"12345"), 0) == "image 0 (5 bytes)"
    assert label(rgb, 1) == "image 1 (array of shape (21, 34, 3), uint8)"
    assert label(Image.fromarray(rgb), 1) == "image 1 (PIL image, mode RGB)"
    assert label(io.BytesIO(), 1) == "image 1 (file object 'BytesIO')"
    assert len(label("x" * 9999, 1)) < 130


def test_premultiplied_grey_is_read_on_white():
    """Mode La holds the grey times its alpha, so on white it is that and what the alpha leaves of 255."""
    grey = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 2), np.uint8)
    image = Image.fromarray(grey, "LA").convert("La")
    premultiplied, alpha = (np.frombuffer(image.tobytes(), np.uint8).reshape(HEIGHT, WIDTH, 2)[..., i] for i in (0, 1))
    want = premultiplied.astype(int) + 255 - alpha
    got = np.asarray(decode(image)).astype(int)
    assert (np.abs(got - want[..., None]) <= 1).all()
