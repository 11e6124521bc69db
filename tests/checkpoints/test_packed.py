"""Packed checkpoints: the same bits from a file that is mapped, and one typed error for what cannot be used."""

import hashlib
import json
import shutil
import struct
from unittest.mock import Mock

import numpy as np
import pytest

from made import mmproj_files
from made.arrays import assert_same_bits
from made.presets import PRESETS, encoder, picture, pixels
from made.presets import checkpoint as preset_of
from made.resaved import config_of, tensors_of, tokens_of
from made.tile_sizes import ISAS, using_isa
from qwenvis import CheckpointError, Encoder, InputError, IsaError, cli, ops
from qwenvis.checkpoints.packed import FILE, LAYOUT
from qwenvis.cli import units
from qwenvis.nn.formats import DTYPES

GRIDS = [[1, 10, 14], [3, 4, 6]]


def saved(directory, family="qwen2_vl", dtype="float32"):
    """A packed checkpoint of a tiny preset, and the encoder that it was saved from."""
    whole = Encoder.from_pretrained(preset_of(family), dtype=dtype, threads=2)
    whole.save_packed(directory)
    return whole


def header_of(file):
    """The JSON of a safetensors file, and what follows."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(file, header, data, pad=64):
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % pad)
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("family", PRESETS)
def test_every_family_has_the_same_bits(family, tmp_path):
    whole = saved(tmp_path / "packed", family)
    again = Encoder.from_pretrained(tmp_path / "packed", dtype="auto", threads=1)
    given = pixels(whole.config, GRIDS)
    assert (again.family, again.config, again.format) == (whole.family, whole.config, "f32")
    want, got = whole(*given), again(*given)
    for a, b in zip([want.embeddings, *want.deepstack], [got.embeddings, *got.deepstack], strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_isa_and_format(isa, dtype, tmp_path):
    with using_isa(isa):
        whole = saved(tmp_path / "packed", "qwen2_5_vl", dtype)
        again = Encoder.from_pretrained(tmp_path / "packed", dtype=dtype)
        assert_same_bits(again.encode(picture(84, 56)).embeddings, whole.encode(picture(84, 56)).embeddings)
        assert again.format == whole.format


def test_weights_stay_in_the_file(tmp_path):
    saved(tmp_path / "packed")
    kept = Encoder.from_pretrained(tmp_path / "packed").spec.weights.kept
    packed = [memory for memory in kept if isinstance(memory, ops.PackedWeight)]
    assert packed
    assert not any(weight.memory.flags.writeable for weight in packed)
    with pytest.raises(ValueError, match="is mapped"):
        packed[0].pack(np.zeros(packed[0].shape, np.float32))
    with pytest.raises(ValueError, match="is mapped"):
        packed[0].pack_bias(np.zeros(packed[0].shape[0], np.float32))


def test_a_mapped_weight_never_writes_into_another():
    first, second = (ops.PackedWeight(5, 7) for _ in range(2))
    first.pack(np.ones((5, 7), np.float32))
    second.map(first.memory)
    with pytest.raises(ValueError, match="is mapped"):
        second.pack(np.zeros((5, 7), np.float32))
    first.pack(np.zeros((5, 7), np.float32))


def test_a_name_as_long_as_a_file_may_have(tmp_path):
    saved(tmp_path / ("n" * 255))
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]


def test_a_packed_checkpoint_can_be_packed_again_and_described(tmp_path):
    first = saved(tmp_path / "first")
    Encoder.from_pretrained(tmp_path / "first").save_packed(tmp_path / "second")
    assert (tmp_path / "first" / FILE).read_bytes() == (tmp_path / "second" / FILE).read_bytes()
    assert first.spec.parameters == Encoder.from_pretrained(tmp_path / "second").spec.parameters
    assert_same_bits(tokens_of(tmp_path / "second"), tokens_of(preset_of("qwen2_vl")))


def test_progress_ends(tmp_path):
    saved(tmp_path / "packed")
    calls = []
    Encoder.from_pretrained(tmp_path / "packed", progress=lambda *done: calls.append(done))
    assert calls[-1][0] == calls[-1][1] > 0


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").write_text("mine")
    for name in ("full", "full/config.json", "full/config.json/below"):
        with pytest.raises(InputError, match=r"already exists|cannot be written"):
            encoder("qwen2_vl").save_packed(tmp_path / name)
    assert [path.read_text() for path in (tmp_path / "full").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["a\0b", "\ud800", 5, None])
def test_names_that_no_directory_has(name):
    with pytest.raises(InputError, match="is not a valid path"):
        encoder("qwen2_vl").save_packed(name)


def test_a_loop_of_links(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=r"is not a valid path|cannot be written"):
        encoder("qwen2_vl").save_packed(tmp_path / "loop" / "x")


@pytest.mark.parametrize("name", ["deep/er", "~nobody-of-this-name/er"])
def test_the_parent_has_to_be_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        encoder("qwen2_vl").save_packed(name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("side", "message"), [(1 << 24, "impossible tensors"), (1 << 15, "expected sizes from 1 to 1048576")], ids=str
)
def test_sizes_that_nothing_holds(side, message, tmp_path):
    """The metadata may claim any shape: no bytes stand behind it."""
    saved(tmp_path / "packed", "qwen3_vl")
    header, data = header_of(tmp_path / "packed" / FILE)
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    stored = json.loads(header["__metadata__"]["tensors"])
    stored["pos_embed.weight"][1] = [side**2, config["vision_config"]["hidden_size"]]
    config["vision_config"]["num_position_embeddings"] = side**2
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    rewrite(tmp_path / "packed" / FILE, *damage_metadata(header, data, tensors=json.dumps(stored)))
    with pytest.raises(CheckpointError, match=message):
        Encoder.from_pretrained(tmp_path / "packed")


def test_a_tower_that_memory_does_not_hold(tmp_path, monkeypatch):
    saved(tmp_path / "packed")
    monkeypatch.setattr("qwenvis.models.build", Mock(side_effect=MemoryError("Unable to allocate 4.00 TiB")))
    with pytest.raises(CheckpointError, match=r"these sizes cannot be allocated: Unable to allocate 4\.00 TiB"):
        Encoder.from_pretrained(tmp_path / "packed")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("qwenvis.checkpoints.packed._write", full)
        with pytest.raises(InputError, match="No space left"):
            saved(tmp_path / "packed")
    assert not list(tmp_path.iterdir())
    saved(tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_other_weights_come_first(tmp_path):
    saved(tmp_path / "packed", dtype="bfloat16")
    shutil.copytree(preset_of("qwen2_vl"), tmp_path / "packed", dirs_exist_ok=True)
    found = Encoder.from_pretrained(tmp_path / "packed", threads=1)
    assert found.format == "f32"
    assert FILE not in [path.name for path in found.spec.checkpoint.files]


def test_a_file_of_llama_cpp(tmp_path):
    pytest.importorskip("gguf")
    given = tensors_of("qwen3_vl"), config_of("qwen3_vl")["vision_config"]
    source = mmproj_files.write_tower(tmp_path / "mmproj.gguf", "qwen3_vl", *given)
    Encoder.from_pretrained(source, threads=1).save_packed(tmp_path / "packed.gguf")
    assert_same_bits(tokens_of(tmp_path / "packed.gguf"), tokens_of(source))


def test_the_layout_has_a_number(tmp_path):
    """Where these bytes change, so does `packed.LAYOUT`: files of before must not be taken for files of now."""
    with using_isa("generic"):
        saved(tmp_path / "packed", "qwen2_5_vl")
    _, data = header_of(tmp_path / "packed" / FILE)
    assert (LAYOUT, hashlib.sha256(data).hexdigest()[:16]) == ("1", "241174754762e6b3")


def test_another_format_or_instruction_set(tmp_path):
    saved(tmp_path / "packed", dtype="bfloat16")
    with pytest.raises(InputError, match="is packed in bf16; dtype is 'float32': pass dtype=\"auto\""):
        Encoder.from_pretrained(tmp_path / "packed")
    with pytest.raises(InputError, match="dtype is 'int8'"):
        Encoder.from_pretrained(tmp_path / "packed", dtype="int8")
    if ops.isa() != "generic":
        with using_isa("generic"), pytest.raises(IsaError, match=r"is packed for \w+, not for generic"):
            Encoder.from_pretrained(tmp_path / "packed", dtype="auto")


def damage_metadata(header, data, **changes):
    header["__metadata__"] |= changes
    return header, data


DAMAGED = {
    "another layout": (lambda h, d: damage_metadata(h, d, layout="0"), "another version"),
    "an unknown format": (lambda h, d: damage_metadata(h, d, format="int8"), "another version"),
    "tensors that are none": (
        lambda h, d: damage_metadata(h, d, tensors='{"a": ["F32", [-1]]}'),
        "describes impossible tensors",
    ),
    "no tensors": (lambda h, d: damage_metadata(h, d, tensors="{}"), "describes impossible tensors"),
    "a tensor of many": (
        lambda h, d: damage_metadata(h, d, tensors=f'{{"a": ["F32", [{10**60}]]}}'),
        "describes impossible tensors",
    ),
    "tensors that are no JSON": (lambda h, d: damage_metadata(h, d, tensors="{"), "does not describe"),
    "tensors of a list": (lambda h, d: damage_metadata(h, d, tensors="[1]"), "does not describe"),
    "nothing said": (lambda h, d: ({k: v for k, v in h.items() if k != "__metadata__"}, d), "does not describe"),
    "a tensor less": (
        lambda h, d: ({"__metadata__": h["__metadata__"], "0": h["0"]}, d[: h["0"]["shape"][0]]),
        "does not hold the tensors",
    ),
    "a tensor of another type": (lambda h, d: (h | {"0": h["0"] | {"dtype": "I8"}}, d), "does not hold the tensors"),
    "cut short": (lambda h, d: (h, d[:-1]), "cannot be read as safetensors"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files(damage, tmp_path):
    saved(tmp_path / "packed")
    change, message = DAMAGED[damage]
    rewrite(tmp_path / "packed" / FILE, *change(*header_of(tmp_path / "packed" / FILE)))
    with pytest.raises(CheckpointError, match=message):
        Encoder.from_pretrained(tmp_path / "packed", dtype="auto")


def test_data_off_a_cache_line(tmp_path):
    saved(tmp_path / "packed")
    header, data = header_of(tmp_path / "packed" / FILE)
    header["__metadata__"]["x"] = "y" * (64 - (8 + len(json.dumps(header))) % 64)
    rewrite(tmp_path / "packed" / FILE, header, data, pad=1)
    with pytest.raises(CheckpointError, match="do not begin at a cache line"):
        Encoder.from_pretrained(tmp_path / "packed")


def test_another_config(tmp_path):
    saved(tmp_path / "packed")
    path = tmp_path / "packed" / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["depth"] -= 1
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"says depth = 3, blocks 0 to 2, but the checkpoint has blocks\.3 too"):
        Encoder.from_pretrained(tmp_path / "packed")


def test_info_says_what_it_is_packed_for(tmp_path, capsys):
    saved(tmp_path / "packed")
    assert cli.main(["info", str(tmp_path / "packed")]) == 0
    assert f"of f32, packed for {ops.isa()} from BF16, in 1 file of" in capsys.readouterr().out


def test_pack_writes_what_save_packed_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved("mine")
    assert cli.main(["pack", str(preset_of("qwen2_vl")), "theirs"]) == 0
    out, err = capsys.readouterr()
    size = units.nbytes((tmp_path / "theirs" / FILE).stat().st_size)
    assert (out, err) == (f"wrote theirs: {size} of f32, packed for {ops.isa()}\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "theirs"}
    for path in (tmp_path / "mine").iterdir():
        assert path.read_bytes() == (tmp_path / "theirs" / path.name).read_bytes()


@pytest.mark.parametrize(("target", "message"), [("full", "already exists"), ("deep/er", "there is no directory deep")])
def test_pack_looks_at_its_target_first(target, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    assert cli.main(["pack", "nothing/here", target]) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["full"]


def test_pack_wants_room_on_the_disk(tmp_path, capsys, monkeypatch):
    source = preset_of("qwen2_vl")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(4, 2, 2))
    assert cli.main(["pack", str(source), str(tmp_path / "packed")]) == 1
    assert "its disk has 2 bytes free" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
