"""What an iterator hands out and changes is taken as it is when it is handed out."""

import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from made import video_files
from made.images import noise
from made.presets import encoder, same_bits
from qwenvis.errors import ImageError
from qwenvis.io import iterables

FRAMES = [noise(60, 90, seed) for seed in range(4)]
FILES = [video_files.encoded(video_files.frames(4, 32, 48, seed)) for seed in range(3)]


def files(kind="PNG"):
    """The frames as files."""
    written = []
    for frame in FRAMES:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, kind)
        written.append(file.getvalue())
    return written


def animation():
    file = io.BytesIO()
    first, *rest = map(Image.fromarray, FRAMES)
    first.save(file, "PNG", save_all=True, append_images=rest)
    return Image.open(file)


def array_buffer():
    buffer = np.empty_like(FRAMES[0])
    for frame in FRAMES:
        buffer[:] = frame
        yield buffer


def views_of_a_buffer():
    buffer = np.empty_like(FRAMES[0])
    for frame in FRAMES:
        buffer[:] = frame
        yield buffer[:, :]
        buffer[:] = 0


def images_over_a_buffer():
    for buffer in array_buffer():
        yield Image.fromarray(buffer)


def one_image():
    image = Image.new("RGB", (90, 60))
    for frame in FRAMES:
        image.paste(Image.fromarray(frame))
        yield image


def bytes_buffer():
    buffer = bytearray()
    for data in files():
        buffer[:] = data
        yield buffer


def one_file():
    file = io.BytesIO()
    for data in files():
        file.seek(0)
        file.truncate()
        file.write(data)
        yield file


def images_over_one_file():
    for file in one_file():
        yield Image.open(file)


def one_file_on_disk():
    with Path("frame.png").open("w+b") as file:
        for data in files():
            file.seek(0)
            file.truncate()
            file.write(data)
            yield file


def images_that_are_closed():
    for index, data in enumerate(files()):
        Path(f"{index}.png").write_bytes(data)
        with Image.open(f"{index}.png") as image:
            yield image


def tensors():
    torch = pytest.importorskip("torch")
    buffer = torch.empty(FRAMES[0].shape, dtype=torch.uint8)
    for frame in FRAMES:
        buffer[:] = torch.from_numpy(frame)
        yield buffer


REUSING = [
    array_buffer, views_of_a_buffer, images_over_a_buffer, one_image, bytes_buffer, one_file, images_over_one_file,
    one_file_on_disk, images_that_are_closed, tensors, lambda: ImageSequence.Iterator(animation()),
]  # fmt: skip


@pytest.mark.parametrize("reusing", REUSING)
def test_images_of_an_iterator(reusing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = encoder(threads=2)
    want = found.encode(FRAMES).embeddings
    assert same_bits(found.encode(reusing()).embeddings, want)
    for budget in (1, 30, 10_000):
        outs = list(found.encode_iter(reusing(), patch_budget=budget))
        assert same_bits(np.concatenate([out.embeddings for out in outs]), want)


def frames_in_a_list():
    frames = []
    for buffer in array_buffer():
        frames[:] = [buffer, buffer]
        yield frames


def frames_in_an_array():
    for buffer in array_buffer():
        yield np.broadcast_to(buffer, (2, *buffer.shape))


def videos_in_a_file():
    file = io.BytesIO()
    for data in FILES:
        file.seek(0)
        file.truncate()
        file.write(data)
        yield file


@pytest.mark.parametrize(
    ("reusing", "held"),
    [
        (frames_in_a_list, [[frame, frame] for frame in FRAMES]),
        (frames_in_an_array, [[frame, frame] for frame in FRAMES]),
        (videos_in_a_file, FILES),
        (lambda: map(io.BufferedReader, map(io.BytesIO, FILES)), FILES),
    ],
)
def test_videos_of_an_iterator(reusing, held):
    found = encoder(threads=2)
    want = found.encode(videos=held).embeddings
    assert same_bits(found.encode(videos=reusing()).embeddings, want)
    outs = found.encode_iter(videos=reusing(), patch_budget=30)
    assert same_bits(np.concatenate([out.embeddings for out in outs]), want)


def lasting(things):
    found = []
    for thing, lasts in iterables.with_lifetime(things):
        found.append(lasts)
        if isinstance(thing, Image.Image):
            thing.close()
    return found


def test_what_lasts_is_neither_copied_nor_decoded_early(tmp_path):
    """Everything of a collection; of an iterator what cannot change, and images that only we have."""
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for path, data in zip(paths, files(), strict=False):
        path.write_bytes(data)
    for held in (FRAMES, tuple(FRAMES), dict(enumerate(FRAMES)).values()):
        assert all(got is frame for (got, _), frame in zip(iterables.with_lifetime(held), held, strict=True))
        assert all(lasting(held))
    assert lasting(iter(paths)) == lasting(map(os.fspath, paths)) == lasting(map(io.BytesIO, files()[:2])) == [True] * 2
    assert lasting(Image.open(path) for path in paths) == lasting(map(Image.open, paths)) == [True] * 2
    assert lasting(iter([paths, [FRAMES[0]]])) == [True, False]
    with Image.open(paths[0]) as image:
        assert lasting(iter([image])) == lasting(image for _ in range(1)) == [False]
    assert not any(lasting(iter(FRAMES)))


def test_memory_of_a_stream_is_bounded():
    """Of a buffer that is handed out 60 times, 2.4 MB each time, the resized pictures stay, and not all of them."""
    found = encoder(threads=2)
    buffer = np.zeros((900, 900, 3), np.uint8)
    options = {"max_pixels": 4 * 28 * 28, "patch_budget": 64}
    list(found.encode_iter([buffer], **options))
    tracemalloc.start()
    assert sum(1 for _ in found.encode_iter((buffer for _ in range(60)), **options)) == 60
    assert tracemalloc.get_traced_memory()[1] < 4 * buffer.nbytes
    tracemalloc.stop()


def test_numbers_in_a_list_are_one_error():
    for images in ([0.5] * 1000, range(10**6), [[0, 255]] * 1000, [FRAMES], (1, [2])):
        with pytest.raises(ImageError, match=r"^image 0 is a .*np\.array\(pixels, np\.uint8\)") as caught:
            encoder().encode(images)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("bad", [3, 0.5, [FRAMES[0]], (1, 2)])
@pytest.mark.parametrize("among", [list, tuple, iter])
def test_a_number_or_a_list_is_one_bad_item_among_images(bad, among):
    out = encoder().encode(among([bad, FRAMES[0], bad]), on_error="skip")
    assert (len(out), [error.index for error in out.errors]) == (1, [0, 2])
    stream = encoder().encode_iter(among([bad, FRAMES[0]]), on_error="skip")
    assert [len(list(stream)), [error.index for error in stream.errors]] == [1, [0]]
