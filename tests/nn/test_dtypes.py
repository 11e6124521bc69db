"""What `dtype` may be called, and what is said of others; sources that name nothing."""

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from made.presets import cache, checkpoint, encoder
from processes.programs import run
from qwenvis import Encoder, InputError, SourceError, cli, ops
from qwenvis.nn.formats import AUTO, DTYPES, automatic, format_named

MEANT = {
    "f32": [
        "float32",
        "f32",
        "fp32",
        "float",
        "FP32",
        "F32",
        "torch.float32",
        np.dtype("f4"),
        np.float32,
        torch.float,
    ],
    "bf16": ["bf16", "BF16", "bfloat16", "torch.bfloat16", torch.bfloat16, ml_dtypes.bfloat16],
    "i8": ["int8", "i8", np.int8, torch.int8],
    "auto": ["auto", "Auto"],
}
EXPECTED = f"expected {', '.join([AUTO, *DTYPES])}"


@pytest.mark.parametrize(
    ("format", "spelling"), [(name, one) for name, each in MEANT.items() for one in each], ids=repr
)
def test_what_is_meant(format, spelling):
    assert format_named(spelling) == format


def test_every_format_is_named_by_its_dtype_and_by_itself():
    assert list(DTYPES.values()) == list(ops.formats())
    for dtype, format in DTYPES.items():
        assert format_named(dtype) == format_named(format) == format


@pytest.mark.parametrize(
    ("stored", "format"),
    [({"F32"}, "f32"), ({"BF16"}, "bf16"), ({"F16"}, "f32"), ({"BF16", "F32"}, "f32"), ({"Q8_0", "F32"}, "f32")],
    ids=str,
)
def test_auto_takes_what_holds_the_checkpoint_and_is_multiplied(isa, stored, format):
    assert automatic(stored) == ("f32" if ops.formats()[format].expanded else format)


def test_a_type_of_ml_dtypes_as_numpy_has_it():
    assert format_named(np.dtype(ml_dtypes.bfloat16)) == "bf16"


@pytest.mark.parametrize("half", ["float16", "half", "fp16", "F16", np.float16, np.dtype("f2"), torch.half], ids=repr)
def test_half_is_refused_with_the_reason(half):
    with pytest.raises(InputError, match=r"65,504, its largest: pass bfloat16, .*or float32\); expected auto, float32"):
        format_named(half)


@pytest.mark.parametrize("other", ["int4", np.uint8, torch.uint8, "double", float, np.float64, torch.float64], ids=repr)
def test_what_is_no_format_is_refused_in_words(other):
    with pytest.raises(InputError, match=rf"dtype is .* \(.*\); {EXPECTED}$"):
        format_named(other)


@pytest.mark.parametrize(
    "nothing", [None, 3, "", "x" * 10**6, b"float32", ["float32"], np.float32(1), Path("float32"), object(), "\x1b[31m"]
)
def test_what_is_no_type_is_refused_shortly(nothing):
    with pytest.raises(InputError, match=rf"{EXPECTED}$") as caught:
        format_named(nothing)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_an_encoder_and_a_command_take_every_spelling(capsys):
    assert encoder(dtype=torch.bfloat16).format == encoder(dtype="bf16").format == "bf16"
    assert cli.main(["info", str(checkpoint()), "--dtype", "fp32"]) == 0
    assert "f32" in capsys.readouterr().out
    assert cli.main(["info", str(checkpoint()), "--dtype", "half"]) == 1
    assert "65,504" in capsys.readouterr().err


def test_torch_is_not_imported_for_its_name():
    assert (
        run(
            "import sys, qwenvis.nn.formats as f; f.format_named('torch.bfloat16'); sys.exit('torch' in sys.modules)"
        ).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("source", "suggested"),
    [
        ("qwen2-vl-2b", "synthetic:qwen2-vl-2b"),
        ("Qwen2.5-VL-7B", "synthetic:qwen2.5-vl-7b"),
        ("synthetic:qwen3vl-8b", "qwen3-vl-8b"),
        ("synthetic:", "tiny-qwen2-vl"),
        ("z" * 10**6, "synthetic:tiny-qwen2-vl"),
    ],
    ids=["a preset", "a name", "a misspelt one", "none", "a long text"],
)
def test_the_nearest_names_are_suggested(source, suggested):
    with pytest.raises(SourceError) as caught:
        Encoder.from_pretrained(source, cache_dir=cache())
    assert suggested in str(caught.value)
    assert len(str(caught.value)) < 1000


class Bytes(os.PathLike):
    """A path of bytes."""

    def __fspath__(self):
        return b"synthetic:tiny-qwen2-vl"


@pytest.mark.parametrize("source", [None, b"x", 3, 3.5, ["x"], "", Bytes(), object()], ids=repr)
def test_sources_that_are_no_text(source):
    with pytest.raises(InputError, match=r"^source is (empty|a \w+); expected a directory, a \.gguf file, a Hub id or"):
        Encoder.from_pretrained(source)


@pytest.mark.parametrize(
    "source", ["~user", "~", "a\0b", "\ud800", "a\nb", "x/" * 5000, "a/b/c.gguf", "C:\\x", "-", "."]
)
def test_sources_that_name_nothing(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(SourceError) as caught:
        Encoder.from_pretrained(source)
    assert len(str(caught.value)) < 1500
    assert str(caught.value).replace("\n", " ").isprintable()


def test_a_url_is_refused_with_the_reason():
    with pytest.raises(SourceError, match=r"is a URL, and URLs are not downloaded; a Hub id is ORG/NAME"):
        Encoder.from_pretrained("https://huggingface.co/Qwen/Qwen2-VL-2B-Instruct")


@pytest.mark.parametrize(
    "option", [{"cache_dir": 3}, {"cache_dir": "a\0b"}, {"revision": 3}, {"revision": "x" * 10**6}]
)
@pytest.mark.parametrize("source", ["Qwen/Qwen2-VL-2B", "synthetic:tiny-qwen2-vl"])
def test_options_that_cannot_be(source, option):
    if source.startswith("synthetic:") and "revision" in option:
        pytest.skip("a preset has no revisions")
    with pytest.raises((InputError, SourceError), match=r"cache_dir is .*path|is not a revision of") as caught:
        Encoder.from_pretrained(source, **option)
    assert len(str(caught.value)) < 500
