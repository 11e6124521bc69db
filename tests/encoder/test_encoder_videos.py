"""Videos through the front door: beside stills, in parts, saved and loaded."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made import video_files
from made.presets import checkpoint, encoder, picture, same_bits
from processes.programs import output
from qwenvis import Embeddings
from qwenvis.encoding.batching import Plan
from qwenvis.errors import ConfigError, ImageLimitError, InputError, VideoError
from qwenvis.videos.video import VideoItem, VideoOptions

VIDEOS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"]
CLIP = video_files.frames(9, 70, 100)


@pytest.mark.parametrize("family", VIDEOS)
def test_a_video_is_its_patches(family):
    """What is encoded in parts is what the tower makes of all patches at once."""
    model = encoder(family)
    out = model.encode(videos=[CLIP], video_fps=10)
    batch = model.preprocess(videos=[CLIP], video_fps=10)
    assert out.grid_thw.tolist() == batch.grid_thw.tolist()
    assert out.grid_thw[0, 0] == 5
    assert same_bits(out.embeddings, model(*batch).embeddings)
    assert out.frame_indices[0].tolist() == list(range(9))
    assert len(out.timestamps[0]) == 5
    assert out.second_per_grid_ts.tolist() == [0.2]


@pytest.mark.parametrize("family", VIDEOS)
@pytest.mark.parametrize("budget", [1, 100, 10**6])
def test_parts_have_the_bits_of_the_whole(monkeypatch, family, budget):
    model = encoder(family)
    want = model.encode(videos=[CLIP], hidden_states=True)
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", budget)
    got = model.encode(videos=[CLIP], hidden_states=True)
    assert same_bits(got.embeddings, want.embeddings)
    assert all(map(same_bits, got.hidden_states + got.deepstack, want.hidden_states + want.deepstack))


def test_stills_among_videos_in_order():
    model = encoder()
    video, still, other = video_files.encoded(CLIP), picture(61, 97), picture(56, 56, seed=1)
    out = model.encode([other], videos=[CLIP, still, video], sampling="all")
    alone = [
        model.encode(other),
        model.encode(videos=CLIP, sampling="all"),
        model.encode(still),
        model.encode(videos=video, sampling="all"),
    ]
    for got, want in zip(out.items(), alone, strict=True):
        assert same_bits(got.embeddings, want.embeddings)
    assert [len(frames) for frames in out.frame_indices] == [0, 9, 0, 9]
    assert [len(times) for times in out.timestamps] == [0, 5, 0, 5]
    assert (out.second_per_grid_ts > 0).tolist() == [False, True, False, True]
    streamed = list(model.encode_iter([other], videos=iter([CLIP, still, video]), sampling="all", patch_budget=40))
    for got, want in zip(streamed, out.items(), strict=True):
        assert same_bits(got.embeddings, want.embeddings)
        assert got.timestamps == [] or same_bits(got.timestamps[0], want.timestamps[0])
    assert [len(got.timestamps) for got in streamed] == [0, 1, 0, 1]
    assert out.provenance["sampling"] == "all"
    assert "frame_indices" not in alone[0].provenance
    assert alone[0].frame_indices == []


def test_saved_and_loaded(tmp_path):
    out = encoder().encode(picture(56, 56), videos=[CLIP, video_files.encoded(CLIP)], fps=4, video_fps=10)
    out.save(tmp_path / "out.safetensors")
    loaded = Embeddings.load(tmp_path / "out.safetensors")
    for name in ("frame_indices", "timestamps"):
        assert all(map(same_bits, getattr(loaded, name), getattr(out, name)))
        assert len(getattr(loaded, name)) == 3
    assert same_bits(loaded.second_per_grid_ts, out.second_per_grid_ts)


@pytest.mark.parametrize(
    "damage", [{"frame_counts": [9, 1]}, {"timestamps": [0.0]}, {"second_per_grid_ts": [1.0, 2.0]}]
)
def test_times_that_do_not_fit_are_refused(tmp_path, damage):
    from safetensors.numpy import load_file, save_file

    encoder().encode(videos=CLIP).save(tmp_path / "out.safetensors")
    arrays = load_file(tmp_path / "out.safetensors")
    for name, values in damage.items():
        arrays[name] = np.array(values, arrays[name].dtype)
    save_file(arrays, tmp_path / "bad.safetensors", {"merge_size": "2"})
    with pytest.raises(InputError, match="its frames and times do not fit the grid"):
        Embeddings.load(tmp_path / "bad.safetensors")


def test_what_cannot_be_used_is_listed_before_anything_is_encoded(tmp_path):
    with pytest.raises(InputError) as caught:
        encoder().encode(["none.jpg"], videos=["none.mp4", CLIP, b"text"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 of 4 images and videos cannot be used:"
    assert [line.split(" (")[0].strip() for line in lines[1:]] == ["image 0", "video 0", "video 2"]


def test_an_image_beyond_the_limit_is_one_among_videos_too(tmp_path, monkeypatch):
    Image.fromarray(picture(56, 84)).save(tmp_path / "large.png")
    monkeypatch.setattr("qwenvis.images.decode.MAX_IMAGE_PIXELS", 56 * 84 - 1)
    with pytest.raises(ImageLimitError, match=r"large\.png.* is 56 x 84, 4,704 pixels; at most 4,703"):
        encoder().encode(videos=[tmp_path / "large.png", CLIP[:, :28, :28]])


def test_a_stream_gives_out_what_was_before_the_bad_one():
    stream = encoder().encode_iter(videos=iter([CLIP, picture(56, 56), b"text"]))
    assert next(stream).grid_thw[0, 0] == 5
    assert next(stream).grid_thw[0, 0] == 1
    with pytest.raises(VideoError, match=r"^video 2 "):
        next(stream)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "neither images nor videos"),
        (
            {"images": [], "fps": 2, "num_frames": None},
            "fps would choose the frames of videos, but no videos were passed",
        ),
        ({"videos": [picture(56, 56), picture(56, 56)]}, r"videos is a list of 2 images: .* pass videos=\[frames\]"),
        ({"videos": CLIP, "min_pixels": 10**6, "max_pixels": 10**3}, "min_pixels 1000000 is larger"),
        ({"videos": CLIP, "sampling": "best"}, "sampling is 'best'"),
    ],
)
def test_calls_that_cannot_be(arguments, words):
    with pytest.raises(InputError, match=words):
        encoder().encode(**arguments)


@pytest.mark.parametrize("images", [None, [picture(56, 56)]])
def test_a_word_that_is_not_known(images):
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_frames'"):
        encoder().encode(images, videos=CLIP, n_frames=3)


def test_a_family_without_videos():
    with pytest.raises(ConfigError, match="paddleocr_vl has no videos: transformers has no video processor for it"):
        encoder("paddleocr_vl").encode(videos=CLIP)


@pytest.mark.parametrize("family", ["glm_ocr", "glm4v_moe"])
def test_a_family_whose_image_processor_names_that_of_videos(family):
    assert encoder(family).encode(videos=CLIP).grid_thw[0, 0] > 0


def test_limits_of_a_call():
    model = encoder()
    small = model.encode(videos=CLIP, max_pixels=56 * 56)
    assert small.grid_thw[0, 1:].prod() <= 16
    assert small.provenance["video_max_pixels"] == "3136"


def test_limits_of_an_encoder():
    """They are those of its images and of its videos, unless a call has others."""
    model = encoder(min_pixels=28 * 28, max_pixels=56 * 56)
    assert model.encode(videos=CLIP).provenance["video_max_pixels"] == "3136"
    assert model.encode(videos=CLIP, max_pixels=10**4).provenance["video_max_pixels"] == "10000"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_a_file_is_closed_once_its_frames_are_taken(tmp_path):
    paths = [tmp_path / f"{i}.mp4" for i in range(8)]
    for path in paths:
        path.write_bytes(video_files.encoded(CLIP))
    video_item = [VideoItem(str(path), VideoOptions.of(encoder().spec.video_processor, {}), 0) for path in paths]
    Plan(video_item, video_item[0].processor.columns).prepare()
    assert not {file.readlink() for file in Path("/proc/self/fd").iterdir() if file.is_symlink()} & set(paths)


def test_a_bare_mpeg_stream_is_no_picture():
    """Pillow knows its size, and cannot decode it."""
    video = video_files.encoded(CLIP[:, :64, :96], fps=25, form="mpeg1video", codec="mpeg1video")
    assert encoder().encode(videos=[video], sampling="all").grid_thw.tolist() == [[5, 4, 6]]


def test_a_turned_video(tmp_path):
    """Upright, unless pixels are to be those of transformers' reader."""
    video = video_files.turned(video_files.encoded(CLIP[:, :64, :96]), 90)
    grids = [
        encoder(pixels=pixels).encode(videos=video, sampling="all").grid_thw.tolist()
        for pixels in ("natural", "transformers")
    ]
    assert grids == [[[5, 6, 4]], [[5, 4, 6]]]


