"""`adapters.llama_cpp.batch`: the positions of transformers' language models, and what it refuses."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
import torch

from adapters.llama_cpp.prompts import arguments, batch_of, pieces
from adapters.transformers.pixel_path import SCENARIOS, encoded, encoder, text, videos
from oracle.full_families import FULL_FAMILIES
from oracle.transformers_models import full_model
from qwenvis import Embeddings, ImageError, InputError
from qwenvis.adapters.llama_cpp import NUMBERINGS, batch, steps
from qwenvis.adapters.transformers import inputs

WITHOUT_VIDEOS = {"paddleocr_vl", "qwen3_omni_moe"}


def positions_in_transformers(family, given):
    """Return the positions that the language model of transformers gets, (3, tokens); words without M-RoPE."""
    model, found = full_model(family).model, []
    hook = model.base_model.language_model.register_forward_pre_hook(
        lambda _, __, given: found.append(given.get("position_ids")), with_kwargs=True
    )
    with torch.no_grad():
        model(**given)
    hook.remove()
    if found[0] is None or found[0].ndim == 2:
        return np.broadcast_to(np.arange(given["input_ids"].shape[1]), (3, given["input_ids"].shape[1]))
    return found[0][:, 0].numpy()


@pytest.mark.parametrize(
    ("family", "name"),
    [
        (family, name)
        for family in NUMBERINGS
        for name in ("images of different sizes", "a video")
        if name != "a video" or family not in WITHOUT_VIDEOS
    ],
)
def test_positions(family, name):
    start, planes = 0, []
    for piece in pieces(family, SCENARIOS[name]):
        if isinstance(piece, np.ndarray):
            planes.append(np.broadcast_to(start + np.arange(len(piece)), (3, len(piece))))
            start += len(piece)
        else:
            embd, positions, start = batch_of(family, piece, start)
            assert (embd.dtype, positions.dtype) == (np.float32, np.int32)
            assert embd.flags.c_contiguous
            assert positions.flags.c_contiguous
            assert np.array_equal(embd, piece.wide())
            assert not positions[3].any()
            planes.append(positions[:3])
    given = arguments(family, SCENARIOS[name])
    assert np.array_equal(np.concatenate(planes, axis=1), positions_in_transformers(family, given))


@pytest.mark.parametrize("fps", [7.0, 23.976, 25.0, 50.0])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_5_omni"])
def test_times_are_rounded_as_in_transformers(family, fps):
    """Seconds times the rate are often nearly integers: the order of the products in float32 decides."""
    full = full_model(family)
    seconds, grid = 2 / fps, np.array([[150, 2, 2]])
    times = {"timestamps": [np.arange(150) * seconds], "second_per_grid_ts": np.array([seconds])}
    out = Embeddings(np.zeros((150, 96), np.float32), grid, 2, provenance={"family": family}, **times)
    given = inputs(full.video, out, full.processor, full.model)
    found = batch_of(family, out, 1)
    assert np.array_equal(found.positions[:3], positions_in_transformers(family, given)[:, 1:-1])


def test_times_as_text():
    """The words of docs/language_models.md around the steps of a video are those of transformers' processor."""
    full, scenario = full_model("qwen3_vl"), SCENARIOS["a video"]
    words = "".join(
        f"<{step.timestamps[0][0]:.1f} seconds><|vision_start|>{'<|video_pad|>' * len(step.embeddings)}<|vision_end|>"
        for step in steps(encoded("qwen3_vl", scenario))
    )
    prompt = text(full, scenario)[0].replace("<|video_pad|>", words)
    assert full.processor.tokenizer(prompt)["input_ids"] == arguments("qwen3_vl", scenario)["input_ids"][0].tolist()


def test_every_family_has_a_numbering_or_none_in_llama_cpp():
    assert NUMBERINGS.keys() == FULL_FAMILIES.keys() - {"cohere_compass"}


def picture(**changes):
    return dataclasses.replace(encoded("qwen3_vl", SCENARIOS["one image"]), **changes)


def test_split():
    whole = batch(picture(), 7, width=288)
    for size in (1, 5, len(whole.embd), 10**9):
        parts = whole.split(size)
        assert {len(part.embd) for part in parts[:-1]} <= {size}
        assert np.array_equal(np.concatenate([part.embd for part in parts]), whole.embd)
        assert np.array_equal(np.concatenate([part.positions for part in parts], axis=1), whole.positions)
        assert all(part.positions.flags.c_contiguous and part.embd.flags.c_contiguous for part in parts)
        assert {part.next_position for part in parts} == {whole.next_position}


