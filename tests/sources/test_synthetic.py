"""Synthetic checkpoints: the layout of the Hub, the published towers, the same bytes wherever and whenever."""

import functools
import itertools
import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from made.checkpoints import open_directory
from made.presets import materialise, tower_shapes
from oracle import transformers_towers
from qwenvis.errors import SourceError
from qwenvis.sources import caches, synthetic
from qwenvis.weights import Request

TINY = ["tiny-qwen2-vl", "tiny-qwen2.5-vl", "tiny-qwen3-vl", "tiny-qwen3-omni", "tiny-paddleocr-vl"]

# Parameters in millions and number of tensors, counted on published checkpoints and on transformers' classes.
PUBLISHED = {
    "qwen2-vl-2b": (665.27, 391),
    "qwen2-vl-7b": (675.76, 391),
    "qwen2-vl-72b": (699.36, 391),
    "qwen2.5-vl-3b": (668.68, 390),
    "qwen2.5-vl-7b": (676.55, 390),
    "qwen2.5-vl-32b": (688.84, 390),
    "qwen2.5-vl-72b": (704.57, 390),
    "qwen2.5-omni-3b": (668.68, 518),
    "qwen2.5-omni-7b": (676.55, 518),
    "qwen3-vl-2b": (406.96, 315),
    "qwen3-vl-4b": (415.35, 315),
    "qwen3-vl-8b": (576.39, 351),
    "qwen3-vl-32b": (595.27, 351),
    "qwen3-vl-30b-a3b": (538.63, 351),
    "qwen3-vl-235b-a22b": (576.39, 351),
    "qwen3-omni-30b-a3b": (538.63, 351),
    "qwen3.5-0.8b": (100.59, 153),
    "qwen3.5-2b": (331.42, 297),
    "qwen3.5-4b": (333.51, 297),
    "qwen3.5-9b": (456.01, 333),
    "qwen3.5-27b": (460.73, 333),
    "glm-4.1v-9b": (892.50, 181),
    "glm-ocr": (434.12, 347),
}


@functools.cache
def published_shapes(preset):
    """Names and shapes of a published tower: transformers' own, which needs no memory for them."""
    with torch.device("meta"):
        model = transformers_towers.build(preset.family, preset.vision_config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def tensors_of(directory):
    return {name: array for file in sorted(directory.glob("*.safetensors")) for name, array in load_file(file).items()}


@pytest.mark.parametrize("preset", synthetic.PRESETS)
def test_models_ask_for_the_published_towers(preset):
    shapes = tower_shapes(synthetic.PRESETS[preset])
    assert shapes == published_shapes(synthetic.PRESETS[preset])
    if preset in PUBLISHED:
        millions = sum(map(math.prod, shapes.values())) / 1e6
        assert (round(millions, 2), len(shapes)) == PUBLISHED[preset]


@pytest.mark.parametrize("preset", TINY)
def test_layout_of_the_hub(tmp_path, preset):
    directory = materialise(preset, tmp_path)
    stated = synthetic.PRESETS[preset]
    assert json.loads((directory / "config.json").read_text()) == stated.config
    assert json.loads((directory / "preprocessor_config.json").read_text()) == stated.preprocessor
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in directory.glob("*.safetensors"))
    assert shards == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    tensors = tensors_of(directory)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    assert all(name in load_file(directory / file) for name, file in index["weight_map"].items())
    assert {array.dtype for array in tensors.values()} == {np.dtype(ml_dtypes.bfloat16)}
    tower = {stated.prefix + name for name in published_shapes(stated)}
    language = ({"model.embed_tokens.weight"}, set(), {"model.norm.weight", "lm_head.weight"})
    for shard, others in zip(shards, language, strict=True):
        assert set(load_file(directory / shard)) - tower == others
    assert tower < set(tensors)
    assert sorted(path.name for path in tmp_path.iterdir()) == [directory.name]


@pytest.mark.parametrize("preset", TINY)
def test_loads_as_a_real_checkpoint_without_the_language_model(tmp_path, preset):
    directory = materialise(preset, tmp_path)
    (directory / "model-00003-of-00003.safetensors").unlink()
    checkpoint = open_directory(directory)
    prefix = synthetic.PRESETS[preset].prefix
    assert checkpoint.prefix == prefix
    assert checkpoint.shapes == published_shapes(synthetic.PRESETS[preset])
    loaded = {}
    checkpoint.load(
        [Request(name, shape, lambda a, n=name: loaded.update({n: a})) for name, shape in checkpoint.shapes.items()]
    )
    expected = tensors_of(directory)
    assert all(np.array_equal(array, expected[prefix + name]) for name, array in loaded.items())


