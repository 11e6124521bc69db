"""Checkpoints: where things are, what is read of them, and what a tower may ask."""

import io
import json
import threading
import weakref
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from made.checkpoints import (
    CONFIG,
    PATCH,
    SHARDS,
    equal,
    load_all,
    open_directory,
    tower,
    write_json,
    write_shards,
    write_single,
)
from qwenvis.checkpoints import shards
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.checkpoints.configs import read_configs
from qwenvis.checkpoints.files import MAX_JSON_BYTES, Files, regular_file
from qwenvis.checkpoints.shards import open_shards, tower_shards
from qwenvis.errors import CheckpointError, ConfigError, SourceError
from qwenvis.weights import Request


class Spy:
    """The opener of files, with a note of every file that is opened, and of the ranges that are read of it."""

    def __init__(self):
        self.opened, self.ranges = Counter(), []

    def __call__(self, path):
        self.opened[path.name] += 1
        return SpiedFile(path, self.ranges)


class SpiedFile(io.BufferedReader):
    def __init__(self, path, ranges):
        super().__init__(path.open("rb", buffering=0))
        self.path, self.ranges = path, ranges

    def read(self, size=-1):
        begin = self.tell()
        content = super().read(size)
        self.ranges.append((self.path.name, begin, begin + len(content)))
        return content

    def readinto(self, buffer):
        begin = self.tell()
        count = super().readinto(buffer)
        self.ranges.append((self.path.name, begin, begin + count))
        return count


@pytest.mark.parametrize("prefix", ["visual.", "model.visual.", "vlm.visual.", "thinker.visual.", ""])
def test_any_prefix(tmp_path, prefix):
    checkpoint = open_directory(write_single(tmp_path, tower(), prefix))
    assert checkpoint.prefix == prefix
    assert checkpoint.shapes == {name: array.shape for name, array in tower().items()}
    assert checkpoint.files == [tmp_path / "model.safetensors"]
    assert equal(load_all(checkpoint), tower())


def test_shards(tmp_path):
    checkpoint = open_directory(write_shards(tmp_path))
    assert checkpoint.files == [tmp_path / SHARDS[0], tmp_path / SHARDS[1]]
    assert tower_shards(tmp_path) == SHARDS[:2]
    assert equal(load_all(checkpoint), tower())


def test_p14_only_the_tower_is_read_once_in_the_order_of_the_file(tmp_path, monkeypatch):
    """The headers when a checkpoint is opened; the tower's bytes when it is loaded, by whatever opens its files."""
    spy, headers = Spy(), Counter()
    parse = shards.parse_header
    monkeypatch.setattr(shards, "parse_header", lambda path, *rest: headers.update([path.name]) or parse(path, *rest))
    checkpoint = replace(open_directory(write_shards(tmp_path)), open_file=spy)
    assert headers == {SHARDS[0]: 1, SHARDS[1]: 1}
    assert not spy.opened
    load_all(checkpoint)
    assert spy.opened == headers == {SHARDS[0]: 1, SHARDS[1]: 1}
    expected = []
    for shard in SHARDS[:2]:
        content = (tmp_path / shard).read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        entries = json.loads(content[8:start])
        spans = sorted(e["data_offsets"] for name, e in entries.items() if name.startswith("visual."))
        expected += [(shard, 0, start), *((shard, start + begin, start + end) for begin, end in spans)]
    assert spy.ranges == expected


def test_a_single_file_is_opened_once_for_its_header_and_once_for_its_tensors(tmp_path, monkeypatch):
    spy, parsed = Spy(), []
    parse = shards.parse_header
    monkeypatch.setattr(shards, "parse_header", lambda path, *rest: parsed.append(path) or parse(path, *rest))
    write_single(tmp_path, tower())
    checkpoint = open_shards(tmp_path, read_configs(tmp_path), Files(regular_file, spy))
    assert spy.opened == {"model.safetensors": 1}
    load_all(checkpoint)
    assert spy.opened == {"model.safetensors": 2}
    assert len(parsed) == 1


