"""Video files: the frames of transformers' own reader, bit by bit; and files that are none."""

import contextlib
import io
import threading
from fractions import Fraction

import numpy as np
import pytest
from transformers.video_utils import load_video

from made import video_files
from qwenvis.errors import LimitError, VideoError
from qwenvis.videos.decode import VideoDecoder
from qwenvis.videos.playback import PlaybackDecoder

CLIP = video_files.frames(13)
UNEVEN = [0, 40, 90, 400, 420, 800, 950, 1000, 1500, 1510, 1700, 1999, 2400]  # ms


def decoder(data, **options):
    return VideoDecoder(data, "the video", **options)


def theirs(path, indices):
    """Frames of these indices and metadata as transformers reads them."""
    return load_video(str(path), backend="pyav", sample_indices_fn=lambda metadata, **_: indices)


@pytest.fixture(params=["even", "uneven", "mpeg4", "sound", "odd size"])
def path(request, tmp_path):
    """A file of 13 frames."""
    made = {
        "even": lambda: video_files.encoded(CLIP),
        "uneven": lambda: video_files.encoded(CLIP, fps=1000, times=UNEVEN),
        "mpeg4": lambda: video_files.encoded(CLIP, codec="mpeg4", fps=Fraction(30000, 1001)),
        "sound": lambda: video_files.encoded(CLIP, audio=True),
        "odd size": lambda: video_files.encoded(video_files.frames(13, 50, 78)),
    }[request.param]()
    path = tmp_path / "clip.mp4"
    path.write_bytes(made)
    return path


def test_frames_length_and_size_are_those_of_transformers(path):
    indices = [0, 3, 4, 11, 12]
    frames, metadata = theirs(path, indices)
    ours = decoder(path)
    assert ours.length.frames == metadata.total_num_frames == 13
    assert ours.length.fps == metadata.fps
    assert ours.length.duration == metadata.duration
    assert ours.size == (metadata.height, metadata.width)
    np.testing.assert_array_equal(np.stack(list(ours.frames(indices))), frames)


