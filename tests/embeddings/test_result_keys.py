"""Keys of results go wherever their items go, and do not keep an encoder in memory."""

import copy
import gc
import pickle
import weakref
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from made import video_files
from made.embeddings import made
from made.presets import encoder, picture, same_bits
from qwenvis import Embeddings, InputError

CLIP = video_files.frames(9, 70, 100)


def copies(out, tmp_path):
    out.save(tmp_path / "a.safetensors")
    return [
        out[:],
        out[[0, 1, 2]],
        out[np.ones(3, bool)],
        Embeddings.concatenate(out),
        pickle.loads(pickle.dumps(out)),
        copy.copy(out),
        copy.deepcopy(out),
        Embeddings.load(tmp_path / "a.safetensors"),
    ]


def test_keys_come_along(tmp_path):
    found = encoder()
    out = found.encode(picture(61, 97), videos=[CLIP, picture(56, 56)])
    for each in copies(out, tmp_path):
        assert each.keys == out.keys
        assert [item.keys[0] for item in each] == out.keys
    assert out[[2, 0]].keys == [out.keys[2], out.keys[0]]
    assert out[:0].keys == found.encode([]).keys == []


def test_other_dtypes_have_other_keys():
    found = encoder()
    out = found.encode([picture(61, 97), picture(56, 56)])
    half, brain = out.astype("float16"), out.astype("bfloat16")
    keys = [*out.keys, *half.keys, *brain.keys, *half.astype("float32").keys]
    assert len({*keys}) == 8
    assert out.astype("float32").keys == out.keys
    assert brain.embeddings.dtype == ml_dtypes.bfloat16
    assert pickle.loads(pickle.dumps(brain)).keys == brain.keys


@pytest.mark.parametrize("name", ["embeddings", "deepstack", "grid_thw", "timestamps"])
def test_results_that_are_changed_by_hand_have_no_keys(name):
    out = encoder().encode(videos=[CLIP])
    with pytest.raises(InputError, match="item 0 has no key: it was made or changed by hand"):
        replace(out, **{name: copy.deepcopy(getattr(out, name))}).keys  # noqa: B018


def test_results_do_not_keep_weights(tmp_path):
    found = encoder()
    out, weights = found.encode(picture(61, 97)), weakref.ref(found.spec.weights)
    del found
    gc.collect()
    assert weights() is None
    with pytest.raises(InputError, match="ask for the keys of one of its results while it exists"):
        out.keys  # noqa: B018
    out.save(tmp_path / "a.safetensors")
    for each in (pickle.loads(pickle.dumps(out)), Embeddings.load(tmp_path / "a.safetensors"), copy.deepcopy(out)):
        assert same_bits(each.embeddings, out.embeddings)
        with pytest.raises(InputError, match=r"item 0 has no key: .* encode it again"):
            each.keys  # noqa: B018
    found = encoder()
    first, second = found.encode(picture(61, 97)), found.encode(picture(56, 56))
    want = first.keys[0]
    del found
    gc.collect()
    assert (len(second.keys), first.keys) == (1, [want])


def test_results_without_keys(tmp_path):
    made().save(tmp_path / "a.safetensors")
    for out in (made(), made()[0], made().astype("float16"), Embeddings.load(tmp_path / "a.safetensors")):
        with pytest.raises(InputError, match="item 0 has no key: it was made or changed by hand, read from"):
            out.keys  # noqa: B018
    with pytest.raises(InputError, match="got 2 keys; expected 3"):
        made(_keys=["a" * 64] * 2)
    mixed = Embeddings.concatenate([made(_keys=["a" * 64] * 3), made()])
    with pytest.raises(InputError, match="item 3 has no key"):
        mixed.keys  # noqa: B018
    mixed.save(tmp_path / "a.safetensors")
    assert Embeddings.load(tmp_path / "a.safetensors")[:3].keys == ["a" * 64] * 3


@pytest.mark.parametrize("text", ["{", "{}", '["a"]', f'["{"A" * 64}", "", ""]', f'["{"a" * 64}"]', "[1, 2, 3]"])
def test_keys_that_a_file_cannot_have(tmp_path, text):
    made().save(tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "b.safetensors", {"merge_size": "2", "keys": text})
    with pytest.raises(InputError, match=r"its keys are not a list of 3 SHA-256|holds no embeddings"):
        Embeddings.load(tmp_path / "b.safetensors")
