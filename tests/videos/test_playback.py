"""Video files as a player shows them: right frames at right times, whatever their headers say."""

import io
from fractions import Fraction

import numpy as np
import pytest

from made import video_files
from made.video_files import number, numbered
from qwenvis.errors import LimitError, VideoError
from qwenvis.videos.decode import VideoDecoder
from qwenvis.videos.playback import PlaybackDecoder

FRAMES = numbered(30)
PLAIN = video_files.encoded(FRAMES)  # 10 a second, with B-frames


def seen(data, **options):
    """The decoder of a file, and the numbers of all of its frames."""
    video = PlaybackDecoder(data, "the video", **options)
    return video, [number(frame) for frame in video.frames(range(video.length.frames))]


def times(video):
    return video.length.seconds(range(video.length.frames))


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "mpeg4"),
        ("matroska", "libx264"),
        ("webm", "libvpx-vp9"),
        ("webm", "libvpx"),
        ("mpegts", "libx264"),
        ("mpeg", "mpeg2video"),
        ("avi", "mpeg4"),
        ("avi", "libx264"),
        ("flv", "flv"),
        ("asf", "wmv2"),
        ("h264", "libx264"),
        ("m4v", "mpeg4"),
        ("ivf", "libvpx"),
    ],
)
def test_every_container(form, codec):
    """Those whose clock begins later, that have no times or count none, and H.264 in AVI, whose times are wrong."""
    video, numbers = seen(video_files.encoded(FRAMES, form=form, codec=codec, fps=25))
    assert numbers == list(range(30))
    assert video.length.fps == 25
    assert times(video) == pytest.approx([i / 25 for i in range(30)], abs=0.0011)  # some clocks tick in milliseconds


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), 24, 60])
@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_an_even_rate_is_exact(form, rate):
    """So that a sampler takes the frames that it would take of the header's rate."""
    length = PlaybackDecoder(video_files.encoded(FRAMES, form=form, fps=rate), "it").length
    assert (length.frames, length.fps, length.duration) == (30, float(rate), float(30 / rate))


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_every_frame", "frag_keyframe+default_base_moof"])
def test_fragments(flags):
    """The header counts the first fragment, or nothing."""
    data = video_files.remuxed(video_files.encoded(FRAMES, codec="mpeg4"), options={"movflags": flags})
    assert VideoDecoder(data, "it").length.frames <= 30
    video, numbers = seen(data)
    assert numbers == list(range(30))
    assert times(video) == pytest.approx([i / 10 for i in range(30)])


@pytest.mark.parametrize("first", [1, 11, 29])
@pytest.mark.parametrize("form", ["mp4", "mov"])
def test_cut_without_encoding(form, first):
    """An edit list hides the frames before the cut; they are decoded, because the others refer to them."""
    data = video_files.remuxed(PLAIN, form, skip=first / 10)
    assert b"elst" in data
    video, numbers = seen(data)
    assert numbers == list(range(first, 30))
    assert times(video) == pytest.approx([i / 10 for i in range(30 - first)])
    assert video.length.fps == 10
    assert video.length.duration == pytest.approx((30 - first) / 10)


@pytest.mark.parametrize(
    ("edits", "want"),
    [
        ([(2000, 0)], range(20)),
        ([(2000, 1.5)], range(15, 35)),
        ([(500, None), (2000, 1)], range(10, 30)),
        ([(1000, 3.5), (1000, 0.5)], [*range(35, 45), *range(5, 15)]),
    ],
)
def test_edit_lists(edits, want):
    """Ends that are cut off, a pause in front, parts in another order; FFmpeg's times of those overlap."""
    video = video_files.encoded(numbered(60), keys=10)
    delay = 2048  # ticks by which B-frames have everything begin later
    data = video_files.edited(video, *((ms, -1 if at is None else delay + int(at * 10240)) for ms, at in edits))
    shown, numbers = seen(data)
    assert numbers == list(want)
    assert times(shown) == pytest.approx([i / 10 for i in range(20)])
    assert shown.length.fps == 10


def test_a_late_start():
    """The first frame that is shown is at 0."""
    video, numbers = seen(video_files.remuxed(PLAIN, "matroska", skip=-7))
    assert (numbers, times(video)[:2]) == (list(range(30)), [0, pytest.approx(0.1)])


@pytest.mark.parametrize("form", ["mpegts", "matroska", "mp4"])
def test_cut_in_the_midst_of_a_group(form):
    """What comes before the first key frame cannot be shown."""
    video = video_files.encoded(numbered(60), form="mpegts", keys=20)
    data = video_files.remuxed(video, form, leave_out=range(7))
    shown, numbers = seen(data)
    assert 7 < numbers[0] <= 20  # where the encoder put a key frame
    assert numbers == list(range(numbers[0], 60))
    assert times(shown)[:2] == [0, pytest.approx(0.1)]
    assert not shown.damaged


def test_joined_files():
    """The clock of MPEG-TS begins anew; time goes on."""
    data = video_files.encoded(FRAMES, form="mpegts")
    video, numbers = seen(data + data)
    assert numbers == 2 * list(range(30))
    assert times(video) == pytest.approx([i / 10 for i in range(60)])


