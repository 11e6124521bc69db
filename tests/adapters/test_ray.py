"""The columns of Ray Data LLM: each row has the tokens of its own items, as vLLM takes them."""

import numpy as np
import pytest
import torch
from PIL import Image

from made.presets import cache, encoder, materialise, picture
from qwenvis import ImageError, InputError
from qwenvis.adapters import vllm
from qwenvis.adapters.ray import Encode

SOURCE = materialise("tiny-qwen2-vl", cache())
ENCODER = encoder()
PICTURES = [picture(28 * n, 84, seed=n) for n in range(2, 6)]
VIDEO = np.stack([picture(56, 84, seed=n) for n in range(4)])


def objects(*rows):
    """A column of objects, as Ray hands it over."""
    column = np.empty(len(rows), object)
    column[:] = rows
    return column


def equal(found, row, out):
    expected = vllm.offline(out)
    assert found["multimodal_uuids"][row] == expected["multi_modal_uuids"]
    got, want = found["multimodal_data"][row], expected["multi_modal_data"]
    assert list(got) == list(want)
    for modality, fields in want.items():
        assert list(got[modality]) == list(fields)
        assert all(torch.equal(got[modality][name], value) for name, value in fields.items())


def test_one_image_a_row():
    batch = {"image": np.stack([PICTURES[0]] * 2), "prompt": objects("a", "b")}  # arrays of one shape are one array
    found = Encode(SOURCE, threads=1)(batch)
    assert list(found) == ["image", "prompt", "multimodal_data", "multimodal_uuids"]
    assert found["prompt"] is batch["prompt"]
    for row in range(2):
        equal(found, row, ENCODER.encode(PICTURES[0]))


def test_rows_of_different_lengths_and_videos():
    batch = {
        "pictures": objects(PICTURES[:2], None, [], [PICTURES[2]]),
        "clip": objects(VIDEO, [VIDEO, VIDEO], None, None),
    }
    found = Encode(SOURCE, images="pictures", videos="clip", width=96, threads=1)(batch)
    equal(found, 0, ENCODER.encode(PICTURES[:2], videos=[VIDEO]))
    equal(found, 1, ENCODER.encode(videos=[VIDEO, VIDEO]))
    assert found["multimodal_data"][2] is found["multimodal_uuids"][2] is None
    equal(found, 3, ENCODER.encode(PICTURES[2]))


def test_lists_of_one_shape():
    """Ray makes one array of them, or of the column."""
    pair, clips = np.stack([PICTURES[0], PICTURES[0] // 2]), np.stack([VIDEO, VIDEO // 2])
    for column in (np.stack([pair]), objects(pair)):
        equal(Encode(SOURCE, threads=1)({"image": column}), 0, ENCODER.encode(list(pair)))
    found = Encode(SOURCE, images=None, videos="clip", threads=1)({"clip": np.stack([clips, clips])})
    equal(found, 1, ENCODER.encode(videos=list(clips)))


def test_paths(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, pixels in zip(files, PICTURES, strict=True):
        Image.fromarray(pixels).save(file)
    paths = list(map(str, files))
    encode = Encode(SOURCE, threads=1)
    columns = [
        np.array(paths[:2]),  # one each
        np.array([paths[:2], paths[2:]]),
        np.array([paths[:2], paths[2:]], object),  # two each, which Ray makes an array with two axes
        objects(np.array(paths[:1], object), np.array(paths[1:], object)),
        objects(*(file.read_bytes() for file in files[:2])),
    ]
    counts = [
        [len(data["image"]["image_grid_thw"]) for data in encode({"image": each})["multimodal_data"]]
        for each in columns
    ]
    assert counts == [[1, 1], [2, 2], [2, 2], [1, 3], [1, 1]]
    equal(encode({"image": columns[3]}), 1, ENCODER.encode(PICTURES[1:]))


def test_refusals():
    encode = Encode(SOURCE, width=95, threads=1)
    with pytest.raises(InputError, match="no column image; it has picture"):
        encode({"picture": np.stack(PICTURES[:1])})
    with pytest.raises(InputError, match="96 wide; expected 95"):
        encode({"image": np.stack(PICTURES[:1])})
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        encode({"image": np.array(["missing.jpg"])})