LONG = """
import resource, sys
from qwenvis import Encoder
encoder = Encoder.from_pretrained("{source}", threads=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out = encoder.encode(videos="{path}", num_frames=64)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(out.grid_thw.tolist(), (after - before) * 1024 - out.embeddings.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes there")
def test_memory_does_not_grow_with_the_video(tmp_path):
    """Ten minutes at 25 a second, and one: the same within 100 MB, far below what their frames would take."""
    some, taken = video_files.frames(50, 144, 192), []
    for minutes in (1, 10):
        path = tmp_path / f"{minutes}.mp4"
        path.write_bytes(video_files.encoded((some[i % 50] for i in range(minutes * 60 * 25)), fps=25))
        told = output(LONG.format(source=checkpoint(), path=path))
        grid, nbytes = told.rsplit(maxsplit=1)
        assert grid == "[[32, 10, 14]]"
        taken.append(int(nbytes))
    assert taken[1] < taken[0] + 100e6
    assert taken[1] < 500e6


def test_paths_of_pictures_alone_are_no_list_of_videos(tmp_path):
    """Frames in files are one video, as a list of lists; and stills have no frames to choose."""
    paths = []
    for i in range(4):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.full((56, 84, 3), 60 * i, np.uint8)).save(paths[-1])
    with pytest.raises(InputError, match=r"list of 4 images: for the frames of one video pass videos=\[frames\]"):
        encoder().encode(videos=paths, num_frames=2)
    assert encoder().encode(videos=[paths]).grid_thw.tolist() == [[2, 4, 6]]
    with pytest.raises(
        InputError, match="num_frames would choose the frames of videos, but all items are still images"
    ):
        encoder().encode(videos=paths[0], num_frames=2)


def test_provenance_says_how_pixels_were_read():
    picture = np.zeros((56, 84, 3), np.uint8)
    for pixels, backend in (("natural", "pil"), ("transformers", "torchvision")):
        out = encoder(pixels=pixels, backend=backend).encode(picture, videos=[np.stack([picture] * 2)])
        assert (out.provenance["pixels"], out.provenance["backend"]) == (pixels, backend)
