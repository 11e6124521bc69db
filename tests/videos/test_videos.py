"""Videos to patches, beside transformers' video processors on the same frames: every bit, and every time."""

from fractions import Fraction

import numpy as np
import pytest

from made import video_files
from oracle.transformers_processors import (
    VIDEO_PROCESSORS,
    VIDEO_TOWERS,
    Call,
    needs_torchvision,
    torchvision_results,
    transformers_class,
)
from qwenvis.errors import ConfigError, InputError, LimitError, VideoError
from qwenvis.processors.video_families import TYPES, QwenVLUtilsVideoProcessor
from qwenvis.videos.decode import VideoDecoder
from qwenvis.videos.video import VideoItem, VideoOptions

QWEN2, QWEN3, GLM = "Qwen2VLVideoProcessor", "Qwen3VLVideoProcessor", "Glm4vVideoProcessor"
GLM5 = "Glm5NextVideoProcessor"


def options(name, config=None, **given):
    return VideoOptions.of(TYPES[name].from_config(config or {}, **VIDEO_TOWERS[name]), given)


def patches(video_item, steps=None):
    """All ``pixel_values``, made so many temporal steps at a time."""
    t, h, w = video_item.grid
    out = np.full((t * h * w, video_item.processor.columns), np.nan, np.float32)
    for first in range(0, t, steps or t):
        stop = min(first + (steps or t), t)
        assert video_item.fill(first, stop, out[first * h * w : stop * h * w]) == (stop - first, h, w)
    return out


# (processor, config, what the call of transformers is given, what ours is, frames, height, width)
CASES = [
    *((name, {}, {}, {}, 11, 90, 130) for name in TYPES),
    *((QWEN2, {}, {}, {}, 1, *size) for size in ((56, 84), (5, 700), (1000, 700))),
    (QWEN2, {}, {"do_sample_frames": True, "fps": 2}, {"fps": 2}, 33, 60, 44),
    (QWEN2, {}, {"do_sample_frames": True, "num_frames": 7}, {"num_frames": 7}, 33, 60, 44),
    (QWEN2, {"min_pixels": 3136, "max_pixels": 12845056}, {}, {}, 5, 61, 99),
    (QWEN2, {"min_pixels": 3136, "max_pixels": 50000}, {}, {}, 5, 361, 499),
    (QWEN2, {"cap_pixels_per_frame": True, "max_video_tokens": 900}, {}, {}, 9, 400, 600),
    (QWEN2, {"image_mean": [0.1, 0.2, 0.3], "image_std": 0.7, "rescale_factor": 0.01}, {}, {}, 2, 56, 56),
    (QWEN3, {}, {"fps": None, "num_frames": 5}, {"num_frames": 5}, 33, 60, 44),
    (QWEN3, {"size": {"shortest_edge": 4096, "longest_edge": 100000}}, {}, {}, 21, 211, 373),
    (QWEN3, {"cap_pixels_per_frame": True, "max_video_tokens": 20}, {}, {}, 21, 211, 373),
    (QWEN3, {"do_sample_frames": False}, {}, {}, 7, 20, 30),
    (GLM, {}, {"fps": 4}, {"fps": 4}, 25, 64, 64),
    (GLM5, {"min_image_tokens": 1, "max_image_tokens": 40}, {}, {}, 12, 300, 200),
    (GLM5, {"patch_expand_factor": 2}, {}, {}, 12, 75, 203),
    *((name, {"patch_expand_factor": 3}, {}, {}, 8, 60, 44) for name in TYPES if name != GLM5),
    *((name, {"cap_pixels_per_frame": True, "max_video_tokens": 5}, {}, {}, 8, 90, 130) for name in TYPES),
]


def call_of(case):
    name, config, theirs, _, count, height, width = case
    sizes = {key: value for key, value in VIDEO_TOWERS[name].items() if key != "temporal_patch_size"}
    frames = video_files.frames(count, height, width)
    metadata = [{"total_num_frames": count, "fps": 10.0, "frames_indices": list(range(count))}]
    given = {"videos": [frames], "video_metadata": metadata, "return_metadata": True, **sizes}
    return Call(VIDEO_PROCESSORS[name], config, given | theirs)


@pytest.fixture(scope="module")
def results():
    return torchvision_results([call_of(case) for case in CASES])


