"""GGUF files that are damaged, hostile, or change while they are in use: one typed error, never a crash."""

import contextlib
import struct

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from made import mmproj_files
from made.checkpoints import load_all
from processes.programs import run
from qwenvis import Encoder, sources
from qwenvis.checkpoints.gguf import read_header
from qwenvis.checkpoints.stored import reader
from qwenvis.errors import CheckpointError, SourceError

ARRAYS = {
    "v.patch_embd.weight": (np.arange(96, dtype=np.float32).reshape(4, 3, 4, 2), Type.F32),
    "v.blk.0.ln1.weight": (np.arange(4, dtype=np.float32), Type.F32),
    "v.blk.0.attn_out.weight": (np.arange(64, dtype=np.float32).reshape(2, 32), Type.Q8_0),
    "mm.0.weight": (np.arange(6, dtype=np.float32).reshape(2, 3), Type.F16),
    "mm.2.weight": (np.arange(6, dtype=np.float32).reshape(3, 2), Type.BF16),
}
KEYS = {
    "clip.projector_type": "qwen2vl_merger",
    "clip.vision.block_count": 1,
    "clip.vision.attention.head_count": 1,
    "clip.vision.image_mean": [0.5, 0.25, 0.125],
}


def small(path):
    return mmproj_files.write(path, [(name, *rest) for name, rest in ARRAYS.items()], KEYS)


def text(value):
    return struct.pack("<Q", len(value)) + value


def header(fields=b"", count=0, tensors=b"", tensor_count=0, version=3):
    """The bytes of a file, right or wrong."""
    return b"GGUF" + struct.pack("<IQQ", version, tensor_count, count) + fields + tensors


