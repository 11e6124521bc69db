"""Files of a checkpoint that are damaged, or change while they are in use: one typed error, never a crash."""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made.checkpoints import CONFIG, PATCH, load_all, open_directory, raw_file, tower, write_json, write_single
from qwenvis.errors import CheckpointError
from qwenvis.weights import Request


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


NAME = "visual." + PATCH
DAMAGED = {
    "empty": (b"", b"", None),
    "no JSON": (b"x" * 40, b"", None),
    "a list": (b"[]", b"", None),
    "longer than the file": ({NAME: entry()}, b"", 1 << 20),
    "oversize": ({NAME: entry()}, b"", 1 << 40),
    "overflowing length": ({NAME: entry()}, b"", (1 << 64) - 1),
    "truncated data": ({NAME: entry()}, b"xx", None),
    "data behind the end": ({NAME: entry()}, b"x" * 9, None),
    "a hole": ({NAME: entry(), "a": entry(offsets=(8, 12))}, b"x" * 12, None),
    "an overlap": ({NAME: entry(), "a": entry(offsets=(2, 6))}, b"x" * 6, None),
    "an overflowing shape": ({NAME: entry(shape=(1 << 62, 16), offsets=(0, 0))}, b"", None),
    "a negative shape": ({NAME: entry(shape=(-1,))}, b"xxxx", None),
    "a fractional shape": ({NAME: entry(shape=(1.5,))}, b"xxxx", None),
    "offsets that disagree with the shape": ({NAME: entry(shape=(2,))}, b"xxxx", None),
    "offsets in the wrong order": ({NAME: entry(offsets=(4, 0))}, b"xxxx", None),
    "metadata that is no text": ({NAME: entry(), "__metadata__": {"x": 1}}, b"xxxx", None),
    "a key twice": (
        f'{{"{NAME}": {json.dumps(entry())}, "{NAME}": {json.dumps(entry(offsets=(4, 8)))}}}'.encode(),
        b"x" * 8,
        None,
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_p21_damaged_headers(tmp_path, damage):
    write_json(tmp_path, "config.json", CONFIG)
    header, data, length = DAMAGED[damage]
    raw_file(tmp_path / "model.safetensors", header, data, length)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read as safetensors: "):
        open_directory(tmp_path)


def test_a_type_that_nobody_knows(tmp_path):
    write_json(tmp_path, "config.json", CONFIG)
    raw_file(tmp_path / "model.safetensors", {NAME: entry("F31")}, b"xxxx")
    with pytest.raises(CheckpointError, match="tensors of the tower are stored as F31; expected F32, F16, BF16"):
        open_directory(tmp_path)


def test_a_type_that_nobody_knows_beside_the_tower(tmp_path):
    """Only the tower's tensors must be usable."""
    write_json(tmp_path, "config.json", CONFIG)
    entries = {NAME: entry(), "lm_head.weight": entry("F31", offsets=(4, 7))}
    raw_file(tmp_path / "model.safetensors", entries, np.ones(1, np.float32).tobytes() + b"xxx")
    assert load_all(open_directory(tmp_path))[PATCH] == 1


@pytest.mark.parametrize("size", [0, 7, 8, 100])
def test_p21_a_short_file(tmp_path, size):
    directory = write_single(tmp_path, tower())
    data = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(data[:size])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read as safetensors: "):
        open_directory(tmp_path)


@pytest.mark.parametrize("shape", [(0, 1 << 62), (1,) * 100])
def test_p21_shapes_that_are_no_array(tmp_path, shape):
    """Safetensors lets these headers pass; NumPy has no such arrays."""
    write_json(tmp_path, "config.json", CONFIG)
    size = 0 if 0 in shape else 4
    raw_file(tmp_path / "model.safetensors", {NAME: entry(shape=shape, offsets=(0, size))}, b"x" * size)
    checkpoint = open_directory(tmp_path)
    with pytest.raises(CheckpointError, match="of the wrong shape"):
        checkpoint.load([Request(PATCH, (8,), pytest.fail)])
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {NAME} cannot be read"):
        checkpoint.load([Request(PATCH, shape, pytest.fail)])


def test_a_directory_is_no_file(tmp_path):
    write_json(tmp_path, "config.json", CONFIG)
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: Is a directory"):
        open_directory(tmp_path)


def test_p25_a_file_truncated_while_it_is_in_use(tmp_path):
    blocks = {f"blocks.{i}.norm1.weight": np.ones(1 << 14, np.float32) for i in range(4)}  # more than a buffer holds
    directory = write_single(tmp_path, blocks | {PATCH: np.ones(4, np.float32)})
    checkpoint = open_directory(directory)
    size = (directory / "model.safetensors").stat().st_size
    with (directory / "model.safetensors").open("rb+") as file:
        received = []

        def receive(array):
            received.append(array)
            file.truncate(size // 4)

        with pytest.raises(CheckpointError, match=r"model\.safetensors: visual\..* cannot be read"):
            checkpoint.load([Request(name, shape, receive) for name, shape in checkpoint.shapes.items()])
    assert len(received) <= 2  # the second was perhaps read while the first was looked at


@pytest.mark.parametrize(
    "other",
    [
        {PATCH: np.ones(5, np.float32)},
        {PATCH: np.ones(4, np.float16)},
        {PATCH: np.ones((2, 2), np.float32)},
        {"other": np.ones(4, np.float32)},
        {PATCH: np.ones(4, np.float32), "blocks.0.norm1.weight": np.ones(4, np.float32)},
    ],
)
def test_p25_a_file_replaced_while_it_is_in_use(tmp_path, other):
    checkpoint = open_directory(write_single(tmp_path, {PATCH: np.ones(4, np.float32)}))
    write_single(tmp_path, other)
    with pytest.raises(CheckpointError, match="has a different header now: the file was replaced while in use"):
        checkpoint.load([Request(PATCH, (4,), pytest.fail)])


def test_p25_a_file_removed_while_it_is_in_use(tmp_path):
    checkpoint = open_directory(write_single(tmp_path, tower()))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: there is no such file"):
        load_all(checkpoint)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound checkpoint in a directory that every example may spoil, and its bytes."""
    directory = write_single(tmp_path_factory.mktemp("fuzz"), tower())
    return directory, (directory / "model.safetensors").read_bytes()


def survives(directory, content):
    """Whatever the bytes are: a checkpoint that loads, or the one error."""
    (directory / "model.safetensors").write_bytes(content)
    with contextlib.suppress(CheckpointError):
        load_all(open_directory(directory))


@settings(max_examples=300, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 1500),
)
def test_p21_any_bytes_changed(sound, edits, cut):
    directory, content = sound
    changed = bytearray(content)
    for position, value in edits:
        changed[position] = value
    survives(directory, bytes(changed)[:cut])


NUMBER = st.sampled_from([0, 1, 4, 8, -1, 1 << 31, 1 << 62, (1 << 64) - 1, 1 << 64, 0.5]) | st.integers(0, 16)
HEADER = st.dictionaries(
    st.sampled_from([NAME, "visual.a", "model.a", "__metadata__", ""]),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["F32", "F16", "BF16", "F8_E4M3", "F4", "I64", "BOOL", "C64", "?", 1]),
            "shape": st.lists(NUMBER, max_size=4) | st.none(),
            "data_offsets": st.lists(NUMBER, min_size=1, max_size=3),
        },
    )
    | st.none()
    | st.text(max_size=3),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(header=HEADER, data=st.binary(max_size=16), length=st.none() | st.integers(0, 200))
def test_p21_any_header(sound, header, data, length):
    directory, _ = sound
    text = json.dumps(header).encode()
    survives(directory, struct.pack("<Q", len(text) if length is None else length) + text + data)


def refuse(array):
    raise FloatingPointError


def test_prefix_of_a_file_is_shown_as_a_terminal_can_show_it(tmp_path):
    """In the list of the differences, and in an error about a single tensor."""
    evil = "\x1b[2J."
    whole = open_directory(write_single(tmp_path, {PATCH: np.ones(4, np.float32)}, prefix=evil))
    assert whole.prefix == evil
    with pytest.raises(CheckpointError) as listed:
        whole.load([])
    write_single(tmp_path, {PATCH: np.full(4, np.nan, np.float32)}, prefix=evil)
    with pytest.raises(CheckpointError) as single:
        whole.load([Request(PATCH, (4,), refuse)])
    for message in (str(listed.value), str(single.value)):
        assert message.replace("\n", "").isprintable()
        assert r"\x1b[2J." in message