@needs_torchvision
@pytest.mark.parametrize("number", range(len(CASES)))
def test_patches_and_frames_are_those_of_transformers(results, number):
    name, config, _, ours, count, height, width = CASES[number]
    result = results[number]
    assert "error" not in result, result
    video_item = VideoItem(
        video_files.frames(count, height, width),
        options(name, config, sampling="transformers", video_fps=10.0, **ours),
        0,
    )
    assert [list(video_item.grid)] == result["video_grid_thw"].tolist()
    metadata = result["video_metadata"][0]
    assert video_item.frame_indices.tolist() == np.asarray(metadata.frames_indices).tolist()
    want = np.ascontiguousarray(result["pixel_values_videos"])
    assert patches(video_item).tobytes() == want.tobytes()
    assert patches(video_item, 1).tobytes() == want.tobytes()
    assert video_item.second_per_grid == 2 / metadata.sampled_fps  # Qwen2_5_VLProcessor
    assert video_item.timestamps.tolist() == stamps(name, metadata, video_item.grid[0])


def stamps(name, metadata, steps):
    """The times that the processors of transformers write into a prompt."""
    if name.startswith("Glm"):  # Glm4vProcessor.replace_video_token
        return (metadata.timestamps[::2] + metadata.timestamps[::2][-1:] * steps)[:steps]
    processor = transformers_class("qwen3_vl.processing_qwen3_vl.Qwen3VLProcessor")
    return processor._calculate_timestamps(None, list(metadata.frames_indices), metadata.fps, 2)


@needs_torchvision
def test_what_transformers_refuses():
    """Of Qwen3-VL one frame, and sides past 200 to 1; of Qwen2-VL more frames than there are."""
    cases = [
        (QWEN3, {"do_sample_frames": False}, {}, {}, 1, 64, 64),
        (QWEN2, {}, {}, {}, 2, 4, 1000),
        (QWEN2, {}, {"do_sample_frames": True, "num_frames": 8}, {"num_frames": 8}, 5, 64, 64),
    ]
    words = ["t:1 must be larger", "aspect ratio must be smaller than 200", "has 5 frames, of which 8 would be chosen"]
    results = torchvision_results([call_of(case) for case in cases])
    for (name, config, _, ours, *shape), result, word in zip(cases, results, words, strict=True):
        assert "error" in result
        view = options(name, config, sampling="transformers", video_fps=10.0, **ours)
        with pytest.raises(VideoError, match=f"^video 7 .*{word}"):
            VideoItem(video_files.frames(*shape), view, 7)


@pytest.mark.parametrize("name", TYPES)
def test_frames_of_another_layout(name):
    """The processors of transformers would take the height of these frames for their channels."""
    with pytest.raises(ConfigError, match=r"input_data_format = 'channels_first'; expected channels_last"):
        options(name, {"input_data_format": "channels_first"})
    assert options(name, {"input_data_format": "channels_last"}) == options(name)


# Which frames are looked at, by the kind of a video and the wish.


