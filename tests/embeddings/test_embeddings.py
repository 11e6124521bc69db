"""Embeddings: split by item, saved whole or not at all, loaded as they were."""

import json
import re
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from made.embeddings import GRID, MADE, SOURCES, equal, made
from made.presets import encoder, picture, same_bits
from qwenvis import Embeddings
from qwenvis.errors import InputError

COUNTS = [2, 3, 6]


def test_counts_and_split():
    out = made()
    assert out.counts.tolist() == COUNTS
    parts = out.split()
    assert [len(part) for part in parts] == COUNTS
    assert same_bits(np.concatenate(parts), out.embeddings)
    assert all(np.shares_memory(part, out.embeddings) for part in parts)
    assert made(merge_size=1, embeddings=np.zeros((44, 5), np.float32)).counts.tolist() == [8, 12, 24]


def test_items():
    out = made()
    items = out.items()
    assert [item.grid_thw.tolist() for item in items] == GRID[:, None].tolist()
    for item, part, rows in zip(items, out.split(), [slice(8), slice(8, 20), slice(20, 44)], strict=True):
        assert same_bits(item.embeddings, part)
        assert all(same_bits(s, w[rows]) for s, w in zip(item.hidden_states, out.hidden_states, strict=True))
        assert (item.merge_size, item.provenance) == (2, out.provenance)
        assert same_bits(item.last_hidden_state, out.last_hidden_state[rows])
    for layer, whole in enumerate(out.deepstack):
        assert same_bits(np.concatenate([item.deepstack[layer] for item in items]), whole)
        assert [len(item.deepstack[layer]) for item in items] == COUNTS
    assert [item.hidden_states for item in made(hidden_states=[]).items()] == [[], [], []]


def test_hidden_states_have_to_be_asked_for():
    with pytest.raises(InputError, match="hidden_states=True"):
        _ = made(hidden_states=[]).last_hidden_state


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_save_and_load(tmp_path, kind):
    path = tmp_path / "tokens.safetensors"
    made().save(kind(path))
    equal(Embeddings.load(kind(path)), made(hidden_states=[]))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    other = tmp_path.parent / f"{tmp_path.name}-plain"
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode  # as the umask asks
    made(provenance={}).save(path)  # in place of the old one
    equal(Embeddings.load(path), made(provenance={}, hidden_states=[]))


def test_real_ones_survive_the_disk(tmp_path):
    out = encoder().encode([picture(61, 97), picture(150, 113)])
    out.save(tmp_path / "tokens")
    equal(Embeddings.load(tmp_path / "tokens"), out)
    second = out.items()[1]
    second.save(tmp_path / "second")
    equal(Embeddings.load(tmp_path / "second"), second)


def test_items_without_a_source_are_numbered(tmp_path):
    out = Embeddings(made().embeddings, GRID, 2)
    assert (out.sources, out.sizes.tolist()) == (["item 0", "item 1", "item 2"], [[0, 0]] * 3)
    out.save(tmp_path / "tokens")
    equal(Embeddings.load(tmp_path / "tokens"), out)


def test_other_readers_understand_the_file(tmp_path):
    made().save(tmp_path / "tokens")
    tensors = safetensors.numpy.load_file(tmp_path / "tokens")
    of_videos = {"frame_indices", "timestamps", "second_per_grid_ts", "frame_counts"}
    assert tensors.keys() == {"embeddings", "grid_thw", "sizes", *(f"deepstack.{i}" for i in range(3)), *of_videos}
    assert same_bits(tensors["embeddings"], made().embeddings)
    with safetensors.safe_open(tmp_path / "tokens", framework="numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata.pop("sources")) == SOURCES
    assert metadata == {**MADE, "merge_size": "2"}


@pytest.mark.parametrize("view", [(slice(None), slice(0, None, 2)), (slice(None, None, -1), slice(None))], ids=str)
def test_views_are_saved_as_what_they_show(tmp_path, view):
    deepstack = [each[view] for each in made().deepstack]
    out = made(embeddings=made().embeddings[view], grid_thw=np.asfortranarray(GRID), deepstack=deepstack)
    out.save(tmp_path / "tokens")
    loaded = Embeddings.load(tmp_path / "tokens")
    np.testing.assert_array_equal(loaded.embeddings, out.embeddings)
    np.testing.assert_array_equal(loaded.deepstack, deepstack)
    np.testing.assert_array_equal(loaded.grid_thw, GRID)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["OSError", "KeyboardInterrupt"])
def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch, error):
    path = tmp_path / "tokens"
    made().save(path)
    before = path.read_bytes()

    def half(tensors, draft, metadata):
        draft.write_bytes(before[:50])
        raise error

    monkeypatch.setattr("qwenvis.embeddings.file.save_file", half)
    with pytest.raises((InputError, KeyboardInterrupt)):
        made(provenance={}).save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_places_that_cannot_be_written(tmp_path):
    for place in (tmp_path / "nowhere" / "tokens", tmp_path):
        with pytest.raises(InputError, match="cannot be written"):
            made().save(place)
    assert not list(tmp_path.iterdir())
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))


