"""The tower of a checkpoint as transformers computes it, against the module that the checkpoint was made from."""

import numpy as np
import pytest
import torch

from made import mmproj_files
from made.checkpoints import open_directory
from made.presets import checkpoint
from made.resaved import tensors_of
from oracle import transformers_towers
from oracle.families import FAMILIES
from oracle.tolerance import TOWER, relative_error
from qwenvis import ConfigError, ModelSpec, PackageError
from qwenvis.adapters.transformers.reference import Reference, tower_class

GRIDS = ((3, 10, 14), (1, 4, 18))


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_is_the_tower_of_transformers(family):
    model, config, _ = transformers_towers.make(family)
    reference = Reference(ModelSpec.open(transformers_towers.kept(family, model)), 1)
    pixel_values, grid_thw = transformers_towers.inputs(config, GRIDS)
    want = transformers_towers.run(model, pixel_values, grid_thw)
    got = reference(pixel_values, grid_thw)
    assert len(got) == 1 + len(want.deepstack)
    for pair in zip(got, [want.tokens, *want.deepstack], strict=True):
        assert relative_error(*pair) <= TOWER


def test_weights_of_bfloat16_become_float32():
    spec = ModelSpec.open(checkpoint("qwen2_vl"), dtype="bfloat16")
    tokens, *_ = Reference(spec, 1)(np.ones((4, 1176), np.float32), np.array([[1, 2, 2]]))
    assert tokens.dtype == np.float32


def test_threads_of_torch_are_as_before():
    before = torch.get_num_threads()
    reference = Reference(ModelSpec.open(checkpoint("qwen2_vl")), before + 1)
    reference(np.ones((4, 1176), np.float32), np.array([[1, 2, 2]]))
    assert torch.get_num_threads() == before


def test_a_config_that_does_not_state_the_sizes(tmp_path):
    """An mmproj file has no vision_config; the sizes of its tower follow from the tensors."""
    vision_config = open_directory(checkpoint()).vision_config
    path = mmproj_files.write_tower(tmp_path / "mmproj.gguf", "qwen2_vl", tensors_of("qwen2_vl"), vision_config)
    with pytest.raises(ConfigError, match=r"patch_embed\.proj\.weight is not .*pass the checkpoint that the file"):
        Reference(ModelSpec.open(path), 1)


def test_a_family_that_transformers_lacks():
    with pytest.raises(PackageError, match=r"has no qwen9_vl: pip install --upgrade transformers"):
        tower_class("qwen9_vl")
