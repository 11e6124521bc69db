"""Results are a sequence of items that know where they come from, in memory, in files and in notebooks."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from made.embeddings import BYTES, GRID, SIZES, SOURCES, equal, made
from made.presets import encoder, picture, same_bits
from qwenvis import Embeddings
from qwenvis.errors import ImageError, InputError

# A sequence.


def test_sequence():
    out = made()
    assert len(out) == 3
    for index, (item, tokens) in enumerate(zip(out, out.split(), strict=True)):
        equal(item, out[index])
        equal(item, out[index - 3])
        assert same_bits(item.embeddings, tokens)
        assert np.shares_memory(item.embeddings, out.embeddings)
        assert (item.sources, item.sizes.tolist()) == ([SOURCES[index]], [SIZES[index].tolist()])
        assert len(item) == 1
    assert [item.sources for item in reversed(out)] == [[source] for source in reversed(SOURCES)]
    assert made(errors=(ImageError("bad"),))[0].errors == ()


@pytest.mark.parametrize(
    "key",
    [
        *(
            slice(1, 3),
            slice(None),
            slice(None, None, -1),
            slice(2, 0, -1),
            slice(0, 3, 2),
            slice(5, 9),
            slice(-2, None),
        ),
        *([2, 0], [], [1, 1], np.array([-1]), np.array([True, False, True]), [False] * 3, np.int64(1)),
    ],
    ids=str,
)
def test_items_that_are_chosen(key):
    """As a list of the items would choose them."""
    out = made()
    want = [out[int(i)] for i in np.atleast_1d(np.arange(3)[key])]
    got = out[key]
    assert len(got) == len(want)
    for item, single in zip(got, want, strict=True):
        equal(item, single)
    assert got.embeddings.shape == (sum(len(each.embeddings) for each in want), 5)
    assert got.embeddings.flags.c_contiguous


def test_slices_of_neighbours_are_views():
    out = made()
    assert all(
        np.shares_memory(a, out.embeddings) for a in (out[1:].embeddings, out[0].embeddings, out[[1, 2]].embeddings)
    )
    assert not np.shares_memory(out[::2].embeddings, out.embeddings)


@pytest.mark.parametrize("key", [3, -4, None, (1, 2), "a", 1.5, True, [0, 3], [True]], ids=str)
def test_items_that_are_not_there(key):
    with pytest.raises(IndexError):
        made()[key]


def test_no_items():
    for out in (made()[:0], encoder().encode([]), encoder().encode([], hidden_states=True)[:]):
        assert (len(out), list(out), bool(out), out.sources, out.sizes.shape) == (0, [], False, [], (0, 2))
        assert (out.split(), out.items(), out.counts.tolist()) == ([], [], [])


def test_as_an_array():
    out = made()
    assert np.asarray(out) is out.embeddings
    assert np.array(out).base is None
    assert not np.shares_memory(np.array(out), out.embeddings)
    assert np.asarray(out, np.float64).dtype == np.float64
    assert same_bits(np.array(out, np.float32, copy=False), out.embeddings)
    with pytest.raises(ValueError, match="copy"):
        np.array(out, np.float64, copy=False)
    assert same_bits(np.concatenate([out, out[1]]), np.concatenate([out.embeddings, out[1].embeddings]))


# Parts that are joined.


def test_concatenate_is_the_inverse_of_items():
    equal(Embeddings.concatenate(made()), made())
    equal(Embeddings.concatenate([made()[:1], made()[1:]]), made())
    equal(Embeddings.concatenate(iter([made()[2], made()[0]])), made()[[2, 0]])
    joined = Embeddings.concatenate([made(), made()])
    assert (len(joined), not np.shares_memory(joined.embeddings, made().embeddings)) == (6, True)


def test_stills_are_joined_with_videos():
    stills = made(frame_indices=[], timestamps=[], second_per_grid_ts=np.zeros(0))
    joined = Embeddings.concatenate([stills, made()])
    assert [len(array) for array in joined.frame_indices] == [0, 0, 0, 0, 6, 0]
    assert [len(array) for array in joined.timestamps] == [0, 0, 0, 0, 3, 0]
    assert joined.second_per_grid_ts.tolist() == [0, 0, 0, 0, 0.5, 0]


def test_provenance_and_errors_are_joined():
    parts = [
        made(provenance={"source": "a", "max_pixels": size}, errors=(ImageError(size),)) for size in ("1", "2", "1")
    ]
    joined = Embeddings.concatenate(parts)
    assert joined.provenance == {"source": "a", "max_pixels": "1, 2"}
    assert [str(error) for error in joined.errors] == ["1", "2", "1"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"provenance": {"source": "somewhere", "family": "qwen3_vl", "format": "f32"}},
            "family qwen3_vl, part 0 qwen2_vl",
        ),
        ({"provenance": {"source": "somewhere", "family": "qwen2_vl", "format": "bf16"}}, "format bf16, part 0 f32"),
        (
            {"provenance": {"source": "else", "family": "qwen2_vl", "format": "f32"}},
            "the checkpoint else, part 0 somewhere",
        ),
        ({"provenance": {}}, "family unknown, part 0 qwen2_vl"),
        ({"embeddings": np.zeros((11, 4), np.float32)}, "the width 4, part 0 5"),
        ({"merge_size": 1, "embeddings": np.zeros((44, 5), np.float32)}, "the merge size 1, part 0 2"),
        ({"deepstack": []}, r"deepstack arrays of the widths \[\], part 0 \[5, 5, 5\]"),
        ({"hidden_states": []}, r"hidden states of the widths \[\], part 0 \[3, 3\]"),
    ],
)
def test_other_towers_are_refused(other, words):
    with pytest.raises(InputError, match=f"part 1 has {words}"):
        Embeddings.concatenate([made(), made(**other)])


def test_what_is_no_embeddings_is_refused():
    with pytest.raises(InputError, match="nothing to concatenate"):
        Embeddings.concatenate([])
    with pytest.raises(InputError, match="part 1 is a ndarray"):
        Embeddings.concatenate([made(), made().embeddings])


@pytest.mark.parametrize("changes", [{"sources": ["a"]}, {"sizes": np.zeros((2, 2), np.int64)}, {"sizes": np.zeros(3)}])
def test_names_have_to_fit_the_items(changes):
    with pytest.raises(InputError, match="expected 3 sources and sizes"):
        made(**changes)


# Where items come from.


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_sources_and_sizes_of_a_call(tmp_path, family):
    found = encoder(family)
    upright = Image.fromarray(picture(90, 61))
    exif = upright.getexif()
    exif[0x0112] = 6  # turned by a quarter
    upright.save(tmp_path / "turned.jpg", exif=exif)
    images = [tmp_path / "turned.jpg", picture(150, 113), str(tmp_path / "turned.jpg")]
    out = found.encode(images, videos=[np.zeros((4, 56, 84, 3), np.uint8), picture(56, 70)])
    path = str(tmp_path / "turned.jpg")
    assert out.sources == [path, "image 1", path, "video 0", "video 1"]
    assert out.sizes.tolist() == [[61, 90], [150, 113], [61, 90], [56, 84], [56, 70]]
    assert out.sizes.dtype == np.int64
    assert [item.sources for item in found.encode_iter(images)] == [[path], ["image 1"], [path]]
    joined = Embeddings.concatenate(found.encode_iter(images))
    assert same_bits(joined.embeddings, found.encode(images).embeddings)
    assert joined.sizes.tolist() == out.sizes[:3].tolist()


def test_what_is_known_of_pixel_values():
    found = encoder()
    out = found(*found.preprocess([picture(56, 56), picture(61, 97)]))
    assert out.sources == ["item 0", "item 1"]
    assert out.sizes.tolist() == [[0, 0], [0, 0]]


# Files.


@pytest.mark.parametrize("out", [made(), made()[1], made()[::2], made()[:0]], ids=repr)
def test_sources_and_sizes_survive_a_file(tmp_path, out):
    out.save(tmp_path / "out.safetensors")
    got = Embeddings.load(tmp_path / "out.safetensors")
    equal(got, replace(out, hidden_states=[]))


def test_text_that_is_no_utf8_survives_a_file(tmp_path):
    provenance = {"source": BYTES, "plain": "café", "kept.json": "1", "twice.json.json": BYTES}
    made(provenance=provenance, sources=[BYTES, "é", '"']).save(tmp_path / BYTES.replace("jpg", "safetensors"))
    got = Embeddings.load(tmp_path / BYTES.replace("jpg", "safetensors"))
    assert (got.provenance, got.sources) == (provenance, [BYTES, "é", '"'])


def test_old_files_are_read(tmp_path):
    tensors = {"embeddings": made().embeddings, "grid_thw": GRID}
    safetensors.numpy.save_file(tensors, tmp_path / "old", {"merge_size": "2", "images": '["a", "b", "c"]'})
    got = Embeddings.load(tmp_path / "old")
    assert (got.sources, got.sizes.tolist()) == (["item 0", "item 1", "item 2"], [[0, 0]] * 3)
    assert got.provenance == {"images": '["a", "b", "c"]'}


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({}, {"sources": '["a"]'}),
        ({}, {"sources": '["a", "b", 3]'}),
        ({}, {"sources": '{"a": 1}'}),
        ({}, {"sources": "no JSON"}),
        ({}, {"sources": "[" * 100_000}),
        ({}, {"source.json": "no JSON"}),
        ({"sizes": np.zeros((2, 2), np.int64)}, {}),
        ({"sizes": np.zeros((3, 2), np.int32)}, {}),
        ({"sizes": -np.ones((3, 2), np.int64)}, {}),
    ],
)
def test_files_of_other_content(tmp_path, tensors, metadata):
    kept = {"embeddings": made().embeddings, "grid_thw": GRID, **tensors}
    safetensors.numpy.save_file(kept, tmp_path / "out", {"merge_size": "2", **metadata})
    with pytest.raises(InputError, match=str(tmp_path / "out")):
        Embeddings.load(tmp_path / "out")


@pytest.mark.parametrize(
    "suffix", ["npy", "npz", "NPZ", "pt", "pth", "bin", "json", "csv", "parquet", "h5", "jpg", "gz"]
)
def test_a_suffix_of_another_format_is_refused(tmp_path, suffix):
    with pytest.raises(InputError, match=rf"tokens are written as safetensors, not \.{suffix.lower()}") as caught:
        made().save(tmp_path / f"tokens.{suffix}")
    assert ("np.save(path, out.embeddings)" in str(caught.value)) == (suffix.lower() in ("npy", "npz"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tokens", "tokens.v2", "tokens.safetensors", "tokens.st"])
def test_other_names_are_written(tmp_path, name):
    made().save(tmp_path / name)
    assert len(Embeddings.load(tmp_path / name)) == 3


def test_provenance_is_text(tmp_path):
    with pytest.raises(InputError, match="provenance has 'n': 1; expected text"):
        made(provenance={"n": 1}).save(tmp_path / "out")
