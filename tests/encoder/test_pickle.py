"""Encoders in other processes: what is pickled is where the checkpoint is, and how it is to be loaded."""

import copy
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest

from made.presets import cache, checkpoint, encoder, picture, same_bits
from qwenvis import Encoder
from qwenvis.errors import ImageError, InputError, SourceError
from qwenvis.spec import ModelSpec

IMAGES = [picture(61, 97), picture(150, 113)]


def again(found):
    """Another encoder of the pickle of one."""
    text = pickle.dumps(found)
    assert len(text) < 2000  # no weights
    return pickle.loads(text)


@pytest.mark.parametrize(
    "options", [{}, {"dtype": "bfloat16", "max_pixels": 56 * 56, "pixels": "transformers"}], ids=str
)
def test_pickled_encoder_gives_the_same_bits(options):
    found = encoder(**options)
    other = again(found)
    assert (other.format, other.isa, other.threads, other.family) == (found.format, found.isa, 1, found.family)
    assert same_bits(other.encode(IMAGES).embeddings, found.encode(IMAGES).embeddings)
    assert repr(other) == repr(found)
    assert same_bits(again(other).encode(IMAGES).embeddings, found.encode(IMAGES).embeddings)


def test_relative_paths_are_found_from_elsewhere(tmp_path, monkeypatch):
    shutil.copytree(checkpoint(), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    text = pickle.dumps(Encoder.from_pretrained("model"))
    monkeypatch.chdir("/")
    assert pickle.loads(text).spec.checkpoint.path == tmp_path / "model"


def test_presets_are_pickled_by_their_name():
    found = Encoder.from_pretrained("synthetic:tiny-qwen2-vl", cache_dir=os.path.relpath(cache()))
    assert same_bits(again(found).encode(IMAGES).embeddings, found.encode(IMAGES).embeddings)
    assert b"synthetic:tiny-qwen2-vl" in pickle.dumps(found)


def test_hub_ids_are_pickled_with_their_commit(tmp_path, monkeypatch):
    """So that weights of another commit are never taken for these."""
    first, second = "0" * 40, "1" * 40
    repo = tmp_path / "models--some--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(first)
    for commit in (first, second):
        shutil.copytree(checkpoint(), repo / "snapshots" / commit)
    monkeypatch.chdir(tmp_path.parent)
    text = pickle.dumps(Encoder.from_pretrained("some/model", cache_dir=tmp_path.name))
    (repo / "refs" / "main").write_text(second)
    monkeypatch.chdir("/")
    assert pickle.loads(text).spec.checkpoint.path == repo / "snapshots" / first
    shutil.rmtree(repo)
    with pytest.raises(SourceError):
        pickle.loads(text)


def test_packed_encoders(tmp_path):
    encoder().save_packed(tmp_path / "packed")
    found = Encoder.from_pretrained(tmp_path / "packed", dtype="auto")
    assert same_bits(again(found).encode(IMAGES).embeddings, found.encode(IMAGES).embeddings)


def test_encoder_of_a_spec_says_why_it_cannot():
    found = Encoder.from_spec(ModelSpec.open(checkpoint()))
    with pytest.raises(InputError, match="made by from_spec: make it with from_pretrained"):
        pickle.dumps(found)
    assert same_bits(copy.copy(found).encode(IMAGES).embeddings, found.encode(IMAGES).embeddings)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_share_the_weights(copied):
    found = encoder()
    other = copied(found)
    assert other is not found
    assert other.spec is found.spec
    assert same_bits(other.encode(IMAGES).embeddings, found.encode(IMAGES).embeddings)
    assert pickle.dumps(other) == pickle.dumps(found)
    nested = copied({"encoder": found, "other": [found]})
    assert nested["encoder"].spec is found.spec


def test_encoder_in_a_process_of_its_own():
    """The results and the errors come back from there."""
    found = encoder()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        out = pool.apply(found.encode, (IMAGES,))
        assert same_bits(out.embeddings, found.encode(IMAGES).embeddings)
        with pytest.raises(ImageError) as caught:
            pool.apply(found.encode, ([IMAGES[0], b"none"],))
    assert (caught.value.index, caught.value.source) == (1, "image 1")


def test_results_are_pickled():
    out = encoder().encode([*IMAGES, b"none"], on_error="skip")
    got = pickle.loads(pickle.dumps(out))
    assert same_bits(got.embeddings, out.embeddings)
    assert (got.sources, got.sizes.tolist(), got.provenance) == (out.sources, out.sizes.tolist(), out.provenance)
    assert [(error.index, str(error)) for error in got.errors] == [(2, str(out.errors[0]))]
    assert np.array_equal(copy.deepcopy(out).embeddings, out.embeddings)


def test_repr():
    found = encoder(threads=2)
    words = f"qwen2_vl in f32 on {found.isa}, 2 threads: '{checkpoint()}'"
    assert repr(found) == f"<Encoder: {words}>"
    assert repr(Encoder.from_spec(found.spec, threads=1)) == f"<Encoder: {words.replace('2 threads', '1 thread')}>"
