"""What vLLM gets has the names, shapes and bytes that a vLLM was recorded to take (tests/engines/vllm/contract.py)."""

import base64
import json

import ml_dtypes
import numpy as np
import pytest
import torch

from adapters.vllm.results import CLIP, decoded, encoded
from house.source_files import ROOT
from made.embeddings import DTYPES
from made.presets import encoder, picture, same_bits
from qwenvis import Embeddings
from qwenvis.adapters.modalities import items_of
from qwenvis.adapters.vllm import TIMES, offline, parts, publish, request, write_cache
from qwenvis.models import FAMILIES

CONTRACT = json.loads((ROOT / "tests/adapters/vllm/contract.json").read_text(encoding="utf-8"))
TAKEN = {family: fields for family, fields in CONTRACT["families"].items() if fields}
TIMED = {"timestamps", "second_per_grid_ts"}


def fields(family, modality, kind):
    return set(TAKEN[family][modality][kind].split())


def mixed(family):
    """Return images, and videos where vLLM takes them."""
    return encoded(family, 2, 2 if "video" in TAKEN[family] else 0)


def test_families():
    assert CONTRACT["families"].keys() == FAMILIES.keys()
    assert TIMES.keys() == TAKEN.keys()
    stills = {family for family, modalities in TAKEN.items() if "video" not in modalities}
    assert {family for family, times in TIMES.items() if times is None} == stills


@pytest.mark.parametrize("family", TAKEN)
def test_prompts(family):
    out = mixed(family)
    given = offline(out, width=out.wide().shape[1])
    assert given.keys() == {"multi_modal_data", "multi_modal_uuids"}
    for modality, data in given["multi_modal_data"].items():
        items = out[items_of(out)[modality]]
        tokens, grid = data[f"{modality}_embeds"], data[f"{modality}_grid_thw"]
        assert fields(family, modality, "required") <= data.keys() <= fields(family, modality, "read")
        assert torch.equal(tokens, torch.from_numpy(items.wide()))
        assert (grid.dtype, grid.tolist()) == (torch.int64, items.grid_thw.tolist())
        assert given["multi_modal_uuids"][modality] == items.keys
    assert given["multi_modal_data"].keys() == TAKEN[family].keys()


@pytest.mark.parametrize("family", [family for family in TAKEN if "video" in TAKEN[family]])
def test_times(family):
    """Some models take timestamps, but do not read them: those that read them require them."""
    read = {"timestamps"} & fields(family, "video", "required")
    read |= {"second_per_grid_ts"} & fields(family, "video", "read")
    out = mixed(family)
    data = offline(out)["multi_modal_data"]["video"]
    videos = out[items_of(out)["video"]]
    assert TIMED & data.keys() == read
    for name in read:
        if name == "timestamps":
            assert data[name] == [each.tolist() for each in videos.timestamps]
        else:
            assert torch.equal(data[name], torch.tensor(videos.second_per_grid_ts.tolist()))
    for part, item in zip(parts(videos), videos, strict=True):
        _, arrays, _ = decoded(part)
        assert TIMED & arrays.keys() == read
        assert all(np.allclose(arrays[name], getattr(item, name)[0], rtol=1e-7) for name in read)


@pytest.mark.parametrize("family", TAKEN)
def test_parts(family):
    out = mixed(family)
    for part, item in zip(parts(out), out, strict=True):
        modality, arrays, key = decoded(part)
        assert modality == ("video" if item.frame_indices and len(item.frame_indices[0]) else "image")
        assert part.keys() == {*CONTRACT["part"][modality].split()}
        assert fields(family, modality, "required") <= arrays.keys() <= fields(family, modality, "read")
        assert same_bits(arrays[f"{modality}_embeds"], item.wide())
        assert same_bits(arrays[f"{modality}_grid_thw"], item.grid_thw[0])
        assert [key] == item.keys


@pytest.mark.parametrize("family", [family for family, times in TIMES.items() if times is not None])
def test_requests(family, tmp_path):
    out = mixed(family)
    write_cache(out, tmp_path)
    for part, whole, item in zip(request(out), parts(out), out, strict=True):
        modality, arrays, key = decoded(part)
        assert fields(family, modality, "cached") <= arrays.keys()
        kind = f"{modality}_embeds"
        assert part == {**whole, kind: {name: text for name, text in whole[kind].items() if name != kind}}
        assert [key] == item.keys