def test_steps():
    out = encoded("qwen3_vl", SCENARIOS["an image and a video"])
    found = steps(out)
    assert len(found) == out.grid_thw[:, 0].sum() == 1 + 3
    assert np.shares_memory(found.embeddings, out.embeddings)
    assert np.concatenate(found.timestamps).tolist() == out.timestamps[1].tolist()
    assert [len(times) for times in found.timestamps] == [0, 1, 1, 1]
    assert found.sources == ["image 0", "video 0", "video 0", "video 0"]
    assert np.array_equal(found.deepstack[0], out.deepstack[0])
    assert np.concatenate(found.frame_indices).tolist() == out.frame_indices[1].tolist()
    assert found.second_per_grid_ts.tolist() == out.second_per_grid_ts[[0, 1, 1, 1]].tolist()
    still = steps(picture())
    assert (still.grid_thw.tolist(), still.timestamps) == (picture().grid_thw.tolist(), [])


def test_steps_keep_their_times_where_they_are_stored_and_joined(tmp_path):
    found = steps(encoded("qwen3_vl", SCENARIOS["an image and a video"])[1:])
    found.save(tmp_path / "steps.safetensors")
    assert np.array_equal(Embeddings.load(tmp_path / "steps.safetensors").timestamps, found.timestamps)
    joined = Embeddings.concatenate([steps(picture(provenance=found.provenance)), found])
    assert [item.timestamps[0].tolist() for item in joined] == [[], *(times.tolist() for times in found.timestamps)]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_tokens_are_widened(dtype):
    narrow = picture().astype(dtype)
    embd, _, _ = batch(narrow, 0, width=288)
    assert embd.dtype == np.float32
    assert np.array_equal(embd, narrow.wide().astype(np.float32))


def of(family, name="a video", **changes):
    return lambda: dataclasses.replace(encoded(family, SCENARIOS[name]), **changes)


def without_times():
    """A video whose patches the caller has cut."""
    patches = encoder("qwen2_5_vl").preprocess(videos=videos(1), num_frames=4)
    return encoder("qwen2_5_vl")(patches.pixel_values, patches.grid_thw)


@pytest.mark.parametrize(
    ("out", "width", "message"),
    [
        (lambda: np.zeros((4, 288)), 288, "out is a ndarray; expected the Embeddings that encode returns"),
        (of("qwen3_vl", "images of different sizes"), 288, r"out has 3 items; expected one, as out\[0\]"),
        (lambda: picture()[:0], 288, "out has 0 items"),
        (lambda: picture(errors=(ImageError("image 1 is bad"),)), 288, "1 item left out: image 1 is bad"),
        (lambda: picture(provenance={}), 288, "are without a family in their provenance; llama.cpp takes those"),
        (of("cohere_compass", "one image"), 288, "of the family 'cohere_compass'; llama.cpp takes those of qwen2_vl, "),
        (lambda: picture(deepstack=[]), 288, "the tokens are 96 wide; expected 288: is this the tower of another"),
        (picture, 96, r"96 times 1 \+ 2 of deepstack; expected 96"),
        (lambda: picture(embeddings=picture().embeddings * np.float32(np.nan)), 288, "has the value nan"),
        (lambda: picture(embeddings=picture().embeddings[1:]), 288, "tokens do not fit the grid"),
        (of("qwen3_vl"), 288, r"a video of 3 temporal steps, .* call batch for each item of steps\(out\)"),
        (of("qwen3_omni_moe"), 288, "the item is a video, whose times are fractions in the model"),
        (without_times, 96, r"a video with second_per_grid_ts 0\.0; expected that of encode"),
    ],
)
def test_items_that_are_refused(out, width, message):
    with pytest.raises(InputError, match=message):
        batch(out(), 0, width=width, tokens_per_second=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": -1}, "start is -1; expected an integer, 0 or more"),
        ({"start": 1.0}, r"start is 1\.0; expected an integer"),
        ({"start": True}, "start is True"),
        ({"start": 2**31 - 3}, "the last position 2147483648; expected less than 2147483647"),
        ({"start": 10**5000}, "start is int of very many digits, the last position int of very many digits"),
        ({"width": 0}, "width is 0; expected an integer, 1 or more"),
        ({"width": None}, "width is None"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    given = {"start": 0, "width": 288, **arguments}
    with pytest.raises(InputError, match=message):
        batch(picture(), given["start"], width=given["width"])


@pytest.mark.parametrize("rate", [None, "2", True, 0, -1, float("nan"), float("inf"), 1e12, 10**400])
def test_rates_that_are_refused(rate):
    with pytest.raises(InputError, match=r"tokens_per_second is .*; expected, for a video, that of the model's config"):
        batch(of("qwen2_5_vl")(), 0, width=96, tokens_per_second=rate)


@pytest.mark.parametrize("n_batch", [0, -1, 1.5, None, True])
def test_splits_that_are_refused(n_batch):
    with pytest.raises(InputError, match=r"n_batch is .*; expected an integer, 1 or more"):
        batch(picture(), 0, width=288).split(n_batch)


def test_steps_of_damaged_items_are_refused():
    with pytest.raises(InputError, match="tokens do not fit the grid"):
        steps(Embeddings(np.zeros((3, 8), np.float32), np.array([[1, 2, 2]]), 2))
