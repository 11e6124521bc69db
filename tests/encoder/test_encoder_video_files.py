"""Video files of all kinds through the encoder: right frames and times, for every rule that chooses frames."""

import warnings

import numpy as np
import pytest

import qwenvis
from made import video_files
from made.presets import encoder, same_bits
from made.video_files import numbered
from qwenvis.errors import VideoError
from qwenvis.videos.decode import VideoDecoder

VIDEOS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"]
FRAMES = numbered(40)
PLAIN = video_files.encoded(FRAMES)
DECODED = np.stack(list(VideoDecoder(PLAIN, "it").frames(range(40))))
UNEVEN = [0, 40, 90, 400, 420, 800, 950, 1000, 1500, 1510, 1700, 1999]
VARIED = video_files.encoded(FRAMES[:12], fps=1000, times=UNEVEN)

# name -> file, its frames, their seconds, the seconds of all
FILES = {
    "fragments": (
        video_files.remuxed(PLAIN, options={"movflags": "frag_every_frame"}),
        DECODED,
        np.arange(40) / 10,
        4,
    ),
    "edit list": (video_files.remuxed(PLAIN, skip=1), DECODED[10:], np.arange(30) / 10, 3),
    "cover": (
        video_files.cover_in_front(video_files.covered(PLAIN, "mp4", FRAMES[0, :50])),
        DECODED,
        np.arange(40) / 10,
        4,
    ),
    "varied": (VARIED, np.stack(list(VideoDecoder(VARIED, "it").frames(range(12)))), np.array(UNEVEN) / 1000, None),
}


@pytest.mark.parametrize("family", VIDEOS)
@pytest.mark.parametrize("name", FILES)
def test_frames_and_times(family, name):
    data, frames, seconds, whole = FILES[name]
    model = encoder(family)
    out = model.encode(videos=[data], fps=2)
    indices = out.frame_indices[0]
    assert indices.max() < len(frames)
    chosen = frames[indices]
    assert same_bits(out.embeddings, model.encode(videos=[chosen]).embeddings)
    times = seconds[indices].reshape(-1, 2)
    assert out.timestamps[0] == pytest.approx(times[:, 0] if family == "glm4v" else times.mean(axis=1))
    if whole:
        assert len(set(indices.tolist())) == pytest.approx(whole * 2, abs=1)
        assert out.second_per_grid_ts[0] == pytest.approx(2 * whole / len(indices))


def test_all_frames_of_a_video():
    out = encoder().encode(videos=[FILES["edit list"][0]], sampling="all")
    assert out.frame_indices[0].tolist() == list(range(30))
    assert out.second_per_grid_ts[0] == pytest.approx(0.2)


def test_the_references_go_by_the_header():
    """As transformers and qwen-vl-utils do; the frames that an edit list hides are not there at the end."""
    for sampling in ("transformers", "qwen-vl-utils"):
        out = encoder().encode(videos=[VARIED], sampling=sampling, num_frames=12)
        assert out.timestamps[0][-1] < 2  # of the average rate
        with pytest.raises(VideoError, match="truncated"):
            encoder().encode(videos=[video_files.remuxed(PLAIN, skip=2)], sampling=sampling, num_frames=40)


@pytest.mark.parametrize("family", VIDEOS)
def test_a_video_is_seen_as_wide_as_it_is(family):
    """One step from the stored pixels to the patches."""
    wide = video_files.remuxed(PLAIN, sample_aspect_ratio=2)
    model = encoder(family)
    grid = model.encode(videos=[wide], fps=2).grid_thw[0].tolist()
    assert grid == model.encode(videos=[DECODED[:8].repeat(2, axis=2)]).grid_thw[0].tolist()
    stored = encoder(family, pixels="transformers").encode(videos=[wide], fps=2)
    assert stored.grid_thw.tolist() == model.encode(videos=[PLAIN], fps=2).grid_thw.tolist()
    by_header = model.encode(videos=[wide], fps=2, sampling="transformers")
    assert by_header.grid_thw.tolist() == stored.grid_thw.tolist()


def test_a_damaged_video():
    video = video_files.encoded(numbered(90), codec="mpeg4", fps=30, keys=1)
    with pytest.warns(qwenvis.VideoWarning, match=r"^video 1 .*: 1 of 90 frames cannot be decoded"):
        out = encoder().encode(videos=[PLAIN, video_files.damaged(video, 41)], sampling="all")
    assert out.provenance["damaged_frames"] == "1"
    whole = encoder().encode(videos=[video], sampling="all")
    steps = whole.counts[0] // 45
    damaged = out.items()[1].embeddings
    same = (damaged == whole.embeddings).reshape(45, steps, -1).all(axis=(1, 2))
    assert np.flatnonzero(~same).tolist() == [20]
    assert "damaged_frames" not in whole.provenance


def test_a_video_that_is_too_damaged():
    video = video_files.encoded(numbered(30), codec="mpeg4", fps=30, keys=1)
    with pytest.raises(VideoError, match=r"^video 0 .*is damaged: 4 of 30 frames"):
        encoder().encode(videos=[video_files.damaged(video, 3, 5, 7, 9, 11)], sampling="all")


def test_a_rate_that_is_assumed_is_told():
    """And times and steps agree: 4 of 240 frames are 2.5 seconds apart."""
    frames = np.broadcast_to(np.uint8(0), (240, 32, 32, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = encoder().encode(videos=[frames], num_frames=4)
    assert out.provenance["video_fps"] == "24 (assumed)"
    assert out.second_per_grid_ts[0] == pytest.approx(np.diff(out.timestamps[0])[0]) == 5
    assert "video_fps" not in encoder().encode(videos=[frames[:4]], video_fps=24).provenance
    assert encoder().encode(videos=[frames], num_frames=4, sampling="transformers").second_per_grid_ts[0] == 2 / 24


@pytest.mark.parametrize("limits", [{"max_pixels": 56 * 56}, {"min_pixels": 600 * 784, "max_pixels": 700 * 784}])
def test_limits_of_an_encoder_hold_for_every_sampling(limits):
    """Of a call, of an encoder, and for the limits that qwen-vl-utils has of its own."""
    call = encoder().encode(videos=[PLAIN], sampling="qwen-vl-utils", num_frames=2, **limits)
    built = encoder(**limits).encode(videos=[PLAIN], sampling="qwen-vl-utils", num_frames=2)
    free = encoder().encode(videos=[PLAIN], sampling="qwen-vl-utils", num_frames=2)
    assert call.grid_thw.tolist() == built.grid_thw.tolist() != free.grid_thw.tolist()
    assert same_bits(call.embeddings, built.embeddings)


@pytest.mark.parametrize("family", VIDEOS)
def test_a_video_of_one_frame(family):
    """A still that lasts, whichever of the frames are wanted."""
    video = video_files.encoded(FRAMES[:1])
    every = encoder(family).encode(videos=[video], sampling="all")
    assert every.grid_thw[0, 0] == 1
    assert every.timestamps[0].tolist() == [0]
    assert same_bits(every.embeddings, encoder(family).encode(videos=[video]).embeddings)
