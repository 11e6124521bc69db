"""What vLLM must not get is refused here, in words, and nothing is written."""

from dataclasses import replace

import numpy as np
import pytest

from adapters.vllm.results import encoded
from made.presets import encoder, picture
from qwenvis import Embeddings, ImageError, InputError
from qwenvis.adapters.vllm import offline, parts, request, write_cache

FAMILY = "qwen3_vl"
OUT = encoded(FAMILY)
WIDE = OUT.wide().shape[1]


def changed(**fields):
    """Return the result with other fields, and its keys: as if somebody had written into its arrays."""
    return OUT._with(**fields)


def with_entry(value, array="embeddings"):
    """Return the result with another first entry."""
    found = changed(embeddings=OUT.embeddings.copy(), deepstack=[layer.copy() for layer in OUT.deepstack])
    (found.embeddings if array == "embeddings" else found.deepstack[-1])[0, 0] = value
    return found


def without_times():
    batch = encoder(FAMILY).preprocess(videos=[np.stack([picture(64, 64)] * 4)], video_fps=2.0)
    return encoder(FAMILY)(batch.pixel_values, batch.grid_thw)


def of_family(family):
    return changed(provenance={**OUT.provenance, "family": family})


BAD = {
    "an array": (lambda: OUT.embeddings, "out is a ndarray; expected the Embeddings"),
    "no result": (lambda: None, "out is a NoneType; expected the Embeddings"),
    "a list of results": (lambda: [OUT], "out is a list; expected the Embeddings"),
    "an item left out": (lambda: changed(errors=(ImageError("image 1 is bad"),)), "1 item left out: image 1 is bad"),
    "too few rows": (lambda: changed(embeddings=OUT.embeddings[1:]), "tokens do not fit the grid"),
    "too many rows": (lambda: changed(embeddings=np.repeat(OUT.embeddings, 2, axis=0)), "tokens do not fit the grid"),
    "another shape": (
        lambda: changed(embeddings=OUT.embeddings.reshape(-1, OUT.embeddings.shape[1] // 2)),
        "tokens do not fit the grid",
    ),
    "three axes": (lambda: changed(embeddings=OUT.embeddings[None]), "the tokens are float32 .1, .* expected .tokens,"),
    "float64": (lambda: changed(embeddings=OUT.embeddings.astype(np.float64)), "the tokens are float64"),
    "integers": (lambda: changed(embeddings=OUT.embeddings.astype(np.int64)), "the tokens are int64"),
    "NaN": (lambda: with_entry(np.nan), r"token 0, of item 0 \(image 0\), has the value nan"),
    "infinity": (lambda: with_entry(-np.inf), r"token 0, of item 0 \(image 0\), has the value -inf"),
    "NaN in deepstack": (lambda: with_entry(np.nan, "deepstack"), "token 0, of item 0 .* has the value nan"),
    "narrow deepstack": (
        lambda: changed(deepstack=[OUT.embeddings[:, :8]] * len(OUT.deepstack)),
        "deepstack 0 is float32 .* expected",
    ),
    "mixed dtypes": (
        lambda: changed(deepstack=[layer.astype(np.float16) for layer in OUT.deepstack]),
        "deepstack 0 is float16",
    ),
    "a grid of other items": (lambda: changed(grid_thw=OUT.grid_thw[[1, 0, 2]] * [1, 2, 1]), "do not fit the grid"),
    "a grid of zeros": (lambda: changed(grid_thw=OUT.grid_thw * 0), r"grid_thw\[0\] is \(0, 0, 0\)"),
    "a grid in int32": (lambda: changed(grid_thw=OUT.grid_thw.astype(np.int32)), "grid_thw is int32"),
    "half a merge unit": (lambda: changed(grid_thw=np.add(OUT.grid_thw, [0, 1, 0])), "positive h and w that 2 divides"),
    "another merge size": (lambda: changed(merge_size=1), "tokens do not fit the grid"),
    "tokens that were made by hand": (
        lambda: Embeddings(OUT.embeddings, OUT.grid_thw, 2, deepstack=OUT.deepstack, provenance=OUT.provenance),
        "no times|item 0 has no key",
    ),
    "tokens that were changed by hand": (lambda: replace(OUT, embeddings=OUT.embeddings * 2), "item 0 has no key"),
    "one item that was": (
        lambda: Embeddings.concatenate([OUT, replace(OUT, sources=OUT.sources)]),
        f"item {len(OUT)} has no key",
    ),
    "an unknown family": (lambda: changed(provenance={}), "without a family in their provenance; vLLM takes"),
    "a family without grids in vLLM": (lambda: of_family("glm4v"), "of the family 'glm4v'; vLLM takes those of"),
    "a family that vLLM takes as pixels": (lambda: of_family("qwen3_omni_moe"), "of the family 'qwen3_omni_moe'"),
    "a video of a family without": (lambda: of_family("cohere_compass"), "'video 0' is a video; vLLM takes only imag"),
    "a video without times": (without_times, "'item 0' has 2 temporal steps and no times; encode videos with videos="),
    "a video with other times": (
        lambda: changed(timestamps=[each[:1] for each in OUT.timestamps]),
        "'video 0' has 3 temporal steps and no times",
    ),
    "times that are not finite": (
        lambda: changed(timestamps=[each * np.nan for each in OUT.timestamps]),
        r"'video 0' has timestamps \[nan, nan, nan\] .*; encode it again",
    ),
    "times of fewer items": (lambda: changed(timestamps=OUT.timestamps[1:]), "timestamps of 2 items; expected 3"),
    "frames of one item": (lambda: changed(frame_indices=OUT.frame_indices[:1]), "frame_indices of 1 item; expected 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_results(case, tmp_path):
    make, message = BAD[case]
    out = make()
    for give in (offline, parts, request, lambda out: write_cache(out, tmp_path)):
        with pytest.raises(InputError, match=message):
            give(out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("width", [OUT.embeddings.shape[1], WIDE + 1, 0, -WIDE, str(WIDE), "wide"])
def test_widths(width, tmp_path):
    for give in (offline, parts, lambda out, width: write_cache(out, tmp_path, width=width)):
        with pytest.raises(InputError, match=rf"the tokens are {WIDE} wide, .* of deepstack; expected {width}"):
            give(OUT, width=width)
    assert not list(tmp_path.iterdir())


def test_deepstack_that_was_left_out():
    with pytest.raises(InputError, match=f"wide; expected {WIDE}"):
        offline(changed(deepstack=[]), width=WIDE)


def test_families_without_files(tmp_path):
    out = encoded("cohere_compass", 1, 0)
    assert len(parts(out)) == len(offline(out)["multi_modal_uuids"]["image"]) == 1
    for give in (request, lambda out: write_cache(out, tmp_path)):
        with pytest.raises(InputError, match="vLLM takes the tokens of cohere_compass in the request only: use parts"):
            give(out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["", "a\0b", None, 7, "file", "file/below"])
def test_directories(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"directory is|cannot be written"):
        write_cache(OUT, place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