def test_p14_two_tensors_exist_at_a_time(tmp_path, monkeypatch):
    """While one is packed the next is read, and none after it."""
    checkpoint = open_directory(write_single(tmp_path, tower()))
    read, made, order = Checkpoint._read, [], list(checkpoint.tensors)
    read_once = {name: threading.Event() for name in order}

    def noted(self, handle, name):
        array = read(self, handle, name)
        made.append(weakref.ref(array))
        read_once[name].set()
        return array

    def receive(array, name):
        after = order[order.index(name) + 1 :][:1]
        assert all(read_once[each].wait(10) for each in after)
        assert sum(each() is not None for each in made) == 1 + len(after)

    monkeypatch.setattr(Checkpoint, "_read", noted)
    checkpoint.load([Request(name, checkpoint.shapes[name], partial(receive, name=name)) for name in order])
    assert len(made) == len(order)


def test_progress_counts_the_bytes_of_the_tower(tmp_path):
    seen = []
    load_all(open_directory(write_shards(tmp_path)), lambda done, total: seen.append((done, total)))
    total = sum(array.nbytes for array in tower().values())
    assert len(seen) == len(tower())
    assert seen[-1] == (total, total)


def test_the_single_file_comes_before_an_index(tmp_path):
    write_shards(tmp_path)
    write_single(tmp_path, tower())
    assert open_directory(tmp_path).files == [tmp_path / "model.safetensors"]


VISION = {"depth": 3, "model_type": "qwen2_5_vl_vision"}


@pytest.mark.parametrize(
    ("config", "model_type", "vision_config"),
    [
        ({"model_type": "qwen2_5_vl", "vision_config": VISION}, "qwen2_5_vl", VISION),
        ({"vision_config": VISION}, "qwen2_5_vl_vision", VISION),
        ({"vision_config": {}}, "", {}),
        (
            {
                "model_type": "qwen2_5_omni",
                "thinker_config": {"model_type": "qwen2_5_omni_thinker", "vision_config": VISION},
            },
            "qwen2_5_omni_thinker",
            VISION,
        ),
        ({"model_type": "colqwen2", "vlm_config": {"model_type": "qwen2_vl", "vision_config": {}}}, "qwen2_vl", {}),
        ({"model_type": "colqwen2", "vlm_config": {"vision_config": {}}}, "colqwen2", {}),
        (
            {"vlm_config": {"thinker_config": {"model_type": "qwen2_5_omni_thinker", "vision_config": VISION}}},
            "qwen2_5_omni_thinker",
            VISION,
        ),
        ({"model_type": "qwen2_vl", "depth": 2}, "qwen2_vl", {"model_type": "qwen2_vl", "depth": 2}),
    ],
)
def test_where_the_towers_config_is(tmp_path, config, model_type, vision_config):
    checkpoint = open_directory(write_single(tmp_path, tower(), config=config))
    assert checkpoint.config == config
    assert checkpoint.model_type == model_type
    assert checkpoint.vision_config == vision_config


def test_where_the_preprocessor_is(tmp_path):
    write_single(tmp_path, tower())
    assert open_directory(tmp_path).preprocessor == {}
    write_json(tmp_path, "processor_config.json", {"processor_class": "Qwen2VLProcessor"})
    assert open_directory(tmp_path).preprocessor == {}
    write_json(tmp_path, "processor_config.json", {"image_processor": {"max_pixels": 7}})
    assert open_directory(tmp_path).preprocessor == {"max_pixels": 7}
    write_json(tmp_path, "preprocessor_config.json", {"max_pixels": 8})
    assert open_directory(tmp_path).preprocessor == {"max_pixels": 7}
    write_json(tmp_path, "processor_config.json", {"image_processor": None})
    assert open_directory(tmp_path).preprocessor == {"max_pixels": 8}


