"""mmproj files of llama.cpp: the bits of the tower that they were made of, whatever their metadata says."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from made import mmproj_files
from made.checkpoints import open_directory
from made.presets import PRESETS, encoder, picture, same_bits
from made.presets import checkpoint as preset_of
from made.resaved import config_of, expected, tensors_of, tokens_of, vision_config_of
from qwenvis import Encoder, sources
from qwenvis.cli import main
from qwenvis.errors import CheckpointError, ConfigError
from qwenvis.models import FAMILIES
from qwenvis.spec import ModelSpec

every_family = pytest.mark.parametrize("family", mmproj_files.KINDS)
DUMMY = "v.position_embd.weight"


def write(path, family="qwen2_vl", **changes):
    return mmproj_files.write_tower(
        path / "mmproj.gguf", family, tensors_of(family), vision_config_of(family), **changes
    )


@every_family
def test_f32_gives_the_same_bits(tmp_path, family):
    path = write(tmp_path, family)
    assert same_bits(tokens_of(path), expected(family))


@every_family
def test_tensors_are_those_of_the_hub(tmp_path, family):
    found = sources.open(write(tmp_path, family))
    assert found.shapes == open_directory(preset_of(family)).shapes
    assert found.model_type == family
    assert found.files == [found.path] == [tmp_path / "mmproj.gguf"]
    assert sum(tensor.nbytes for tensor in found.tensors.values()) == 4 * sum(
        a.size for a in tensors_of(family).values()
    )


@every_family
def test_config_is_that_of_the_hub(tmp_path, family):
    assert ModelSpec.open(write(tmp_path, family)).config == encoder(family).config


LIES = {
    "clip.vision.feed_forward_length": 0,
    "clip.vision.embedding_length": 7,
    "clip.vision.attention.layer_norm_epsilon": 0.5,
    "clip.vision.projection_dim": 3,
    "clip.vision.image_size": 1,
    "clip.vision.patch_size": 99,
    "clip.use_gelu": True,
    "clip.use_silu": True,
}


@every_family
@pytest.mark.parametrize("key", LIES)
def test_wrong_metadata_is_not_believed(tmp_path, family, key):
    if key in FAMILIES[family].mmproj.epsilons.values():
        pytest.skip("of this family, the key is the tower's own")
    assert same_bits(tokens_of(write(tmp_path, family, **{key: LIES[key]})), expected(family))


@every_family
def test_old_files_call_down_what_is_up(tmp_path, family):
    names = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}

    def swapped(name):
        stem = next((stem for stem in names if stem in name), None)
        return name.replace(stem, names[stem]) if stem else name

    vision_config = vision_config_of(family)
    entries = mmproj_files.entries(family, tensors_of(family), vision_config)
    keys = mmproj_files.metadata(family, vision_config, 96)
    path = mmproj_files.write(tmp_path / "old.gguf", [(swapped(name), *rest) for name, *rest in entries], keys)
    assert same_bits(tokens_of(path), expected(family))


@pytest.mark.skipif("qwen2_5_vl" not in PRESETS, reason="no such family")
def test_old_files_list_the_blocks_of_full_attention(tmp_path):
    keys = {"clip.vision.n_wa_pattern": None, "clip.vision.fullatt_block_indexes": [1, 3]}
    assert same_bits(tokens_of(write(tmp_path, "qwen2_5_vl", **keys)), expected("qwen2_5_vl"))


@pytest.mark.parametrize(("pattern", "blocks"), [(1, (0, 1, 2, 3)), (3, (2,)), (0, (0, 1, 2, 3)), (9, ())])
def test_pattern_of_full_attention(tmp_path, pattern, blocks):
    spec = ModelSpec.open(write(tmp_path, "qwen2_5_vl", **{"clip.vision.n_wa_pattern": pattern}))
    assert spec.config.fullatt_block_indexes == blocks


def test_images(tmp_path):
    """The limits of the published checkpoints, the mean and std of the file."""
    found = Encoder.from_pretrained(write(tmp_path, "qwen2_vl"), threads=1)
    image = picture(61, 97)
    assert same_bits(found.encode(image).embeddings, encoder("qwen2_vl").encode(image).embeddings)
    processor = found.spec.processor
    assert (processor.min_pixels, processor.max_pixels) == (3136, 12845056)
    assert (processor.lut == encoder("qwen2_vl").spec.processor.lut).all()
    keys = {
        "clip.vision.image_min_pixels": 4096,
        "clip.vision.image_max_pixels": 8192,
        "clip.vision.image_std": [0.5] * 3,
    }
    processor = ModelSpec.open(write(tmp_path, "qwen2_vl", **keys)).processor
    assert (processor.min_pixels, processor.max_pixels, processor.normalisation.std) == (4096, 8192, (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("qwen2_vl", "clip.vision.attention.head_count"),
        ("qwen2_vl", "clip.vision.block_count"),
        ("qwen2_5_vl", "clip.vision.n_wa_pattern"),
    ],
)
def test_what_no_tensor_tells_must_be_there(tmp_path, family, key):
    with pytest.raises(ConfigError, match=rf"mmproj\.gguf lacks {key} in its metadata"):
        ModelSpec.open(write(tmp_path, family, **{key: None}))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("qwen2_vl", {"clip.vision.block_count": 5}, r"depth = 5, blocks 0 to 4, but the checkpoint has no blocks.4"),
        ("qwen2_vl", {"clip.vision.attention.head_count": 5}, r"num_heads = 5 give no head_dim"),
        ("qwen2_vl", {"clip.vision.attention.head_count": "four"}, r"head_count = 'four'; expected an integer"),
        ("qwen2_5_vl", {"clip.vision.n_wa_pattern": "all"}, r"n_wa_pattern = 'all'; expected an integer"),
        (
            "qwen2_vl",
            {"clip.projector_type": "gemma3"},
            r"projector type gemma3 is not supported .*qwen2vl_merger, qwen2\.5vl",
        ),
        ("qwen2_vl", {"clip.projector_type": None}, r"projector type None is not supported"),
        ("qwen2_vl", {"clip.projector_type": "\x1b[31m"}, r"projector type '\\x1b\[31m' is not supported"),
        ("qwen2_vl", {"clip.has_vision_encoder": False}, r"holds no vision tower"),
    ],
    ids=str,
)
def test_metadata_that_cannot_be(tmp_path, family, changes, message):
    with pytest.raises(CheckpointError, match=message):
        ModelSpec.open(write(tmp_path, family, **changes))


def test_projector_of_one_of_two_encoders(tmp_path):
    """Of an omni model: the audio encoder and its projector are no matter."""
    entries = mmproj_files.entries("qwen2_vl", tensors_of("qwen2_vl"), vision_config_of("qwen2_vl"))
    audio = [(name, np.ones((4, 256), np.float32), Type.F32) for name in ("a.blk.0.ln1.weight", "mm.a.mlp.1.weight")]
    keys = mmproj_files.metadata("qwen2_vl", vision_config_of("qwen2_vl"), 96)
    keys |= {"clip.projector_type": "qwen2a", "clip.vision.projector_type": "qwen2vl_merger"}
    assert same_bits(tokens_of(mmproj_files.write(tmp_path / "x.gguf", entries + audio, keys)), expected("qwen2_vl"))


def test_a_language_model_is_no_mmproj(tmp_path):
    path = mmproj_files.write(tmp_path / "llm.gguf", [("v.x", np.ones(4, np.float32), Type.F32)], {}, "qwen2vl")
    with pytest.raises(CheckpointError, match="is the model of the architecture qwen2vl; expected an mmproj"):
        ModelSpec.open(path)


def test_types_are_those_of_the_families():
    """A family may share its statement with others of the same tensors; a file is taken for the first."""
    stated = dict.fromkeys((f.mmproj.projector_type, f.mmproj.signature) for f in FAMILIES.values() if f.mmproj)
    assert [kind for kind, _ in stated] == list(mmproj_files.KINDS.values())


@every_family
def test_tables_agree_with_the_map_of_llama_cpp(family):
    """Every name of a table is the one that the converter gives, but those that it makes up itself."""
    for ours, theirs in FAMILIES[family].mmproj.names.items():
        name = ours.format(3, rank=0)
        if name in mmproj_files.MERGERS:
            assert theirs == (mmproj_files.MERGERS[name],)
        elif name.startswith("deepstack_merger_list."):
            assert theirs == (f"v.deepstack.{{}}.{mmproj_files.DEEPSTACK[name.split('.')[2]]}",)
        else:
            parts = [name.replace("qkv", letter) for letter in "qkv"] if len(theirs) == 3 else [name]
            assert [stem.format(3) for stem in theirs] == [mmproj_files.mapped(part) for part in parts]


def test_info_tells_of_the_file(tmp_path, capsys):
    path = write(tmp_path, kind=Type.Q8_0)
    assert main(["info", str(path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["family", "qwen2_vl"] in lines
    disk = next(line for line in lines if line[:2] == ["on", "disk"])
    assert disk[-6:] == ["of", "F32", "and", "Q8_0", "in", str(path)]


def written(path, family, extra=(), **changes):
    config = config_of(family)
    vision = config.get("thinker_config", config)["vision_config"]
    keys = mmproj_files.metadata(family, vision, 96) | changes
    return mmproj_files.write(path, [*mmproj_files.entries(family, tensors_of(family), vision), *extra], keys)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_the_dummy_of_the_old_script_is_not_read(tmp_path, family, capsys):
    source = written(tmp_path / "x.gguf", family, [(DUMMY, np.zeros((10, 10), np.float32), Type.F32)])
    assert same_bits(tokens_of(source), expected(family))
    assert main(["info", str(source)]) == 0
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
