"""Everything that is no picture is refused in words, by name, before it costs anything."""

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from made.images import HEIGHT, WIDTH, chunk, encoded
from qwenvis.errors import ImageError, LimitError
from qwenvis.images.decode import decode, label, probe


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def png_of_size(height, width):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


def bad_arrays():
    yield np.zeros((4, 5, 3)), r"array of shape \(4, 5, 3\), float64.*must be uint8, got float64.*array \* 255"
    yield np.zeros((4, 5), bool), "got bool; pass array"
    yield np.zeros((4, 5, 3), np.uint16), "got uint16; .* // 257"
    yield np.zeros((4, 5, 3), np.int64), "got int64; pass array.astype"
    yield np.zeros((4, 5), object), "got object"
    yield np.zeros((4, 5, 2), np.uint8), r"expected .*got \(4, 5, 2\)"
    yield np.zeros((3, 40, 50), np.uint8), "channels come last"
    yield np.zeros((2, 40, 50, 3), np.uint8), "for several images"
    yield np.zeros(5, np.uint8), r"got \(5,\)"
    yield np.zeros((0, 5, 3), np.uint8), "no pixels: it is 0 x 5"
    yield np.zeros((5, 0), np.uint8), "no pixels: it is 5 x 0"


def bad_sources(directory):
    good = encoded(Image.new("RGB", (9, 9)))
    (directory / "page.jpg").write_bytes(b"<!DOCTYPE html><html>")
    yield from bad_arrays()
    yield Image.new("RGB", (0, 5)), "no pixels: it is 5 x 0"
    yield directory / "none.jpg", r"none\.jpg'\): there is no such file"
    yield directory, "is a directory"
    yield str(directory / "page.jpg"), r"page\.jpg.*not an image that Pillow can read; it begins with b'<!DOCTYPE"
    yield directory / "page.jpg" / "x", "cannot be read: Not a directory"
    yield "/dev/null", "not a regular file"
    yield "a\0b", "cannot be read"
    yield "x" * 5000, "cannot be read: File name too long"
    yield "https://example.org/cat.jpg", "is a URL"
    yield "data:image/png;base64,AAAA", "is a URL"
    yield b"", "is empty"
    yield b"\0\0\0\x24ftypheic\0\0\0\0mif1", "pillow-heif"
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image that Pillow can read"
    yield good[:40], "image 7 .*not an image|truncated"
    yield io.StringIO("text"), "open as text"
    yield Unseekable(good), "cannot be rewound"
    yield None, "NoneType.* is not an image; expected a path"
    yield 3.5, "float"


class Unseekable(io.RawIOBase):
    """A pipe."""

    def __init__(self, data):
        self.data = data

    def readable(self):
        return True


def test_bad_sources_are_refused_by_name(tmp_path):
    for source, message in bad_sources(tmp_path):
        for read in (probe, decode):
            with pytest.raises(ImageError, match=message) as caught:
                read(source, label(source, 7))
            assert str(caught.value).startswith("image 7 (")
            assert len(str(caught.value)) < 500


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_p23_truncated_and_damaged_files(format, rgb, rng):
    data = encoded(Image.fromarray(rgb.repeat(8, 0)), format)
    for length in range(0, len(data) - 12, max(1, len(data) // 25)):
        with pytest.raises(ImageError):
            decode(data[:length])
    for _ in range(100):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            damaged[place] = rng.integers(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                decode(bytes(damaged))
        except (ImageError, LimitError):
            pass


def test_pil_images_that_cannot_be_read(tmp_path, rgb):
    path = tmp_path / "image.png"
    path.write_bytes(encoded(Image.fromarray(rgb))[:-300])
    with Image.open(path) as image, pytest.raises(ImageError, match="truncated"):
        decode(image)
    closed = Image.fromarray(rgb)
    closed.close()
    with pytest.raises(ImageError, match="closed"):
        decode(closed)
    with pytest.raises(ImageError, match="float pixels"):
        decode(Image.new("F", (5, 5)))
    with pytest.raises(ImageError, match="values from -5 to 0"):
        decode(Image.fromarray(np.array([[0, -5]], np.int32)))


@pytest.mark.parametrize("side", [9460, 20_000, 2**31 - 1])
def test_p23_bombs_are_refused_before_they_are_decoded(side):
    start = time.perf_counter()
    for read in (probe, decode):
        with pytest.raises(LimitError, match=r"at most 89,478,485 are decoded"):
            read(png_of_size(side, side))
    assert time.perf_counter() - start < 1


def test_p23_a_bomb_that_pillow_finds_itself():
    side = 16383
    canvas = (side - 1).to_bytes(3, "little")
    bomb = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas * 2
    bomb = b"RIFF" + struct.pack("<I", len(bomb) + 4) + b"WEBP" + bomb
    with pytest.raises((LimitError, ImageError)):
        probe(bomb)


def test_p11_limit_holds_for_every_kind(monkeypatch, rgb):
    monkeypatch.setattr("qwenvis.images.decode.MAX_IMAGE_PIXELS", HEIGHT * WIDTH)
    for source in (rgb, Image.fromarray(rgb), encoded(Image.fromarray(rgb))):
        decode(source)
    monkeypatch.setattr("qwenvis.images.decode.MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    for source in (rgb, Image.fromarray(rgb), encoded(Image.fromarray(rgb))):
        for read in (probe, decode):
            with pytest.raises(LimitError, match="21 x 34, 714 pixels; at most 713"):
                read(source)


def test_a_lack_of_memory_stays_one(monkeypatch, rgb):
    def fail(image):
        raise MemoryError

    image = Image.fromarray(rgb)
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(MemoryError):
        decode(image)


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"\0\0\0\x18ftypisom\0\0\2\0", "MP4 or QuickTime"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "MP4 or QuickTime"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86", "Matroska or WebM"),
        (b"RIFF\x10\0\0\0AVI LIST", "AVI"),
        (b"FLV\x01\x05", "Flash Video"),
        (b"\0\0\x01\xba\x44", "MPEG"),
        ((b"G" + bytes(187)) * 4, "MPEG-TS"),
        ((bytes(4) + b"G" + bytes(187)) * 4, "MPEG-TS"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", r"ASF \(WMV\)"),
        (b"OggS\0\2", "Ogg"),
    ],
)
def test_a_video_is_named_as_one(head, container, tmp_path):
    """By its first bytes, whatever its name: the remedy is another argument."""
    (tmp_path / "v.jpg").write_bytes(head + bytes(400))
    for source in (head + bytes(400), tmp_path / "v.jpg"):
        with pytest.raises(ImageError, match=rf"^it is a video \({container}\), not an image: pass it as videos=$"):
            probe(source, "it")


@pytest.mark.parametrize("head", [b"\0\0\0\x18ftypheic", b"RIFF\x10\0\0\0WAVEfmt ", b"GET / HTTP", b"\0" * 99])
def test_what_is_no_video_is_not_called_one(head):
    with pytest.raises(ImageError, match="not an image that Pillow can read"):
        probe(head, "it")