def recorded(dtype):
    """Return a result whose tokens are those of the contract, in a dtype."""
    tokens = np.array(CONTRACT["npy"]["float32"]["array"], dtype)
    provenance = {"family": "qwen2_vl"}
    return Embeddings(tokens, np.array([[1, 2, 4]]), 2, provenance=provenance, _keys=["0" * 64])


@pytest.mark.parametrize(
    ("dtype", "sent"), [(np.float32, "float32"), (np.float16, "float16"), (ml_dtypes.bfloat16, "float32")]
)
def test_bytes_of_parts(dtype, sent):
    (part,) = parts(recorded(dtype))
    assert part["image_embeds"]["image_embeds"] == CONTRACT["npy"][sent]["base64"]


def test_bytes_of_grids():
    out = recorded(np.float32)
    out.grid_thw[0] = CONTRACT["npy"]["int64"]["array"]
    out = out._with(embeddings=np.zeros((6, 3), np.float32))
    assert request(out)[0]["image_embeds"] == {"image_grid_thw": CONTRACT["npy"]["int64"]["base64"]}


def test_bytes_of_files(tmp_path):
    out = recorded(np.float32)
    (file,) = write_cache(out, tmp_path)
    assert file.relative_to(tmp_path).as_posix() == CONTRACT["cache"]["place"].replace("key", out.keys[0])
    assert base64.b64encode(file.read_bytes()).decode() == CONTRACT["cache"]["base64"]


def test_what_an_encode_worker_reports(tmp_path):
    """Items are made by hand, with the grids and times of the contract."""
    grids = np.array([[1, 4, 6], [1, 2, 4], [1, 4, 6], [2, 4, 4]])
    tokens = np.zeros((grids.prod(axis=1).sum() // 4, 8), np.float32)
    none, times = np.zeros(0), np.array([0.5, 1.5])
    stamps, frames = [none, none, none, times], [np.zeros(0, np.int64)] * 3 + [np.arange(4)]
    out = Embeddings(
        tokens,
        grids,
        2,
        provenance={"family": "qwen3_vl"},
        frame_indices=frames,
        timestamps=stamps,
        second_per_grid_ts=np.array([0, 0, 0, 1.0]),
        _keys=["1" * 64, "2" * 64, "1" * 64, "3" * 64],
    )
    reported = publish(out, tmp_path, ["a", "b", "a", "c"])
    assert reported == CONTRACT["transfer"]
    assert json.loads(json.dumps(reported)) == reported
    place = CONTRACT["cache"]["place"]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        place.replace("key", name) for name in "abc"
    ]
    assert publish(out[:1], tmp_path, [None]).keys() == {"1" * 64}


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype):
    out = recorded(dtype)
    tokens = offline(out)["multi_modal_data"]["image"]["image_embeds"]
    assert str(tokens.dtype) == f"torch.{np.dtype(dtype).name}"
    assert torch.equal(tokens.float(), torch.tensor(CONTRACT["npy"]["float32"]["array"]))


def test_tokens_in_a_prompt_are_a_copy():
    """VLLM keeps them for later prompts."""
    out = encoded("qwen2_vl")
    tokens = offline(out)["multi_modal_data"]["image"]["image_embeds"]
    assert not np.shares_memory(tokens.numpy(), out.embeddings)


def test_stills_among_videos_are_images():
    found = encoder("qwen2_vl")
    out = found.encode(videos=[CLIP, picture(56, 56)])
    assert [part["type"] for part in parts(out)] == ["video_embeds", "image_embeds"]
    assert offline(out)["multi_modal_uuids"] == {"image": out.keys[1:], "video": out.keys[:1]}


def test_no_items():
    assert parts(encoded("qwen2_vl")[:0]) == []
    assert offline(encoded("qwen2_vl")[:0]) == {"multi_modal_data": {}, "multi_modal_uuids": {}}


def test_selected_and_stored_items(tmp_path):
    out = encoded("qwen3_vl")
    out.save(tmp_path / "tokens.safetensors")
    assert parts(Embeddings.load(tmp_path / "tokens.safetensors")) == parts(out)
    assert parts(out[[2, 0]]) == [parts(out)[2], parts(out)[0]]
