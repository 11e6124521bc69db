"""Synthetic checkpoints: the layout of the Hub, the published towers, the same bytes wherever and whenever."""

import itertools
import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from qwenvis import synthetic
from qwenvis.checkpoint import Checkpoint
from qwenvis.errors import SourceError
from qwenvis.weights import Request

TINY = ["tiny-qwen2-vl", "tiny-qwen2.5-vl"]

# Parameters in millions and number of tensors, from transformers' own classes on the meta device.
PUBLISHED = {
    "qwen2-vl-2b": (665.27, 391),
    "qwen2-vl-7b": (675.76, 391),
    "qwen2-vl-72b": (699.36, 391),
    "qwen2.5-vl-3b": (668.68, 390),
    "qwen2.5-vl-7b": (676.55, 390),
    "qwen2.5-vl-32b": (688.84, 390),
    "qwen2.5-vl-72b": (704.57, 390),
}


def published_shapes(config):
    """Names and shapes of a published tower, stated without the package."""
    vision = config["vision_config"]
    second = config["model_type"] == "qwen2_vl"
    d = vision["embed_dim"] if second else vision["hidden_size"]
    inner = d * vision["mlp_ratio"] if second else vision["intermediate_size"]
    out = vision["hidden_size"] if second else vision["out_hidden_size"]
    shapes = {"patch_embed.proj.weight": (d, 3, 2, 14, 14)}

    def linear(name, rows, columns):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def norm(name):
        shapes[f"{name}.weight"] = (d,)
        if second:
            shapes[f"{name}.bias"] = (d,)

    for block in (f"blocks.{i}" for i in range(vision["depth"])):
        norm(f"{block}.norm1")
        norm(f"{block}.norm2")
        linear(f"{block}.attn.qkv", 3 * d, d)
        linear(f"{block}.attn.proj", d, d)
        for name in ["fc1"] if second else ["gate_proj", "up_proj"]:
            linear(f"{block}.mlp.{name}", inner, d)
        linear(f"{block}.mlp.{'fc2' if second else 'down_proj'}", d, inner)
    norm("merger.ln_q")
    linear("merger.mlp.0", 4 * d, 4 * d)
    linear("merger.mlp.2", out, 4 * d)
    return shapes


@pytest.fixture
def stated(monkeypatch):
    """Takes the shapes from this file, so that these tests do not need the models."""
    monkeypatch.setattr(synthetic, "tower_shapes", published_shapes)


def tensors_of(directory):
    return {name: array for file in sorted(directory.glob("*.safetensors")) for name, array in load_file(file).items()}


@pytest.mark.parametrize("preset", synthetic.PRESETS)
def test_models_ask_for_the_published_towers(preset):
    config = synthetic.PRESETS[preset].config
    shapes = synthetic.tower_shapes(config)
    assert shapes == published_shapes(config)
    if preset in PUBLISHED:
        millions = sum(map(math.prod, shapes.values())) / 1e6
        assert (round(millions, 2), len(shapes)) == PUBLISHED[preset]


@pytest.mark.parametrize("preset", TINY)
def test_layout_of_the_hub(stated, tmp_path, preset):
    directory = synthetic.materialise(preset, tmp_path)
    assert json.loads((directory / "config.json").read_text()) == synthetic.PRESETS[preset].config
    preprocessor = json.loads((directory / "preprocessor_config.json").read_text())
    assert (preprocessor["min_pixels"], preprocessor["max_pixels"]) == (3136, 12845056)
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in directory.glob("*.safetensors"))
    assert shards == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    tensors = tensors_of(directory)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    assert all(name in load_file(directory / file) for name, file in index["weight_map"].items())
    assert {array.dtype for array in tensors.values()} == {np.dtype(ml_dtypes.bfloat16)}
    holds = [{name.split(".")[0] for name in load_file(directory / shard)} for shard in shards]
    assert holds == [{"visual", "model"}, {"visual"}, {"model", "lm_head"}]
    assert sorted(path.name for path in tmp_path.iterdir()) == [directory.name]


@pytest.mark.parametrize("preset", TINY)
def test_loads_as_a_real_checkpoint_without_the_language_model(stated, tmp_path, preset):
    directory = synthetic.materialise(preset, tmp_path)
    (directory / "model-00003-of-00003.safetensors").unlink()
    checkpoint = Checkpoint.open(directory)
    assert checkpoint.prefix == "visual."
    assert checkpoint.shapes == published_shapes(synthetic.PRESETS[preset].config)
    loaded = {}
    checkpoint.load(
        [Request(name, shape, lambda a, n=name: loaded.update({n: a})) for name, shape in checkpoint.shapes.items()]
    )
    expected = tensors_of(directory)
    assert all(np.array_equal(array, expected["visual." + name]) for name, array in loaded.items())


