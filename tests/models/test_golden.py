"""The golden tokens that every wheel is tested with: they are those of the formulas, and a wrong one is noticed.

A change of the recipe of synthetic checkpoints, or of the pictures, changes them; to write them anew:

    PYTHONPATH=tests python tests/models/test_golden.py
"""

import importlib.util
import sys

import ml_dtypes  # noqa: F401  teaches NumPy bfloat16
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from house.source_files import ROOT
from made.presets import cache, materialise
from oracle import tolerance
from qwenvis import Encoder, ops
from qwenvis.sources.presets import PRESETS

spec = importlib.util.spec_from_file_location("golden", ROOT / "tools" / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


def truth(name):
    """The tokens by the float64 reference, from the numbers in the checkpoint's files."""
    from oracle import families

    directory, preset = materialise(name, cache()), PRESETS[name]
    weights = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118
                weights[key.removeprefix(preset.prefix)] = file.get_tensor(key).astype(np.float64)
    batch = Encoder.from_pretrained(directory, threads=1).preprocess(golden.pictures())
    config = families.model_class(preset.family).config_class(**preset.vision_config).to_dict()
    return families.tower(preset.family, config, weights, batch.pixel_values, batch.grid_thw).tokens


@pytest.fixture
def in_a_cache(monkeypatch):
    monkeypatch.setenv("QWENVIS_CACHE", str(cache()))


@pytest.mark.parametrize("name", golden.TOWERS)
def test_golden_tokens_are_those_of_the_reference(name):
    tolerance.assert_close(load_file(golden.TOKENS)[name], truth(name), 1e-12)


def test_tolerances_are_those_of_the_tests():
    assert golden.TOLERANCE == {"float32": tolerance.TOWER, "bfloat16": tolerance.ROUNDED}


def test_every_instruction_set_passes(in_a_cache, capfd):
    assert golden.main([]) == 0
    told = capfd.readouterr().out
    assert [line.split()[0] for line in told.splitlines() if "float32" in line] == [
        name for name, present in ops.isas().items() if present
    ]


def test_a_wrong_token_is_noticed(in_a_cache, monkeypatch, tmp_path):
    wrong = load_file(golden.TOKENS)
    wrong[golden.TOWERS[-1]][-1, 0] += 2 * tolerance.TOWER * np.abs(wrong[golden.TOWERS[-1]]).max()
    save_file(wrong, tmp_path / "golden.safetensors")
    monkeypatch.setattr(golden, "TOKENS", tmp_path / "golden.safetensors")
    assert golden.main(["--selected"]) == 1


def test_bits_that_depend_on_the_threads_are_noticed(in_a_cache, monkeypatch):
    right = golden.tokens
    monkeypatch.setattr(golden, "tokens", lambda *how: right(*how) * np.float32(1 + 2e-7 * how[2]))
    assert golden.main(["--selected"]) == 1


def test_a_build_with_the_generic_set_alone_fails(monkeypatch, capsys):
    monkeypatch.setattr(ops, "isas", lambda: {"generic": True})
    assert golden.main([]) == 1
    assert "Nothing was compiled but the generic" in capsys.readouterr().err


if __name__ == "__main__":
    sys.exit(save_file({name: truth(name) for name in golden.TOWERS}, golden.TOKENS))