def test_files_are_those_of_the_safetensors_package(tmp_path):
    directory = materialise("tiny-qwen2-vl", tmp_path)
    for file in sorted(directory.glob("*.safetensors")):
        save_file(load_file(file), tmp_path / "theirs", metadata={"format": "pt"})
        assert file.read_bytes() == (tmp_path / "theirs").read_bytes()


def test_numbers_are_scaled_for_their_role(tmp_path):
    tensors = tensors_of(materialise("tiny-qwen2-vl", tmp_path))
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


def test_same_bytes_whatever_the_threads_and_the_order(tmp_path, monkeypatch):
    first = tensors_of(materialise("tiny-qwen2-vl", tmp_path / "a"))
    monkeypatch.setattr(synthetic, "WRITERS", 1)
    monkeypatch.setattr(synthetic, "SHARD_BYTES", 100_000)
    opened = synthetic.open_synthetic("tiny-qwen2-vl", tmp_path / "b")
    shapes = published_shapes(synthetic.PRESETS["tiny-qwen2-vl"])
    held = opened.holding([Request(name, shape, pytest.fail) for name, shape in reversed(shapes.items())])
    held.prepare()
    second = tensors_of(held.path)
    assert len(list((tmp_path / "b").glob("*/*.safetensors"))) > 3
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_presets_differ_where_their_names_agree(tmp_path):
    one, other = (tensors_of(materialise(preset, tmp_path)) for preset in TINY[:2])
    name = "visual.patch_embed.proj.weight"
    assert one[name].shape == other[name].shape
    assert one[name].tobytes() != other[name].tobytes()


def test_written_once(tmp_path, monkeypatch):
    directory = materialise("tiny-qwen2-vl", tmp_path)
    monkeypatch.setattr(synthetic, "_write", pytest.fail)
    assert materialise("tiny-qwen2-vl", tmp_path) == directory


def test_a_new_recipe_is_a_new_directory(tmp_path, monkeypatch):
    directory = materialise("tiny-qwen2-vl", tmp_path)
    monkeypatch.setattr(synthetic, "RECIPE", synthetic.RECIPE + 1)
    assert materialise("tiny-qwen2-vl", tmp_path) != directory


def test_writers_at_the_same_time_agree(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        directories = set(pool.map(lambda _: materialise("tiny-qwen2.5-vl", tmp_path), range(4)))
    assert [directories.pop()] == list(tmp_path.iterdir())


def test_the_loser_of_a_race_takes_the_winners_directory(tmp_path, monkeypatch):
    winner = materialise("tiny-qwen2-vl", tmp_path / "elsewhere")
    write = synthetic._write

    def and_be_overtaken(draft, *arguments):
        write(draft, *arguments)
        shutil.copytree(winner, tmp_path / winner.name)

    monkeypatch.setattr(synthetic, "_write", and_be_overtaken)
    assert materialise("tiny-qwen2-vl", tmp_path) == tmp_path / winner.name
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_left_of_a_draft_that_failed(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        materialise("tiny-qwen2-vl", tmp_path, progress=stop)
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_byte(tmp_path):
    seen = []
    directory = materialise("tiny-qwen2-vl", tmp_path, lambda done, total: seen.append((done, total)))
    total = sum(array.nbytes for array in tensors_of(directory).values())
    assert seen[-1] == (total, total)
    assert all(before[0] < after[0] for before, after in itertools.pairwise(seen))


def test_unknown_preset_suggests_others():
    with pytest.raises(SourceError, match=r"no preset 'qwen9'; presets are written as synthetic:qwen"):
        materialise("qwen9")


def test_a_full_disk_is_told_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(synthetic.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SourceError, match=r"takes 1\.33 GB and .* has 0\.10 GB free; set QWENVIS_CACHE"):
        materialise("qwen2-vl-2b", tmp_path / "deep" / "cache")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=r"cannot be written into .*file.*QWENVIS_CACHE"):
        materialise("tiny-qwen2-vl", tmp_path / "file")


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
    assert str(caches.cache_root()) == expected
