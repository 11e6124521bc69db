"""Importing the package costs nothing until something of it is used."""

import sys
import tomllib
from importlib import metadata

import pytest

import qwenvis
from house.source_files import ROOT
from processes.programs import output

LATE = {"numpy", "PIL", "safetensors", "ml_dtypes"}
NEVER = {"torch", "transformers", "huggingface_hub", "tqdm"}


def loaded_by(code):
    """The modules that the code loads."""
    return set(output(f"import sys; {code}; print(*sys.modules)").split())


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        ("import qwenvis", set()),
        ("import qwenvis; dir(qwenvis)", set()),
        ("import qwenvis; qwenvis.ImageError", {"qwenvis.errors"}),
        ("import qwenvis; qwenvis.__version__", {"qwenvis.version"}),
    ],
)
def test_import_loads_nothing_that_is_not_used(code, ours):
    """Of this package one file for each name that is used, and of other packages none."""
    loaded = loaded_by(code) - loaded_by("pass")
    assert {name for name in loaded if name.split(".")[0] == "qwenvis"} == {"qwenvis", *ours}
    assert {name.split(".")[0] for name in loaded} <= {"qwenvis"} | sys.stdlib_module_names


def test_encoder_needs_no_framework():
    code = "import numpy; from qwenvis import Encoder; Encoder.from_pretrained('synthetic:tiny-qwen2-vl')"
    modules = {name.split(".")[0] for name in loaded_by(code)}
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
