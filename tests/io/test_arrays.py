"""Arrays and tensors of other packages, as images, frames and ``pixel_values``."""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import torch

from made.images import noise
from made.presets import encoder, pixels, same_bits
from processes.programs import output
from qwenvis.errors import ImageError, InputError, LimitError, VideoError
from qwenvis.images.decode import decode
from qwenvis.images.to_rgb import rgb_policy
from qwenvis.io import arrays
from qwenvis.videos.source import open_video

IMAGE = noise(60, 90)


class Dlpack:
    """What has DLPack and nothing else."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class Converted:
    """What has ``__array__``."""

    def __init__(self, array):
        self._array, self.ndim = array, array.ndim

    def __array__(self, dtype=None, copy=None):
        return self._array


class Bare:
    """What has ``__array__`` and nothing else."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array


KINDS = [torch.from_numpy, Dlpack, Converted, Bare, np.ma.masked_array, lambda array: array.view(np.recarray)]


@pytest.mark.parametrize("kind", KINDS)
def test_images_frames_and_stills(kind):
    found = encoder()
    want = found.encode(IMAGE[..., 0]).embeddings
    assert same_bits(found.encode(kind(IMAGE[..., 0])).embeddings, want)
    assert same_bits(found.encode([kind(IMAGE[..., 0])] * 2).embeddings, np.concatenate([want, want]))
    assert same_bits(found.encode(videos=kind(IMAGE[..., 0])).embeddings, want)
    want = found.encode(IMAGE).embeddings
    assert same_bits(found.encode(kind(IMAGE)).embeddings, want)
    frames = np.stack([IMAGE, IMAGE[::-1]])
    want = found.encode(videos=frames).embeddings
    assert same_bits(found.encode(videos=kind(frames)).embeddings, want)
    assert same_bits(found.encode(videos=[list(map(kind, frames))]).embeddings, want)


def exact(dtype):
    """``pixel_values`` that this type holds, in float32, and their grid."""
    values, grid_thw = pixels(encoder().config, [[1, 4, 4]])
    return torch.from_numpy(values).to(dtype).float().numpy(), grid_thw


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_pixel_values_of_torch(dtype):
    values, grid_thw = exact(dtype)
    want = encoder()(values, grid_thw).embeddings
    tensor = torch.from_numpy(values).to(dtype)
    assert same_bits(encoder()(tensor, torch.from_numpy(grid_thw)).embeddings, want)
    if dtype is not torch.bfloat16:
        assert same_bits(encoder()(Dlpack(tensor), grid_thw).embeddings, want)


def test_pixel_values_in_bfloat16_of_ml_dtypes():
    values, grid_thw = exact(torch.bfloat16)
    got = encoder()(values.astype(ml_dtypes.bfloat16), grid_thw).embeddings
    assert same_bits(got, encoder()(values, grid_thw).embeddings)


def test_what_is_not_here_is_refused_with_the_remedy():
    values = torch.zeros((16, 1176), requires_grad=True)
    with pytest.raises(InputError, match=r"^pixel_values is not an array .*pass tensor\.detach\(\)\.cpu\(\)"):
        encoder()(values, [[1, 4, 4]])
    with pytest.raises(ImageError, match=r"^image 0 \(Tensor\) is not an array .*tensor\.detach\(\)\.cpu\(\)"):
        encoder().encode(torch.zeros((60, 90, 3), requires_grad=True))
    with pytest.raises(VideoError, match=r"^video 0 \(Tensor\).*tensor\.detach\(\)\.cpu\(\)"):
        encoder().encode(videos=torch.empty((4, 60, 90, 3), device="meta"))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros((3, 60, 90), dtype=torch.uint8), r"channels come last: .*tensor\.permute\(1, 2, 0\)"),
        (torch.zeros((60, 90, 3)), r"must be uint8, got float32; if its values are 0 to 1"),
        (torch.zeros((60, 90, 3), dtype=torch.bfloat16), r"must be uint8, got float32"),
        (torch.zeros((2, 60, 90, 3), dtype=torch.uint8), r"for several images pass list\(array\)"),
        (torch.zeros(140), r"must be uint8"),
        (np.ma.masked_equal(IMAGE, 7), r"entries of the array are masked; pass array\.filled"),
    ],
)
def test_images_that_are_refused_once(image, words):
    with pytest.raises(ImageError, match=f"^image 0 .*{words}"):
        encoder().encode(image)


def test_frames_that_are_refused():
    with pytest.raises(VideoError, match=r"frames\.permute\(0, 2, 3, 1\)"):
        encoder().encode(videos=torch.zeros((4, 3, 60, 90), dtype=torch.uint8))
    with pytest.raises(VideoError, match="masked"):
        encoder().encode(videos=np.ma.masked_equal(np.stack([IMAGE, IMAGE]), 7))
    with pytest.raises(InputError, match="masked"):
        encoder()(np.ma.masked_less(np.zeros((16, 1176), np.float32), 1), [[1, 4, 4]])


def test_columns_of_tables_are_lists():
    class Column:
        ndim = 1

        def __init__(self, things):
            self._things = things

        def __array__(self, dtype=None, copy=None):
            return np.array(self._things, object)

        def __iter__(self):
            return iter(self._things)

    assert not arrays.is_array(Column([]))
    assert len(encoder().encode(Column([IMAGE, IMAGE])).grid_thw) == 2


def test_torch_is_not_imported():
    code = "import sys; import numpy as np; from qwenvis.io import arrays; arrays.plain(np.zeros(3), 'x');"
    assert output(code + "print('torch' in sys.modules)").split() == ["False"]


def peak(work):
    """Bytes that were in use at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("many", [lambda: np.broadcast_to(IMAGE, (10**8, *IMAGE.shape)), lambda: [IMAGE] * 6_000_000])
def test_frames_are_counted_first(many):
    frames = many()

    def refused():
        with pytest.raises(LimitError, match="more than 5,184,000 frames, the limit"):
            open_video(frames, "the video", fps=None)

    assert peak(refused) < 1e6


def test_a_frame_many_times_is_looked_at_once():
    frames = [IMAGE] * 100_000
    assert open_video(frames, "the video", fps=None).size == IMAGE.shape[:2]
    with pytest.raises(VideoError, match=r"frame 2 is 30 x 90 .*frame 0 is 60 x 90"):
        open_video([IMAGE, IMAGE, IMAGE[::2]], "the video", fps=None)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("unit", [False, True])
def test_arrays_of_numbers_are_converted_in_strips(channels, unit):
    """Beside the picture, of which Pillow has a copy with 4 bytes a pixel, little; and the same bits as all at once."""
    array = np.random.default_rng(0).integers(0, 256, (1200, 1000, channels)).astype(np.float64)
    array = array / 255 if unit or channels == 4 else array
    policy = rgb_policy("transformers", "pil")
    images = []
    assert peak(lambda: images.append(decode(array, policy=policy))) < 3 * 1.2e6 + 30e6
    parts = [np.asarray(decode(rows, policy=policy)) for rows in np.split(array, 8)]
    assert np.array_equal(np.asarray(images[0]), np.concatenate(parts))
