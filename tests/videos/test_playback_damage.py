"""Damaged and truncated video files: what can be decoded is shown, and the rest is counted."""

import pytest

from made import video_files
from made.video_files import number, numbered
from qwenvis.errors import VideoError
from qwenvis.videos.playback import PlaybackDecoder

FRAMES = numbered(30)


def seen(data, **options):
    """The decoder of a file, and the numbers of all of its frames."""
    video = PlaybackDecoder(data, "the video", **options)
    return video, [number(frame) for frame in video.frames(range(video.length.frames))]


STILLS = video_files.encoded(numbered(90), codec="mpeg4", fps=30, keys=1)  # each frame for itself


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("form", "which"), [("mp4", [41]), ("mp4", [0]), ("mp4", [89]), ("avi", [3, 4, 60])])
def test_damaged_packets(form, which, threads):
    """The frame before stands for one that is damaged, or at the beginning the one after."""
    data = video_files.encoded(numbered(90), form=form, codec="mpeg4", fps=30, keys=1)
    video, numbers = seen(video_files.damaged(data, *which), threads=threads)
    want = list(range(90))
    for index in which:
        want[index] = want[index - 1] if index else 1
    assert numbers == want
    assert video.damaged == len(which)
    assert video.length.fps == 30


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("which", [[20], [58], [59]])
def test_damage_is_the_same_for_any_number_of_threads(which, threads):
    """Of several threads, FFmpeg gives up what others were at."""
    data = video_files.damaged(video_files.encoded(numbered(60), keys=20), *which)
    assert seen(data, threads=threads)[1] == seen(data, threads=1)[1]


def test_a_wanted_frame_that_is_damaged():
    video = PlaybackDecoder(video_files.damaged(STILLS, 41), "it")
    assert [number(frame) for frame in video.frames([40, 41, 41, 42])] == [40, 40, 40, 42]
    assert video.damaged == 1


@pytest.mark.parametrize(("several", "refused"), [(9, False), (10, True)])
def test_damage_past_a_tenth(several, refused):
    data = video_files.damaged(STILLS, *range(5, 5 + 2 * several, 2))
    if not refused:
        assert seen(data)[0].damaged == several
        return
    with pytest.raises(
        VideoError, match="the video is damaged: 10 of 90 frames cannot be decoded; at most 10% are tolerated"
    ):
        seen(data)


def test_colours_that_are_not_converted():
    """FFmpeg decodes such a frame, and then has no RGB of it."""
    video = PlaybackDecoder(video_files.encoded(FRAMES, form="matroska", codec="ffv1", colorspace=14), "the video")
    with pytest.raises(VideoError, match="the video is not a video, or is damaged: Operation not supported"):
        next(video.frames([0]))


def test_nothing_that_can_be_decoded():
    with pytest.raises(VideoError, match="the video has no decodable frame"):
        PlaybackDecoder(video_files.damaged(STILLS, *range(90)), "the video")


@pytest.mark.parametrize("share", [0.5, 0.6])
def test_a_file_that_ends_long_before_its_header_says(share, tmp_path):
    data = video_files.begun_early(video_files.encoded(video_files.frames(30)), tmp_path / "it")
    with pytest.raises(VideoError, match=r"the video ends after \d+ of 30 frames: it is truncated"):
        PlaybackDecoder(data[: int(len(data) * share)], "the video")


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_matroska_that_ends_long_before_its_tag_says(codec):
    data = video_files.encoded(numbered(60), form="matroska", codec=codec)
    place, _ = video_files.places(data)[30]
    with pytest.raises(VideoError, match=r"the video ends after [23]\.\d of 6\.0 seconds: it is truncated"):
        PlaybackDecoder(data[:place], "the video")


def test_a_file_that_ends_a_moment_before_its_header_says(tmp_path):
    """What is not there is not shown."""
    data = video_files.begun_early(video_files.encoded(FRAMES, fps=30), tmp_path / "it")
    end = video_files.places(data)[28]
    video, numbers = seen(data[: end[0] + end[1] // 2])
    assert numbers == sorted(set(numbers))
    assert 26 <= len(numbers) == video.length.frames < 30
    assert not video.damaged


@pytest.mark.parametrize(("form", "options"), [("matroska", {"live": "1"}), ("mpegts", {})])
def test_a_file_cut_short_that_promised_nothing(form, options):
    whole = video_files.remuxed(video_files.encoded(FRAMES), form, options=options)
    video, numbers = seen(whole[: len(whole) * 3 // 4])
    assert numbers == sorted(set(numbers))  # a frame for which others wait may be behind the end
    assert 0 < len(numbers) == video.length.frames < 30