@pytest.mark.parametrize("threads", [1, 3])
def test_frames_again_and_twice(threads):
    ours = decoder(video_files.encoded(CLIP), threads=threads)
    every = list(ours.frames(range(13)))
    twice = list(ours.frames([2, 2, 12, 12]))
    for got, index in zip(twice, [2, 2, 12, 12], strict=True):
        np.testing.assert_array_equal(got, every[index])
    assert len({frame.tobytes() for frame in every}) == 13


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, io.BytesIO])
def test_kinds_of_source(path, make):
    data = path.read_bytes()
    source = make(data)
    if make is io.BytesIO:
        source.seek(100)
    for got, want in zip(decoder(source).frames([0, 12]), decoder(path).frames([0, 12]), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("form", ["matroska", "mpegts"])
def test_a_header_that_does_not_count(form):
    """Here transformers fails: it looks for indices of no frames."""
    ours = decoder(video_files.encoded(CLIP, form=form))
    assert ours.length.frames == 13
    assert len(list(ours.frames(range(13)))) == 13


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_upright(degrees):
    plain = video_files.encoded(video_files.frames(2))
    want = next(decoder(plain).frames([0]))
    aside = decoder(video_files.turned(plain, degrees))
    got = next(aside.frames([0]))
    assert aside.size == got.shape[:2] == ((96, 64) if degrees % 180 else (64, 96))
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, np.rot90(want, -degrees // 90))
    as_stored = decoder(video_files.turned(plain, degrees), upright=False)
    np.testing.assert_array_equal(next(as_stored.frames([0])), want)


def test_one_frame():
    ours = decoder(video_files.encoded(video_files.frames(1)))
    assert ours.length.frames == 1
    assert len(list(ours.frames([0, 0]))) == 2


def test_a_rate_that_is_told():
    ours = decoder(video_files.encoded(CLIP), fps=5)
    assert (ours.length.fps, ours.length.duration) == (5, 2.6)


def test_frames_are_decoded_as_they_are_asked_for():
    """Another frame is made only when the one before has been taken, and an unfinished reader does no harm."""
    ours = decoder(video_files.encoded(CLIP))
    frames = ours.frames(range(13))
    next(frames)
    assert len(list(ours.frames([12]))) == 1
    next(frames)
    frames.close()


def test_several_threads_read_at_once():
    ours, got = decoder(video_files.encoded(CLIP)), []
    want = [frame.tobytes() for frame in ours.frames(range(13))]
    readers = [
        threading.Thread(target=lambda: got.append([frame.tobytes() for frame in ours.frames(range(13))]))
        for _ in range(4)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert got == [want] * 4


# Files that are none, or are not whole.


def test_a_file_without_its_end():
    """An MP4 file has its index behind the frames."""
    whole = video_files.encoded(CLIP)
    with pytest.raises(VideoError, match="is not a video, or is damaged"):
        decoder(whole[: whole.index(b"moov") - 20])


@pytest.mark.parametrize("form", ["matroska", "mpegts"])
def test_a_file_cut_short(form):
    """What counts its frames as they come has as many as are there; the first, a whole picture, takes up to half."""
    whole = video_files.encoded(CLIP, form=form)
    ours = decoder(whole[: len(whole) * 3 // 4])
    assert 0 < ours.length.frames < 13
    assert len(list(ours.frames(range(ours.length.frames)))) == ours.length.frames


def test_a_file_that_ends_before_its_header_says():
    ours = decoder(video_files.encoded(video_files.frames(60)))
    ours.length = type(ours.length)(120, 10)
    with pytest.raises(VideoError, match="the video ends after 60 of 120 frames: it is truncated"):
        list(ours.frames([0, 119]))


def test_a_file_that_ends_a_moment_before_its_header_says():
    """As transformers, whose video processors repeat the last frame where one is missing."""
    ours = decoder(video_files.encoded(CLIP))
    ours.length = type(ours.length)(15, 10)
    first, last = ours.frames([0, 14])
    want = list(decoder(video_files.encoded(CLIP)).frames([0, 12]))
    np.testing.assert_array_equal([first, last], want)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"\x00" * 4096, b"\xff\xd8\xff\xe0" + bytes(50), b"RIFF\x10\x00\x00\x00AVI LIST" + bytes(40)],
)
def test_no_video(data):
    with pytest.raises(VideoError, match=r"^the video (is not a video, or is damaged: [A-Z]|has no)"):
        decoder(data)


def test_damaged_bytes_never_crash(rng):
    data = video_files.encoded(CLIP)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            damaged[place] = rng.integers(0, 256)
        for kind in (VideoDecoder, PlaybackDecoder):
            with contextlib.suppress(VideoError, LimitError):
                ours = kind(bytes(damaged), "the video")
                list(ours.frames(range(min(ours.length.frames, 13))))


@pytest.mark.parametrize("kind", [VideoDecoder, PlaybackDecoder])
@pytest.mark.parametrize("step", ["open", "demux"])
def test_what_ffmpeg_has_no_memory_for(monkeypatch, kind, step):
    """A damaged file may have it ask for any amount: an error of the video, though FFmpeg's is a MemoryError too."""
    import av

    lack = av.error.MemoryError(12, "Cannot allocate memory")

    def fail(*_, **__):
        raise lack

    data = video_files.encoded(CLIP)
    opened = kind(data, "the video")
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", fail) if step == "open" else patch.setattr("qwenvis.videos.decode.check_sides", fail)
        with pytest.raises(VideoError, match="the video is not a video, or is damaged: Cannot allocate memory"):
            next(opened.frames([0]))


@pytest.mark.parametrize("kind", [VideoDecoder, PlaybackDecoder])
def test_a_lack_of_memory_of_ours_stays_one(monkeypatch, kind):
    opened = kind(video_files.encoded(CLIP), "the video")
    monkeypatch.setattr(kind, "_pixels", lambda *_: np.empty(2**62, np.uint8))
    with pytest.raises(MemoryError) as caught:
        next(opened.frames([0]))
    assert not isinstance(caught.value, VideoError)


def test_sound_alone():
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        container.mux(stream.encode(video_files.silence()))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="contains no video stream"):
        decoder(file.getvalue())


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_no_other_file_is_opened(tmp_path, text):
    """Playlists and lists of files would have FFmpeg read what they name."""
    (tmp_path / "clip.mp4").write_bytes(video_files.encoded(CLIP))
    (tmp_path / "list.m3u8").write_text(text.format(path=tmp_path / "clip.mp4"))
    with pytest.raises(VideoError, match="is not a video, or is damaged"):
        decoder(tmp_path / "list.m3u8")


@pytest.mark.parametrize("source", ["none.mp4", "http://127.0.0.1:9/clip.mp4", "concat:a.mp4|b.mp4", "a\0b", 3, None])
def test_no_file(source):
    with pytest.raises(VideoError, match=r"no such file|is not a video|is a URL|null byte"):
        decoder(source)


def test_limits_come_before_the_frames(monkeypatch, tmp_path):
    data = video_files.encoded(CLIP)
    (tmp_path / "clip.mp4").write_bytes(data)
    for name, value, words in [
        ("MAX_IMAGE_PIXELS", 64 * 96 - 1, "frames of 64 x 96; at most 6,143 pixels are decoded"),
        ("MAX_FRAMES", 12, "more than 12 frames, the limit"),
        ("MAX_BYTES", len(data) - 1, f"has {len(data):,} bytes; at most"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(f"qwenvis.videos.decode.{name}", value)
            with pytest.raises(LimitError, match=words):
                decoder(tmp_path / "clip.mp4")


def test_an_old_pyav(monkeypatch):
    monkeypatch.setattr("av.__version__", "17.1.0")
    with pytest.raises(VideoError, match=r"read with PyAV 18 or later; installed is 17.1.0: pip install -U av"):
        decoder(b"")


def test_without_pyav(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(VideoError, match=r"PyAV, which is not installed: pip install 'qwenvis\[video\]'"):
        decoder(b"")
