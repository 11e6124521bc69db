"""What one converter adds and another leaves out of an mmproj: dummies of the old script, the limits of videos."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from made import mmproj_files
from made.presets import same_bits
from made.resaved import config_of, expected, tensors_of, tokens_of
from qwenvis import CheckpointError, cli
from qwenvis.spec import ModelSpec

DUMMY = "v.position_embd.weight"


def written(path, family, extra=(), **changes):
    config = config_of(family)
    vision = config.get("thinker_config", config)["vision_config"]
    keys = mmproj_files.metadata(family, vision, 96) | changes
    return mmproj_files.write(path, [*mmproj_files.entries(family, tensors_of(family), vision), *extra], keys)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_the_dummy_of_the_old_script_is_not_read(tmp_path, family, capsys):
    source = written(tmp_path / "x.gguf", family, [(DUMMY, np.zeros((10, 10), np.float32), Type.F32)])
    assert same_bits(tokens_of(source), expected(family))
    assert cli.main(["info", str(source)]) == 0
    assert family in capsys.readouterr().out


@pytest.mark.parametrize(("family", "side"), [("qwen2_vl", 12), ("qwen2_5_omni", 10)])
def test_a_grid_of_positions_is_no_dummy(tmp_path, family, side):
    source = written(tmp_path / "x.gguf", family, [(DUMMY, np.zeros((side, side), np.float32), Type.F32)])
    with pytest.raises(CheckpointError, match=r"left over \(1\): v\.position_embd\.weight"):
        tokens_of(source)


@pytest.mark.parametrize(
    ("family", "images", "videos"),
    [
        ("qwen2_vl", (3136, 12845056), (3136, 12845056)),
        ("qwen3_vl", (65536, 16777216), (4096, 25165824)),
        ("qwen3_5", (65536, 16777216), (4096, 25165824)),
        ("glm4v", (12544, 9633792), (12544, 47040000)),
    ],
)
def test_videos_have_the_limits_that_are_published(tmp_path, family, images, videos):
    spec = ModelSpec.open(written(tmp_path / "x.gguf", family))
    assert (spec.processor.min_pixels, spec.processor.max_pixels) == images
    assert (spec.video_processor.min_pixels, spec.video_processor.max_pixels) == videos


def test_old_files_list_the_blocks_without_windows(tmp_path):
    listed = mmproj_files.Typed([1, 3], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32)
    keys = {"clip.vision.n_wa_pattern": None, "clip.vision.fullatt_block_indexes": listed}
    source = written(tmp_path / "x.gguf", "qwen2_5_vl", **keys)
    assert same_bits(tokens_of(source), expected("qwen2_5_vl"))