@pytest.mark.parametrize("form", ["mp4", "matroska"])
@pytest.mark.parametrize("front", [False, True])
def test_cover_pictures(form, front):
    """They are no video, wherever they are."""
    data = video_files.covered(PLAIN, form, np.full((480, 640, 3), 200, np.uint8))
    if front and form == "mp4":
        data = video_files.cover_in_front(data)
        assert VideoDecoder(data, "it").size == (480, 640)  # transformers would take it
    video, numbers = seen(data)
    assert (video.size, numbers) == ((64, 96), list(range(30)))


def test_sound_with_a_cover_is_no_video():
    data = video_files.covered(None, "mp4", FRAMES[0])
    with pytest.raises(VideoError, match="the video contains no video stream"):
        PlaybackDecoder(data, "the video")


def test_a_minute_of_a_screen(rng):
    """A browser's WebM: uneven frames, a clock in milliseconds, no rate."""
    when = np.sort(rng.choice(np.arange(1, 59000), 298, replace=False)).tolist()
    when = [0, *when, 59900]
    data = video_files.encoded(
        np.resize(numbered(100, 32, 64), (300, 32, 64, 3)), fps=1000, times=when, form="webm", codec="libvpx"
    )
    assert VideoDecoder(data, "it").length.duration < 1
    video, numbers = seen(data)
    assert numbers == [i % 100 for i in range(300)]
    assert times(video) == pytest.approx([ms / 1000 for ms in when])
    assert video.length.fps == pytest.approx(300 / 59.9, rel=1e-3)


def test_a_rate_that_varies():
    when = [i * 1000 // 30 for i in range(60)] + [2000 + 1000 * i for i in range(20)]
    video, numbers = seen(video_files.encoded(numbered(80), fps=1000, times=when))
    assert numbers == list(range(80))
    assert times(video) == pytest.approx([ms / 1000 for ms in when])
    assert video.length.duration == pytest.approx(22)
    assert video.length.fps == pytest.approx(80 / 22)


def test_a_rate_that_the_caller_knows_better():
    length = PlaybackDecoder(PLAIN, "it", fps=5).length
    assert (length.fps, length.duration, length.seconds([0, 29])) == (5, 6, [0, 5.8])


@pytest.mark.parametrize(
    ("aspect", "degrees", "size"),
    [(2, 0, (64, 192)), (Fraction(1, 2), 0, (64, 48)), (2, 90, (192, 64)), (Fraction(8, 9), 270, (85, 64))],
)
def test_pixels_that_are_not_square(aspect, degrees, size):
    """The size is as seen; frames come as they are stored, turned."""
    data = video_files.remuxed(PLAIN, sample_aspect_ratio=aspect)
    data = video_files.turned(data, degrees) if degrees else data
    video = PlaybackDecoder(data, "it")
    assert video.size == size
    assert next(video.frames([0])).shape == ((96, 64, 3) if degrees else (64, 96, 3))
    assert PlaybackDecoder(data, "it", upright=False).size == (64, 96)
    assert VideoDecoder(data, "it", upright=False).size == (64, 96)


def test_an_aspect_that_no_screen_has():
    with pytest.raises(LimitError, match=r"frames of 64 x 6144000"):
        PlaybackDecoder(video_files.remuxed(PLAIN, sample_aspect_ratio=64000), "it")


def test_hidden_frames():
    """VP8 marks a frame that nobody sees with one bit; others refer to it."""
    data = bytearray(video_files.encoded(FRAMES, form="ivf", codec="libvpx"))
    place, _ = video_files.places(bytes(data))[10]
    data[place + 12] &= ~0x10 & 0xFF  # behind the header of the packet
    video, numbers = seen(bytes(data))
    assert numbers == [i for i in range(30) if i != 10]
    assert times(video) == pytest.approx([i / 10 for i in range(30) if i != 10])


def test_one_frame():
    video, numbers = seen(video_files.encoded(FRAMES[:1]))
    assert (numbers, video.length.fps, video.length.duration) == ([0], 10, 0.1)


def test_limits(monkeypatch):
    monkeypatch.setattr("qwenvis.videos.decode.MAX_FRAMES", 29)
    with pytest.raises(LimitError, match="more than 29 frames"):
        PlaybackDecoder(PLAIN, "it")


def test_packets_are_counted_and_not_decoded(monkeypatch):
    """A long video is not decoded twice: planning it decodes one frame."""
    decoded = []
    monkeypatch.setattr("qwenvis.videos.playback._decoded", lambda packet: decoded.append(1) or packet.decode())
    video = PlaybackDecoder(video_files.encoded(numbered(90), codec="mpeg4"), "it")
    assert len(decoded) < 5
    list(video.frames([0, 30]))
    assert len(decoded) < 45


@pytest.mark.parametrize("source", [bytes, io.BytesIO])
def test_kinds_of_source(source):
    assert seen(source(PLAIN))[1] == list(range(30))