def test_long_names(tmp_path):
    """The draft is no longer than the name; a name that is too long is an error of ours."""
    legal = tmp_path / ("a" * 255)
    made().save(legal)
    equal(Embeddings.load(legal), made(hidden_states=[]))
    for place in (tmp_path / ("a" * 256), legal / "tokens", tmp_path / "nul\0", tmp_path / "nul\0" / "tokens"):
        with pytest.raises(InputError, match=r"cannot be (written|a path)"):
            made().save(place)
    assert list(tmp_path.iterdir()) == [legal]


# Files that are something else.


def written(path, changes=None, metadata=None):
    tensors = {"embeddings": made().embeddings, "grid_thw": GRID, **(changes or {})}
    kept = {name: array for name, array in tensors.items() if array is not None}
    safetensors.numpy.save_file(kept, path, {"merge_size": "2"} if metadata is None else metadata)
    return path


WRONG = {
    "no tokens": {"changes": {"embeddings": None}},
    "no grid": {"changes": {"grid_thw": None}},
    "no merge_size": {"metadata": {}},
    "merge_size of no number": {"metadata": {"merge_size": "two"}},
    "merge_size of zero": {"metadata": {"merge_size": "0"}},
    "negative merge_size": {"metadata": {"merge_size": "-2"}},
    "huge merge_size": {"metadata": {"merge_size": "9" * 30}},
    "another merge_size": {"metadata": {"merge_size": "1"}},
    "one token too few": {"changes": {"embeddings": made().embeddings[:-1]}},
    "tokens of one axis": {"changes": {"embeddings": made().embeddings[:, 0].copy()}},
    "tokens of integers": {"changes": {"embeddings": np.zeros((11, 5), np.int64)}},
    "grid of one axis": {"changes": {"grid_thw": GRID.ravel()}},
    "grid of two columns": {"changes": {"grid_thw": GRID[:, :2].copy()}},
    "grid of floats": {"changes": {"grid_thw": GRID.astype(np.float32)}},
    "items of half a token": {
        "changes": {"embeddings": made().embeddings[:1], "grid_thw": np.array([[1, 1, 2], [1, 1, 2]])}
    },
    "negative grid": {"changes": {"grid_thw": GRID * [1, -1, -1]}},
}


@pytest.mark.parametrize("name", WRONG)
def test_files_of_other_content(tmp_path, name):
    path = written(tmp_path / "tokens", **WRONG[name])
    with pytest.raises(InputError, match=str(path)):
        Embeddings.load(path)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text").write_text("tokens")
    (tmp_path / "cut").write_bytes(written(tmp_path / "whole").read_bytes()[:-1])
    (tmp_path / "empty").touch()
    for name in ("text", "cut", "empty", "nowhere", "."):
        with pytest.raises(InputError, match="holds no embeddings"):
            Embeddings.load(tmp_path / name)
    assert Embeddings.load(tmp_path / "whole").counts.tolist() == COUNTS


@pytest.mark.parametrize("wrong", [((11, 4), np.float32), ((10, 5), np.float32), ((11, 5), np.float16)], ids=str)
def test_deepstack_of_another_shape_is_refused(tmp_path, wrong):
    path = written(tmp_path / "out", {"deepstack.0": np.zeros(*wrong)})
    with pytest.raises(InputError, match=f"{path}: deepstack 0 is .*; expected float32 {re.escape('(11, 5)')}"):
        Embeddings.load(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", ["embeddings", "deepstack.0"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_tokens_that_are_not_finite_are_refused(tmp_path, name, dtype, value):
    tensors = {each: made().embeddings.astype(dtype) for each in ("embeddings", "deepstack.0")}
    Embeddings.load(written(tmp_path / "tokens", tensors))
    tensors[name][4, 1] = value
    path = written(tmp_path / "spoilt", tensors, {"merge_size": "2", "sources": json.dumps(SOURCES)})
    with pytest.raises(InputError, match=rf"{path}: token 4, of item 1 \(image 1\), has the value {value}"):
        Embeddings.load(path)


def test_loading_takes_little_more_than_the_file(tmp_path):
    """The flags of the search for NaN would take a quarter of the tokens."""
    tokens = np.ones((1 << 14, 256), np.float32)
    Embeddings(tokens, np.array([[1, 256, 256]]), 2).save(tmp_path / "tokens")
    Embeddings.load(tmp_path / "tokens")  # imports
    tracemalloc.start()
    try:
        out = Embeddings.load(tmp_path / "tokens")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert same_bits(out.embeddings, tokens)
    assert peak < 1.05 * tokens.nbytes


def test_no_deepstack(tmp_path):
    made(deepstack=[]).save(tmp_path / "out.safetensors")
    assert Embeddings.load(tmp_path / "out.safetensors").deepstack == []
