"""A checkpoint as its headers describe it: family, config, parameters, processor."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from made.presets import PRESETS, checkpoint, encoder, picture, pixels, same_bits, tower_shapes
from oracle import transformers_towers
from oracle.families import KINDS
from qwenvis import Encoder
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.checkpoints.tensors import Tensor
from qwenvis.errors import ConfigError, InputError, QwenvisError, SourceError
from qwenvis.sources.presets import PRESETS as PUBLISHED
from qwenvis.spec import ModelSpec

every_family = pytest.mark.parametrize("family", KINDS)
PREPROCESSOR = "preprocessor_config.json"
BOTH = {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 100}


@pytest.fixture
def copied(tmp_path):
    """A checkpoint to spoil."""
    return Path(shutil.copytree(checkpoint(), tmp_path / "copy"))


@every_family
def test_spec_of_a_tower(tmp_path, family):
    model, _, weights = transformers_towers.make(family)
    transformers_towers.save(tmp_path, family, model)
    spec = ModelSpec.open(tmp_path)
    assert (spec.family, spec.config.depth, spec.config.hidden_size) == (family, 4, 64)
    assert spec.parameters == sum(array.size for array in weights.values())
    assert spec.checkpoint.path == tmp_path
    assert (spec.processor.min_pixels, spec.processor.max_pixels) == (3136, 12845056)
    assert spec.processor.columns == math.prod(spec.config.kernel)


@pytest.mark.parametrize(("preset", "millions"), [("qwen2-vl-2b", 665.27), ("qwen2.5-vl-3b", 668.68)])
def test_parameters_of_published_towers(preset, millions):
    """From names and shapes alone; the weights are nowhere."""
    config = PUBLISHED[preset].config
    tensors = {name: Tensor("BF16", shape) for name, shape in tower_shapes(PUBLISHED[preset]).items()}
    about = config, config["vision_config"], config["model_type"]
    spec = ModelSpec(Checkpoint(Path(), *about, {}, {}, "visual.", tensors))
    assert round(spec.parameters / 1e6, 2) == millions


@every_family
def test_spec_of_a_preset(monkeypatch, tmp_path, family):
    """Nothing is written, and nothing has to be there."""
    opened = ModelSpec.open(checkpoint(family))
    monkeypatch.setenv("QWENVIS_CACHE", str(tmp_path))
    spec = ModelSpec.open(f"synthetic:{PRESETS[family]}", max_pixels=10**6)
    assert (spec.family, spec.config) == (family, opened.config)
    assert spec.checkpoint.shapes == opened.checkpoint.shapes
    assert (spec.parameters, spec.nbytes) == (opened.parameters, opened.nbytes)
    assert spec.processor == opened.processor.with_limits(max_pixels=10**6)
    assert not list(tmp_path.iterdir())


def test_limits_replace_those_of_the_checkpoint():
    spec = ModelSpec.open(checkpoint(), **BOTH)
    assert (spec.processor.min_pixels, spec.processor.max_pixels) == tuple(BOTH.values())
    assert ModelSpec.open(checkpoint(), max_pixels=4000).processor.min_pixels == 3136
    with pytest.raises(InputError, match="min_pixels 10 is larger than max_pixels 3"):
        ModelSpec.open(checkpoint(), min_pixels=10, max_pixels=3)


WRONG = [
    {"dtype": "int4"},
    {"dtype": ["float32"]},
    {"dtype": None},
    {"min_pixels": 0},
    {"max_pixels": "many"},
    {"min_pixels": 20, "max_pixels": 10},
    {"min_pixels": 12845057},  # above the preset's own largest
]


@pytest.mark.parametrize("options", WRONG, ids=str)
@pytest.mark.parametrize("open_it", [ModelSpec.open, Encoder.from_pretrained])
def test_arguments_are_refused_before_a_preset_is_written(tmp_path, open_it, options):
    with pytest.raises(InputError, match=next(reversed(options))):
        open_it("synthetic:tiny-qwen2-vl", cache_dir=tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


def test_limits_are_checked_without_a_preprocessor_config(copied):
    (copied / PREPROCESSOR).unlink()
    with pytest.raises(InputError, match="min_pixels 10 is larger than max_pixels 3"):
        ModelSpec.open(copied, min_pixels=10, max_pixels=3)


def test_encoder_of_an_open_spec(copied):
    spec, calls = ModelSpec.open(copied, max_pixels=4000), []
    found = Encoder.from_spec(spec, threads=2, progress=lambda *call: calls.append(call))
    assert (found.spec, found.threads) == (spec, 2)
    assert calls[-1][0] == calls[-1][1] == sum(tensor.nbytes for tensor in spec.checkpoint.tensors.values())
    image = picture(61, 97)
    assert same_bits(found.encode(image).embeddings, encoder(max_pixels=4000).encode(image).embeddings)
    with pytest.raises(InputError, match="threads"):
        Encoder.from_spec(spec, threads=0)


def test_encoder_of_a_preset_that_is_not_there_yet(monkeypatch, tmp_path):
    """The first tensor that is read writes the files."""
    monkeypatch.setenv("QWENVIS_CACHE", str(tmp_path))
    spec = ModelSpec.open("synthetic:tiny-qwen2-vl")
    given = pixels(spec.config, [[1, 4, 6]])
    assert same_bits(Encoder.from_spec(spec)(*given).embeddings, encoder()(*given).embeddings)


def test_preprocessor_config_that_cannot_be_used_is_an_error_at_once(copied):
    content = json.loads((copied / PREPROCESSOR).read_text())
    (copied / PREPROCESSOR).write_text(json.dumps(content | {"do_resize": False}))
    with pytest.raises(ConfigError, match="do_resize"):
        ModelSpec.open(copied)


def test_checkpoint_without_a_preprocessor_config(copied):
    """The tower alone needs none; images do, or both limits."""
    (copied / PREPROCESSOR).unlink()
    found, whole = Encoder.from_pretrained(copied, threads=1), encoder()
    given, image = pixels(found.config, [[1, 4, 6]]), picture(61, 97)
    assert same_bits(found(*given).embeddings, whole(*given).embeddings)
    with pytest.raises(ConfigError, match="no preprocessor_config"):
        found.encode(image)
    with pytest.raises(ConfigError, match="no preprocessor_config"):
        Encoder.from_pretrained(copied, max_pixels=4000).encode(image)
    want = whole.encode(image, **BOTH).embeddings
    assert same_bits(Encoder.from_pretrained(copied, threads=1, **BOTH).encode(image).embeddings, want)


def test_call_may_give_the_limits_that_a_checkpoint_lacks(copied):
    """As the error of the test above says."""
    (copied / PREPROCESSOR).unlink()
    found, image = Encoder.from_pretrained(copied, threads=1), picture(61, 97)
    assert same_bits(found.encode(image, **BOTH).embeddings, encoder().encode(image, **BOTH).embeddings)


def test_images_do_not_fit_a_tower_of_one_channel(tmp_path):
    transformers_towers.save(tmp_path, "qwen2_vl", transformers_towers.make("qwen2_vl", in_channels=1)[0])
    found = Encoder.from_pretrained(tmp_path, threads=1)
    assert found(*pixels(found.config, [[1, 4, 6]])).embeddings.shape == (6, 96)
    with pytest.raises(QwenvisError, match="channel"):
        found.encode(picture(61, 97))


def test_headers_are_enough(copied):
    """No byte of a tensor is read: they may all be wrong."""
    for shard in copied.glob("*.safetensors"):
        content = bytearray(shard.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        content[start:] = b"\xff" * (len(content) - start)
        shard.write_bytes(content)
    spec = ModelSpec.open(copied)
    assert spec.cost(np.array([[1, 4, 6]])).tokens == 6
    assert spec.parameters == encoder().spec.parameters


def test_nothing_here(tmp_path):
    with pytest.raises(SourceError, match="names no checkpoint"):
        ModelSpec.open(tmp_path / "nowhere")


def test_options_of_images(copied):
    """They reach the processor, of a call too, with and without a preprocessor config."""
    options = {"pixels": "transformers", "backend": "torchvision"}
    found = Encoder.from_pretrained(copied, threads=1, **options)
    for processor in (found.spec.processor, found.spec.processor_with(max_pixels=4000)):
        assert (processor.pixels, processor.backend, processor.normalisation.fused) == (*options.values(), True)
    assert not same_bits(
        found.preprocess(picture(61, 97)).pixel_values, encoder().preprocess(picture(61, 97)).pixel_values
    )
    (copied / PREPROCESSOR).unlink()
    assert ModelSpec.open(copied, **options).processor_with(**BOTH).pixels == "transformers"


@pytest.mark.parametrize("name", ["pixels", "backend"])
@pytest.mark.parametrize("value", ["pillow", None, 3])
def test_options_that_cannot_be(name, value):
    with pytest.raises(InputError, match=f"{name} is {value!r}; expected "):
        Encoder.from_pretrained(checkpoint(), **{name: value})
