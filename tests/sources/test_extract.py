"""Extracts: the tower of any checkpoint alone, which loads to the same bits."""

import shutil

import pytest
from gguf import GGMLQuantizationType as Type
from safetensors import safe_open
from safetensors.numpy import load_file

from made import mmproj_files
from made.checkpoints import open_directory
from made.presets import PRESETS, cache, checkpoint, encoder, picture, same_bits
from made.resaved import config_of, save, tensors_of, tokens_of
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


@pytest.mark.parametrize("family", mmproj_files.KINDS)
@pytest.mark.parametrize("kind", [Type.F16, Type.Q8_0], ids=lambda kind: kind.name)
def test_an_mmproj_file(tmp_path, family, kind):
    """Whose parts are joined, and whose blocks become floats."""
    vision_config = open_directory(checkpoint(family)).vision_config
    path = tmp_path / "mmproj.gguf"
    mmproj_files.write_tower(path, family, tensors_of(family), vision_config, kind=kind)
    ModelSpec.open(path).extract(tmp_path / "tower")
    assert same_bits(tokens_of(tmp_path / "tower"), tokens_of(path))


@pytest.mark.parametrize("prefix", ["", "model.visual.", "thinker.visual.", "vlm.model.visual."])
def test_a_prefix_stays(tmp_path, prefix):
    save(
        tmp_path / "model",
        {prefix + name: array for name, array in tensors_of("qwen2_vl").items()},
        config_of("qwen2_vl"),
    )
    ModelSpec.open(tmp_path / "model").extract(tmp_path / "tower")
    assert all(name.startswith(prefix) for name in load_file(tmp_path / "tower" / "model.safetensors"))
    assert same_bits(tokens_of(tmp_path / "tower"), tokens_of(tmp_path / "model"))


def test_channels_last(tmp_path):
    """As MLX has them."""
    tensors = dict(tensors_of("qwen2_vl"))
    tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"].transpose(0, 2, 3, 4, 1).copy()
    save(tmp_path / "model", {f"visual.{name}": array for name, array in tensors.items()}, config_of("qwen2_vl"))
    ModelSpec.open(tmp_path / "model").extract(tmp_path / "tower")
    assert same_bits(tokens_of(tmp_path / "tower"), tokens_of(tmp_path / "model"))


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
