"""Importing the package costs nothing until something of it is used."""

import tomllib
from importlib import metadata

import pytest

import qwenvis
from made.presets import ROOT, output

LATE = {"numpy", "PIL", "safetensors", "ml_dtypes"}
NEVER = {"torch", "transformers", "huggingface_hub", "tqdm"}


def loaded_by(code):
    """Seconds that the code takes, and the top modules that it loads."""
    timed = f"import sys, time; start = time.perf_counter(); {code}; print(time.perf_counter() - start, *sys.modules)"
    seconds, *modules = output(timed).split()
    return float(seconds), {name.split(".")[0] for name in modules}


@pytest.mark.parametrize(
    "code", ["import qwenvis", "import qwenvis; qwenvis.ImageError; qwenvis.__version__; dir(qwenvis)"]
)
def test_import_is_light(code):
    """Far below 150 ms; the bound leaves room for a busy machine."""
    seconds, modules = loaded_by(code)
    assert seconds < 1
    assert "qwenvis" in modules
    assert not modules & (LATE | NEVER)


def test_encoder_needs_no_framework():
    _, modules = loaded_by(
        "import numpy; from qwenvis import Encoder; Encoder.from_pretrained('synthetic:tiny-qwen2-vl')"
    )
    assert modules >= LATE
    assert not modules & NEVER


def test_public_names():
    assert set(qwenvis.__all__) <= set(dir(qwenvis))
    for name in qwenvis.__all__:
        value = getattr(qwenvis, name)
        assert name == "__version__" or value.__name__ == name
    errors = [name for name in qwenvis.__all__ if name.endswith("Error")]
    assert all(issubclass(getattr(qwenvis, name), qwenvis.QwenvisError) for name in errors)


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'qwenvis' has no attribute 'Decoder'"):
        _ = qwenvis.Decoder


def test_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        installed = metadata.version("qwenvis")
    except metadata.PackageNotFoundError:
        pytest.skip("not installed: the version is in the metadata of the installation")
    assert qwenvis.__version__ == installed == project["version"]
