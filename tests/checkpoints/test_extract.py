"""Extracts: the tower of any checkpoint alone, which loads to the same bits."""

import shutil

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from made.presets import PRESETS, cache, checkpoint, encoder, picture, same_bits
from qwenvis import Encoder
from qwenvis.errors import CheckpointError, InputError
from qwenvis.spec import ModelSpec

IMAGES = [picture(61, 97), picture(150, 113)]


@pytest.mark.parametrize("family", PRESETS)
def test_same_bits(family, tmp_path):
    steps = []
    ModelSpec.open(checkpoint(family)).extract(tmp_path / "tower", lambda *step: steps.append(step))
    assert sorted(path.name for path in (tmp_path / "tower").iterdir()) == [
        "config.json",
        "model.safetensors",
        "processor_config.json",
    ]
    assert steps[-1][0] == steps[-1][1]
    found, whole = Encoder.from_pretrained(tmp_path / "tower", threads=1), encoder(family)
    assert found.family == family
    assert same_bits(found.encode(IMAGES).embeddings, whole.encode(IMAGES).embeddings)
    stored = [path for path in checkpoint(family).glob("*.safetensors")]
    tensors = {name: array for path in stored for name, array in load_file(path).items()}
    for name, array in load_file(tmp_path / "tower" / "model.safetensors").items():
        assert same_bits(array, tensors[name])


def test_a_preset_that_is_not_written(tmp_path):
    ModelSpec.open("synthetic:tiny-qwen2-vl", cache_dir=tmp_path / "cache").extract(tmp_path / "tower")
    assert Encoder.from_pretrained(tmp_path / "tower").family == "qwen2_vl"


def test_it_opens_with_the_safetensors_package_and_says_nothing_of_this_machine(tmp_path):
    ModelSpec.open(checkpoint()).extract(tmp_path / "tower")
    with safe_open(tmp_path / "tower" / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert all(name.startswith("visual.") for name in file.keys())  # noqa: SIM118
    assert str(cache()) not in "".join(path.read_text() for path in (tmp_path / "tower").glob("*.json"))


def test_a_packed_checkpoint_has_no_tensors(tmp_path):
    encoder().save_packed(tmp_path / "packed")
    with pytest.raises(InputError, match="is packed; name the checkpoint that it was packed from"):
        ModelSpec.open(tmp_path / "packed", dtype="auto").extract(tmp_path / "tower")


def test_whole_or_not_at_all(tmp_path):
    shutil.copytree(checkpoint(), tmp_path / "model")
    spec = ModelSpec.open(tmp_path / "model")
    with spec.checkpoint.files[-1].open("rb+") as file:
        file.truncate(5000)
    with pytest.raises(CheckpointError):
        spec.extract(tmp_path / "tower")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "tower").mkdir()
    with pytest.raises(InputError, match="already exists"):
        spec.extract(tmp_path / "tower")
    with pytest.raises(InputError, match="cannot be written"):
        ModelSpec.open(checkpoint()).extract(tmp_path / "no" / "tower")