def test_numbers_are_scaled_for_their_role(stated, tmp_path):
    tensors = tensors_of(synthetic.materialise("tiny-qwen2-vl", tmp_path))
    gather = {
        "matrix": [
            a.astype(np.float64).ravel() * math.prod(a.shape[1:]) ** 0.5 for a in tensors.values() if a.ndim > 1
        ],
        "norm": [a.astype(np.float64) for n, a in tensors.items() if a.ndim == 1 and n.endswith("weight")],
        "bias": [a.astype(np.float64) for n, a in tensors.items() if n.endswith("bias")],
    }
    for role, mean, std in [("matrix", 0, 1), ("norm", 1, 0.2), ("bias", 0, 0.1)]:
        values = np.concatenate(gather[role])
        assert values.mean() == pytest.approx(mean, abs=5 * std / values.size**0.5)
        assert values.std() == pytest.approx(std, rel=5 / values.size**0.5)
    ordered = [tensors[name].tobytes()[:32] for name in tensors]
    assert len(set(ordered)) == len(ordered)


def test_same_bytes_whatever_the_threads_and_the_order(stated, tmp_path, monkeypatch):
    first = tensors_of(synthetic.materialise("tiny-qwen2-vl", tmp_path / "a"))
    monkeypatch.setattr(synthetic, "WRITERS", 1)
    monkeypatch.setattr(synthetic, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(synthetic, "tower_shapes", lambda config: dict(reversed(published_shapes(config).items())))
    second = tensors_of(synthetic.materialise("tiny-qwen2-vl", tmp_path / "b"))
    assert len(list((tmp_path / "b").glob("*/*.safetensors"))) > 3
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_presets_differ_where_their_names_agree(stated, tmp_path):
    one, other = (tensors_of(synthetic.materialise(preset, tmp_path)) for preset in TINY)
    name = "visual.patch_embed.proj.weight"
    assert one[name].shape == other[name].shape
    assert one[name].tobytes() != other[name].tobytes()


def test_written_once(stated, tmp_path, monkeypatch):
    directory = synthetic.materialise("tiny-qwen2-vl", tmp_path)
    monkeypatch.setattr(synthetic, "_write", pytest.fail)
    assert synthetic.materialise("tiny-qwen2-vl", tmp_path) == directory


def test_a_new_recipe_is_a_new_directory(stated, tmp_path, monkeypatch):
    directory = synthetic.materialise("tiny-qwen2-vl", tmp_path)
    monkeypatch.setattr(synthetic, "RECIPE", synthetic.RECIPE + 1)
    assert synthetic.materialise("tiny-qwen2-vl", tmp_path) != directory


def test_writers_at_the_same_time_agree(stated, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        directories = set(pool.map(lambda _: synthetic.materialise("tiny-qwen2.5-vl", tmp_path), range(4)))
    assert [directories.pop()] == list(tmp_path.iterdir())


def test_the_loser_of_a_race_takes_the_winners_directory(stated, tmp_path, monkeypatch):
    winner = synthetic.materialise("tiny-qwen2-vl", tmp_path / "elsewhere")
    write = synthetic._write

    def and_be_overtaken(draft, *arguments):
        write(draft, *arguments)
        shutil.copytree(winner, tmp_path / winner.name)

    monkeypatch.setattr(synthetic, "_write", and_be_overtaken)
    assert synthetic.materialise("tiny-qwen2-vl", tmp_path) == tmp_path / winner.name
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_left_of_a_draft_that_failed(stated, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.materialise("tiny-qwen2-vl", tmp_path, progress=stop)
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_byte(stated, tmp_path):
    seen = []
    directory = synthetic.materialise("tiny-qwen2-vl", tmp_path, lambda done, total: seen.append((done, total)))
    total = sum(array.nbytes for array in tensors_of(directory).values())
    assert seen[-1] == (total, total)
    assert all(before[0] < after[0] for before, after in itertools.pairwise(seen))


def test_unknown_preset_lists_the_presets():
    with pytest.raises(SourceError, match=r"no preset 'qwen9'; presets are qwen2-vl-2b, .*tiny-qwen2\.5-vl"):
        synthetic.materialise("qwen9")


def test_a_full_disk_is_told_before_writing(stated, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(synthetic.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SourceError, match=r"takes 1\.33 GB and .* has 0\.10 GB free; QWENVIS_CACHE"):
        synthetic.materialise("qwen2-vl-2b", tmp_path / "deep" / "cache")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(stated, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=r"cannot be written into .*file.*QWENVIS_CACHE"):
        synthetic.materialise("tiny-qwen2-vl", tmp_path / "file")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"QWENVIS_CACHE": "/own", "XDG_CACHE_HOME": "/shared"}, "/own"),
        ({"XDG_CACHE_HOME": "/shared"}, "/shared/qwenvis"),
        ({"HOME": "/home/somebody"}, "/home/somebody/.cache/qwenvis"),
        ({"QWENVIS_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/home/somebody"}, "/home/somebody/.cache/qwenvis"),
        ({"QWENVIS_CACHE": "~/kept", "HOME": "/home/somebody"}, "/home/somebody/kept"),
    ],
)
def test_cache_root(monkeypatch, variables, expected):
    for name in ("QWENVIS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(synthetic.cache_root()) == expected