def test_no_directory(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere is not a directory"):
        open_directory(tmp_path / "nowhere")


def test_no_config(tmp_path):
    with pytest.raises(SourceError, match=r"holds no config\.json, so it is not a checkpoint in the Hub's layout$"):
        open_directory(tmp_path)
    (tmp_path / "mmproj-f16.gguf").touch()
    with pytest.raises(SourceError, match=r"; to read mmproj-f16\.gguf, name the file itself$"):
        open_directory(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "nonsense", "[" * 100_000, '{"a": ' + "9" * 10_000 + "}", "[]", "3", "null", '"text"']
)
def test_json_that_is_no_object(tmp_path, name, content):
    write_single(tmp_path, tower())
    write_json(tmp_path, name, content)
    with pytest.raises(ConfigError, match=rf"{name} (cannot be read as JSON: |holds a JSON \w+; expected an object)"):
        open_directory(tmp_path)


def test_json_that_is_no_text(tmp_path):
    write_single(tmp_path, tower())
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        open_directory(tmp_path)


def test_json_that_is_too_long(tmp_path):
    write_single(tmp_path, tower(), config=CONFIG | {"note": "x" * MAX_JSON_BYTES})
    with pytest.raises(ConfigError, match=r"config\.json cannot be read as JSON: it has more than 2,000,000 bytes"):
        open_directory(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vision_config": [1]}, r"config\.json says vision_config = \[1\]; expected an object"),
        ({"vision_config": None}, r"config\.json says vision_config = None; expected an object"),
        ({"model_type": 3, "vision_config": {}}, r"config\.json says model_type = 3; expected a string"),
    ],
)
def test_configs_of_the_wrong_kind(tmp_path, config, message):
    with pytest.raises(ConfigError, match=message):
        open_directory(write_single(tmp_path, tower(), config=config))


def test_an_image_processor_of_the_wrong_kind(tmp_path):
    write_single(tmp_path, tower())
    write_json(tmp_path, "processor_config.json", {"image_processor": "fast"})
    with pytest.raises(ConfigError, match=r"processor_config\.json says image_processor = 'fast'; expected an object"):
        open_directory(tmp_path)


def test_p08_one_error_lists_everything_before_anything_is_read(tmp_path):
    spy = Spy()
    checkpoint = replace(open_directory(write_single(tmp_path, tower())), open_file=spy)
    shapes = checkpoint.shapes
    requests = [
        Request(PATCH, shapes[PATCH], pytest.fail),
        Request(PATCH, shapes[PATCH], pytest.fail),
        Request("blocks.0.norm1.weight", (9,), pytest.fail),
        Request("blocks.0.norm1.bias", (8,), pytest.fail),
        Request("merger.mlp.0.bias", (32,), pytest.fail),
    ]
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(requests)
    assert str(caught.value).splitlines() == [
        f'{tmp_path}: the tensors under the prefix "visual." are not those of this tower',
        "  missing (1): blocks.0.norm1.bias",
        "  left over (1): blocks.0.attn.qkv.weight",
        "  of the wrong shape (1): blocks.0.norm1.weight is (8,), expected (9,)",
        f"  requested more than once (1): {PATCH}",
    ]
    assert not spy.opened


def test_long_lists_are_cut_politely(tmp_path):
    checkpoint = open_directory(write_single(tmp_path, tower()))
    with pytest.raises(CheckpointError, match=r"missing \(25\): extra\.0, .*extra\.9 and 15 more$"):
        checkpoint.load(
            [Request(name, shape, pytest.fail) for name, shape in checkpoint.shapes.items()]
            + [Request(f"extra.{i}", (1,), pytest.fail) for i in range(25)]
        )


def test_names_from_a_file_cannot_paint_the_terminal(tmp_path):
    checkpoint = open_directory(write_single(tmp_path, tower() | {"\x1b[31mred\n": np.ones(1, np.float32)}))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load([])
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    assert r"\x1b[31mred\n" in str(caught.value)


def test_an_error_of_the_receiver_is_its_own(tmp_path):
    checkpoint = open_directory(write_single(tmp_path, {PATCH: np.ones(1, np.float32)}))

    def receive(array):
        raise MemoryError

    with pytest.raises(MemoryError):
        checkpoint.load([Request(PATCH, (1,), receive)])