def field(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def tensor(name=b"v.x", dims=(32,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def test_what_a_header_says(tmp_path):
    found = read_header(small(tmp_path / "x.gguf"))
    assert {name: found.metadata[name] for name in KEYS} == KEYS
    assert found.metadata["general.architecture"] == "clip"
    stored = {name: (entry.dtype, entry.shape) for name, entry in found.tensors.items()}
    assert stored == {name: (kind.name, array.shape) for name, (array, kind) in ARRAYS.items()}


def test_tensors_by_name(tmp_path):
    dtypes = {Type.F16: np.float16, Type.BF16: ml_dtypes.bfloat16}
    header = read_header(small(tmp_path / "x.gguf"))
    with reader(header.file) as read:
        for name, (array, kind) in ARRAYS.items():
            got = read(header.tensors[name])
            want = gguf.dequantize(gguf.quantize(array, kind), kind).astype(dtypes.get(kind, np.float32))
            assert got.dtype == want.dtype
            assert got.tobytes() == want.tobytes()
            assert got.shape == array.shape


def test_p21_cut_short_anywhere(tmp_path):
    content = small(tmp_path / "x.gguf").read_bytes()
    end = max(entry.offset + entry.nbytes for entry in read_header(tmp_path / "x.gguf").tensors.values())
    for size in [*range(0, 200, 7), *range(200, end, 97), end - 1]:
        (tmp_path / "x.gguf").write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"x\.gguf cannot be read as GGUF: "):
            read_header(tmp_path / "x.gguf")


ARRAY, STRING, U8, U32 = 9, 8, 0, 4
HOSTILE = {
    "another file": b"\x89PNG" + bytes(100),
    "version 1": header(version=1),
    "version 99": header(version=99),
    "other byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "countless fields": header(count=1 << 63),
    "countless tensors": header(tensor_count=1 << 63),
    "an endless array": header(field(b"a", ARRAY, struct.pack("<IQ", U8, 1 << 60)), 1) + bytes(100),
    "a long array": header(field(b"a", ARRAY, struct.pack("<IQ", U8, 200_000)), 1) + bytes(300_000),
    "an endless text": header(field(b"a", STRING, struct.pack("<Q", (1 << 64) - 1)), 1) + bytes(100),
    "a long text": header(field(b"a", STRING, struct.pack("<Q", 1 << 21)), 1) + bytes(1 << 22),
    "many long texts": header(field(b"a", ARRAY, struct.pack("<IQ", STRING, 40)) + text(bytes(1 << 20)) * 40, 1),
    "arrays in arrays": header(field(b"a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 5000), 1) + bytes(100),
    "an unknown kind": header(field(b"a", 77, bytes(8)), 1),
    "no UTF-8": header(field(b"\xff\xfe", U32, bytes(4)), 1),
    "a value that is no UTF-8": header(field(b"clip.x", STRING, text(b"\xff\xfe")), 1) + bytes(64),
    "a key twice": header(field(b"a", U32, bytes(4)) * 2, 2),
    "an odd alignment": header(field(b"general.alignment", U32, struct.pack("<I", 3)), 1) + bytes(64),
    "no alignment": header(field(b"general.alignment", U32, struct.pack("<I", 0)), 1) + bytes(64),
    "a tensor of no type": header(tensors=tensor(kind=1000), tensor_count=1) + bytes(500),
    "a tensor twice": header(tensors=tensor() * 2, tensor_count=2) + bytes(500),
    "a tensor behind the end": header(tensors=tensor(offset=1 << 40), tensor_count=1) + bytes(500),
    "a tensor around the world": header(tensors=tensor(offset=(1 << 64) - 32), tensor_count=1) + bytes(500),
    "a vast tensor": header(tensors=tensor(dims=(1 << 62, 1 << 62)), tensor_count=1) + bytes(500),
    "a tensor of many axes": header(tensors=tensor()[:11] + struct.pack("<I", 1 << 31), tensor_count=1) + bytes(500),
    "a tensor without axes": header(tensors=tensor(dims=()), tensor_count=1) + bytes(500),
    "rows that are no blocks": header(tensors=tensor(dims=(33, 2), kind=8), tensor_count=1) + bytes(500),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_p21_hostile_headers(tmp_path, hostile):
    (tmp_path / "x.gguf").write_bytes(HOSTILE[hostile])
    with pytest.raises(CheckpointError, match=r"x\.gguf cannot be read as GGUF: ") as caught:
        read_header(tmp_path / "x.gguf")
    assert str(caught.value).isprintable()


def test_these_files_would_be_read_without_their_fault(tmp_path):
    fields = field(b"a", ARRAY, struct.pack("<IQ", U8, 3) + b"abc") + field(b"clip.x", STRING, text(b""))
    (tmp_path / "x.gguf").write_bytes(header(fields, 2, tensor(dims=(32, 2), kind=8), 1) + bytes(500))
    found = read_header(tmp_path / "x.gguf")
    assert found.metadata == {"clip.x": ""}
    assert (found.tensors["v.x"].dtype, found.tensors["v.x"].shape, found.tensors["v.x"].nbytes) == (
        "Q8_0",
        (2, 32),
        68,
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound file that every example may spoil, and its bytes."""
    path = small(tmp_path_factory.mktemp("fuzz") / "x.gguf")
    return path, path.read_bytes()


@settings(max_examples=300, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 2000),
)
def test_p21_any_bytes_changed(sound, edits, cut):
    path, content = sound
    changed = bytearray(content)
    for position, value in edits:
        changed[position % len(changed)] = value
    path.write_bytes(bytes(changed)[:cut])
    with contextlib.suppress(CheckpointError), np.errstate(all="ignore"):
        load_all(sources.open(path))


def test_p25_truncated_while_it_is_in_use(tmp_path):
    header = read_header(small(tmp_path / "x.gguf"))
    tensor = header.tensors["mm.0.weight"]
    with (tmp_path / "x.gguf").open("rb+") as file:
        file.truncate(tensor.offset + 5)
    with (
        reader(header.file) as read,
        pytest.raises(CheckpointError, match=r"mm\.0\.weight cannot be read: the file ends after 5 of its 12 "),
    ):
        read(tensor)


@pytest.mark.parametrize(("array", "kind"), [(np.ones(5), Type.F32), (np.ones(4), Type.F16)])
def test_p25_replaced_while_it_is_in_use(tmp_path, array, kind):
    found = sources.open(small(tmp_path / "x.gguf"))
    entries = [(name, *rest) for name, rest in ARRAYS.items() if name != "v.blk.0.ln1.weight"]
    mmproj_files.write(tmp_path / "x.gguf", [*entries, ("v.blk.0.ln1.weight", array.astype(np.float32), kind)], KEYS)
    with pytest.raises(
        CheckpointError, match=r"x\.gguf has a different header now: the file was replaced while in use"
    ):
        load_all(found)


@pytest.mark.parametrize("name", ["nowhere.gguf", "directory.gguf"])
def test_what_is_no_file(tmp_path, name):
    (tmp_path / "directory.gguf").mkdir()
    with pytest.raises((CheckpointError, SourceError)):
        Encoder.from_pretrained(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot be read as GGUF"):
        read_header(tmp_path / name)


def test_without_the_package_the_error_names_the_extra(tmp_path):
    path = small(tmp_path / "x.gguf")
    code = f"""
        import sys
        sys.modules["gguf"] = None
        import qwenvis
        from qwenvis.errors import CheckpointError
        try:
            qwenvis.Encoder.from_pretrained({str(path)!r})
        except CheckpointError as error:
            print(error)
    """
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"{path} is read with the gguf package, which is not installed: pip install 'qwenvis[gguf]'"
    )


def test_the_package_is_imported_for_a_gguf_file_alone():
    code = """
        import sys, qwenvis
        qwenvis.Encoder.from_pretrained("synthetic:tiny-qwen2-vl")
        sys.exit("gguf" in sys.modules)
    """
    assert run(code).returncode == 0
