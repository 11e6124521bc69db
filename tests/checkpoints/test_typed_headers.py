"""Every key of an mmproj and every field of a packed header, replaced by each type: a typed error, or no change."""

import json
import random
import struct
import tracemalloc

import numpy as np
import pytest

from made.checkpoints import raw_file
from made.presets import checkpoint as preset_of
from made.resaved import config_of, tensors_of
from made.typed_fields import VALUES, answer, check_message, paths, replaced, tolerated
from qwenvis import CheckpointError, Encoder, IsaError
from qwenvis.checkpoints.packed import FILE

gguf = pytest.importorskip("gguf")
from made import mmproj_files  # noqa: E402
from made.mmproj_files import KINDS, Typed  # noqa: E402

SEED, SHARE = 21, 50  # of so many cases, one is tried by default

Kind = gguf.GGUFValueType
KEYED = {
    "left out": None,
    "true": Typed(True, Kind.BOOL),
    "false": Typed(False, Kind.BOOL),
    "negative": Typed(-1, Kind.INT32),
    "zero": Typed(0, Kind.UINT32),
    "huge": Typed(2**63, Kind.UINT64),
    "fraction": Typed(0.5, Kind.FLOAT32),
    "whole fraction": Typed(2.0, Kind.FLOAT64),
    "not a number": Typed(float("nan"), Kind.FLOAT32),
    "infinity": Typed(float("inf"), Kind.FLOAT64),
    "text": Typed("abc", Kind.STRING),
    "number in text": Typed("2", Kind.STRING),
    "empty text": Typed("", Kind.STRING),
    "long text": Typed("x" * 10**5, Kind.STRING),
    "paint": Typed("\x1b[31m\n", Kind.STRING),
    "numbers": Typed([1, 2, 3], Kind.ARRAY, Kind.INT32),
    "fractions": Typed([0.5] * 3, Kind.ARRAY, Kind.FLOAT32),
    "not numbers": Typed([float("nan")] * 3, Kind.ARRAY, Kind.FLOAT32),
    "texts": Typed(["x"], Kind.ARRAY, Kind.STRING),
    "flags": Typed([True], Kind.ARRAY, Kind.BOOL),
    "many": Typed(list(range(10_000)), Kind.ARRAY, Kind.UINT32),
}


@pytest.fixture(scope="module", autouse=True)
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def small(family):
    """The entries of a tiny mmproj and its metadata."""
    config = config_of(family)
    vision = config.get("thinker_config", config)["vision_config"]
    tensors = tensors_of(family)
    keys = mmproj_files.metadata(family, vision, 96) | {
        "general.name": "a name",
        "clip.vision.image_min_pixels": 3136,
        "clip.vision.image_max_pixels": 1003520,
    }
    return mmproj_files.entries(family, tensors, vision), keys


def wrong(tmp_path, family, share):
    """The cases, one of so many, whose answer is neither refused nor meant nor that of the file as it was."""
    entries, keys = small(family)
    before = answer(mmproj_files.write(tmp_path / "x.gguf", entries, keys))
    assert not isinstance(before, Exception)
    every = [(key, name) for key in keys for name in KEYED]
    found = []
    for key, name in random.Random(f"{SEED} {family}").sample(every, len(every) // share):
        typed = KEYED[name]
        after = answer(mmproj_files.write(tmp_path / "x.gguf", entries, keys | {key: typed}))
        if not tolerated(key, keys[key], typed and typed.value, before, after):
            found.append((key, name))
    return found


@pytest.mark.parametrize("family", KINDS)
def test_every_key_of_every_type(tmp_path, family):
    assert wrong(tmp_path, family, SHARE) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", KINDS)
def test_every_key_of_every_type_whole(tmp_path, family):
    assert wrong(tmp_path, family, 1) == []


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed checkpoint, its header and its data."""
    directory = tmp_path_factory.mktemp("packed") / "tower"
    Encoder.from_pretrained(preset_of("qwen2_vl"), threads=1).save_packed(directory)
    content = (directory / FILE).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return directory, json.loads(content[8 : 8 + length]), content[8 + length :]


def opened(directory):
    """Whether a packed checkpoint is read as the one that was written."""
    try:
        found = Encoder.from_pretrained(directory, threads=1, dtype="auto")
    except (CheckpointError, IsaError) as error:
        check_message(error)
        return False
    return found.config.depth == 4 and np.isfinite(found.encode(np.zeros((56, 56, 3), np.uint8)).embeddings).all()


def spoilt(header, path, value):
    """A header with another value, its text padded to the cache line that its data begin with."""
    changed = replaced(header, path, value)
    text = json.dumps(changed).encode()
    return text + b" " * (-(8 + len(text)) % 64)


def test_every_field_of_a_packed_header(packed):
    directory, header, data = packed
    raw_file(directory / FILE, spoilt(header, (), header), data)
    assert opened(directory)
    fields = [path for path in paths(header) if not path or path[0] in ("__metadata__", "0")]
    for number, path in enumerate(fields):
        for value in list(VALUES.values())[number % 3 :: 3]:
            raw_file(directory / FILE, spoilt(header, path, value), data)
            assert not opened(directory), (path, value)
    raw_file(directory / FILE, spoilt(header, (), header), data)


def test_every_field_of_the_tensors_of_a_packed_header(packed):
    directory, header, data = packed
    stored = json.loads(header["__metadata__"]["tensors"])
    first = next(iter(stored))
    fields = [path for path in paths(stored) if not path or path[0] == first]
    for number, path in enumerate(fields):
        for value in list(VALUES.values())[number % 2 :: 2]:
            changed = replaced(header, ("__metadata__", "tensors"), json.dumps(replaced(stored, path, value)))
            raw_file(directory / FILE, spoilt(changed, (), changed), data)
            assert not opened(directory), (path, value)
    raw_file(directory / FILE, spoilt(header, (), header), data)
