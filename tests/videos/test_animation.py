"""Animated images as videos: every frame at its own time, and stills that stay stills."""

import io

import numpy as np
import pytest
from PIL import Image, features

from made import video_files
from made.presets import encoder, same_bits
from made.video_files import number, numbered
from qwenvis.errors import ImageError, InputError, LimitError, VideoError
from qwenvis.images.decode import decode
from qwenvis.videos import animation
from qwenvis.videos.animation import Animation
from qwenvis.videos.decode import VideoDecoder
from qwenvis.videos.source import is_still, open_video

FORMATS = [name for name in ("GIF", "WEBP", "PNG", "AVIF") if name in ("GIF", "PNG") or features.check(name.lower())]
MS = [50, 70, 120, 200, 1000]
FRAMES = numbered(5)


def animated(form, frames=FRAMES, durations=MS, **options):
    """The bytes of an animated image."""
    file = io.BytesIO()
    first, *others = [Image.fromarray(frame) for frame in frames]
    lossless = {"lossless": True} if form == "WEBP" else {}
    first.save(file, form, save_all=True, append_images=others, duration=durations, **lossless, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_frames_and_times(form):
    data = animated(form)
    video = open_video(data, "the video", fps=None)
    assert isinstance(video, Animation)
    assert [number(frame) for frame in video.frames(range(5))] == list(range(5))
    assert [number(frame) for frame in video.frames([1, 1, 4])] == [1, 1, 4]
    assert video.length.seconds(range(5)) == pytest.approx([0, 0.05, 0.12, 0.24, 0.44])
    assert (video.length.fps, video.length.duration) == (pytest.approx(5 / 1.44), pytest.approx(1.44))
    assert video.size == (64, 96)
    assert open_video(data, "it", fps=5).length.seconds([4]) == [0.8]


def test_a_gif_without_its_trailer():
    video = Animation(animated("GIF")[:-1], "it", None)
    assert video.length.seconds(range(5)) == pytest.approx([0, 0.05, 0.12, 0.24, 0.44])
    assert [number(frame) for frame in video.frames(range(5))] == list(range(5))


def test_a_gif_that_is_cut_within_a_frame():
    video = Animation(animated("GIF")[:-20], "it", None)
    with pytest.raises(ImageError, match=r"^it, frame 4 is truncated or damaged: image file is truncated"):
        list(video.frames(range(5)))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "glm4v"])
def test_as_a_video(form, family, tmp_path):
    """Of a path, bytes and a file object, as of its frames."""
    data, model = animated(form), encoder(family)
    (tmp_path / "it").write_bytes(data)
    frames = np.stack(list(Animation(data, "it", None).frames(range(5))))
    want = model.encode(videos=[frames], video_fps=10)
    for source in (data, str(tmp_path / "it"), io.BytesIO(data)):
        got = model.encode(videos=[source], sampling="all")
        assert same_bits(got.embeddings, want.embeddings)
        assert got.timestamps[0].tolist() == pytest.approx(
            [0, 0.12, 0.44] if family == "glm4v" else [0.025, 0.18, 0.44]
        )
    if family != "glm4v":
        assert len(model.encode(videos=[data], num_frames=2).frame_indices[0]) == 2


@pytest.mark.parametrize("form", [*FORMATS, "JPEG", "TIFF"])
def test_a_still_among_videos(form):
    data = animated(form, FRAMES[:1]) if form in FORMATS else clips_made_still(form)
    assert is_still(data)
    out = encoder().encode(videos=[data, FRAMES])
    assert same_bits(out.items()[0].embeddings, encoder().encode(data).embeddings)


def clips_made_still(form):
    file = io.BytesIO()
    Image.fromarray(FRAMES[0]).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["TIFF", "MPO"])
def test_pages_are_no_animation(form):
    file = io.BytesIO()
    first, *others = [Image.fromarray(frame) for frame in FRAMES]
    first.save(file, form, save_all=True, append_images=others)
    assert is_still(file.getvalue())


def test_pixels_that_are_transparent():
    """On white, as in stills."""
    frames = np.zeros((2, 32, 32, 4), np.uint8)
    frames[1, :16] = 255
    video = Animation(animated("PNG", frames, [100, 100]), "it", None)
    assert [frame.min() for frame in video.frames([0, 1])] == [255, 255]


def test_a_picture_for_programs_that_know_no_animations():
    data = animated("PNG", durations=MS[1:], default_image=True)
    video = Animation(data, "it", None)
    assert [number(frame) for frame in video.frames(range(video.length.frames))] == [1, 2, 3, 4]
    assert video.length.seconds([1]) == pytest.approx([0.07])


@pytest.mark.parametrize(("form", "ms"), [("GIF", 0), ("GIF", 10), ("WEBP", 0), ("PNG", 0)])
def test_frames_that_say_no_time(form, ms):
    """A tenth of a second, as in browsers."""
    if form in FORMATS:
        assert Animation(animated(form, durations=ms), "it", None).length.fps == pytest.approx(10)


def test_a_local_table_of_colours():
    """GIF frames with palettes of their own, and extensions that are not of time."""
    video = Animation(animated("GIF", video_files.frames(4, 40, 40), 30, comment=b"x" * 300), "it", None)
    assert video.length.seconds(range(4)) == pytest.approx([0, 0.03, 0.06, 0.09])


def test_a_pil_image_that_is_animated_is_refused():
    """It stands at one frame; whoever means the others has a file."""
    image = Image.open(io.BytesIO(animated("GIF")))
    with pytest.raises(VideoError, match=r"^video 0 .*is an animation at one of its frames: pass its file"):
        encoder().encode(videos=[image, FRAMES])
    assert encoder().encode(image).grid_thw[0, 0] == 1


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_cut_short(form, share):
    """An error in words, or as many frames as there are."""
    data = animated(form)
    data = data[: int(len(data) * share)]
    said = ""
    try:
        steps = encoder().encode(videos=[data], sampling="all").grid_thw[0, 0]
    except InputError as error:
        said, steps = str(error), 0
    assert "video 0" in said or 0 < steps <= 3


def test_many_frames_are_refused(monkeypatch):
    monkeypatch.setattr("qwenvis.videos.decode.MAX_FRAMES", 4)
    with pytest.raises(LimitError, match="more than 4 frames"):
        Animation(animated("GIF"), "it", None)


def test_a_gif_by_its_header():
    """Where transformers is to be equalled, FFmpeg reads it, as there."""
    data = animated("GIF")
    assert isinstance(open_video(data, "it", fps=None, by_header=True), VideoDecoder)
    assert VideoDecoder(data, "it").length.frames == 5


def test_a_still_is_the_first_frame():
    assert number(np.asarray(decode(animated("GIF")))) == 0
    assert animation.format_of(animated("GIF")) == "GIF"