@pytest.mark.parametrize(
    ("name", "given", "from_a_file", "from_frames"),
    [
        (QWEN2, {}, 12, 60),
        (QWEN2, {"fps": 1}, 6, 6),
        (QWEN2, {"num_frames": 8}, 8, 8),
        (QWEN2, {"min_frames": 20}, 20, 20),
        (QWEN2, {"sampling": "all"}, 60, 60),
        (QWEN2, {"sampling": "transformers"}, 60, 60),
        (QWEN2, {"sampling": "transformers", "fps": 1}, 6, 6),
        (QWEN2, {"sampling": "qwen-vl-utils"}, 12, 60),
        (QWEN3, {}, 12, 60),
        (QWEN3, {"num_frames": 9}, 9, 9),
        (QWEN3, {"sampling": "transformers"}, 12, 12),
        (QWEN3, {"sampling": "all"}, 60, 60),
        (GLM, {}, 12, 60),
        ("Glm46VVideoProcessor", {}, 36, 60),
    ],
)
def test_how_many_frames(name, given, from_a_file, from_frames):
    frames = video_files.frames(60, 32, 32)
    view = options(name, **given, video_fps=10)
    assert len(VideoItem(video_files.encoded(frames), view, 0).frame_indices) == from_a_file
    assert len(VideoItem(frames, view, 0).frame_indices) == from_frames


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_files(name, count):
    """One frame is one temporal step: it lasts."""
    video_item = VideoItem(video_files.encoded(video_files.frames(count, 64, 64)), options(name), 0)
    assert video_item.frame_indices.tolist()[:1] == [0]
    assert video_item.grid[0] == -(-len(video_item.frame_indices) // 2)
    assert np.isfinite(patches(video_item)).all()


def test_the_reference_has_limits_of_its_own():
    """``fetch_video`` of qwen-vl-utils 0.0.14: 128 to 768 tokens a frame, less of many frames."""
    processor = TYPES[QWEN2].from_config({"min_pixels": 3136, "max_pixels": 12845056}, **VIDEO_TOWERS[QWEN2])
    reference = QwenVLUtilsVideoProcessor.of(processor)
    assert (reference.min_pixels, reference.max_pixels) == (128 * 784, 768 * 784)
    for frames in (2, 300, 768):
        height, width = reference.resized(frames, 1080, 1920).canvas
        assert height * width <= max(min(768 * 784, 128000 * 784 * 0.9 / frames * 2), 128 * 784 * 1.05)
        assert height * width > 0.9 * min(768 * 784, 128000 * 784 * 0.9 / frames * 2)


def test_a_rate_that_is_not_known_is_24():
    video_item = VideoItem(video_files.frames(4), options(QWEN2), 0)
    assert video_item.second_per_grid == 2 / 24
    assert video_item.timestamps.tolist() == [0.5 / 24, (2 / 24 + 3 / 24) / 2]


def test_a_file_as_its_frames(tmp_path):
    """A video of a file is that of its frames, once decoded."""
    data = video_files.encoded(video_files.frames(9, 70, 130))
    frames = np.stack(list(VideoDecoder(data, "it").frames(range(9))))
    view = options(QWEN2, sampling="all")
    assert patches(VideoItem(data, view, 0)).tobytes() == patches(VideoItem(frames, view, 0)).tobytes()


def test_an_item_begins_anew():
    video_item = VideoItem(video_files.encoded(video_files.frames(9)), options(QWEN2, sampling="all"), 0)
    want = patches(video_item)
    rows = want.shape[0] // video_item.grid[0]
    video_item.fill(0, 2, np.empty((2 * rows, want.shape[1]), np.float32))
    assert patches(video_item, 2).tobytes() == want.tobytes()


@pytest.mark.parametrize("number", [np.float32(5), np.int64(5), Fraction(5)])
def test_rates_of_other_libraries(number):
    """NumPy's numbers, and PyAV's fractions."""
    asked = options(QWEN2, fps=number, video_fps=number)
    assert asked == options(QWEN2, fps=5, video_fps=5)
    assert type(asked.video_fps) in (int, float)


# What cannot be.


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        (QWEN2, {"sampling": "some"}, "sampling is 'some'; expected natural, transformers, qwen-vl-utils or all"),
        (QWEN2, {"fps": 2, "num_frames": 8}, "mutually exclusive"),
        (QWEN2, {"fps": 0}, "fps is 0; expected frames per second, above 0 and below 2,147,483,647"),
        (QWEN2, {"fps": True}, "fps is True"),
        (QWEN2, {"fps": float("nan")}, "fps is nan"),
        (QWEN2, {"num_frames": 2.5}, "num_frames is 2.5; expected a whole number from 1 to 2,147,483,647"),
        (QWEN2, {"min_frames": -1}, "min_frames is -1"),
        (QWEN2, {"video_fps": "fast"}, "video_fps is 'fast'"),
        (QWEN2, {"video_fps": 0}, "video_fps is 0"),
        (GLM, {"num_frames": 8}, "num_frames has no effect on the frames of this model, which reads fps"),
        ("Glm46VVideoProcessor", {"fps": 1}, "fps has no effect .* which reads nothing"),
    ],
)
def test_wishes_that_cannot_be(name, given, words):
    with pytest.raises(InputError, match=words):
        options(name, **given)


def test_a_volume_that_is_too_large():
    view = options(QWEN2, {"max_pixels": 2**40}, sampling="all")
    with pytest.raises(
        LimitError, match=r"^video 0 .*: 600 frames of 1000 x 1000 .* lower num_frames, fps or max_pixels"
    ):
        VideoItem(np.broadcast_to(np.uint8(0), (600, 1000, 1000, 3)), view, 0)
