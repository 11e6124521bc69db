"""Where processors' configs are and what they are called, in published checkpoints: as transformers, or refused."""

import json
import shutil
import warnings

import pytest

from made.checkpoints import open_directory, tower, write_json, write_single
from made.presets import checkpoint as preset_of
from made.resaved import config_of, tensors_of
from qwenvis import Encoder
from qwenvis.checkpoints.configs import preprocessors
from qwenvis.errors import CheckpointError, ConfigError
from qwenvis.processors.image import TYPES, processor_class
from qwenvis.processors.video_families import TYPES as VIDEO_TYPES
from qwenvis.processors.video_families import video_processor_class
from qwenvis.spec import ModelSpec

FLAT, VIDEO, WHOLE = "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"
NAMED = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14}
# The files of a checkpoint, each with limits of its own -> those that images have, and that videos have.
PLACES = {
    "flat": ({FLAT: 4000}, 4000, 4000),
    "flat and video": ({FLAT: 4000, VIDEO: 5000}, 4000, 5000),
    "a part before the flat file": ({FLAT: 4000, WHOLE: {"image_processor": 6000}}, 6000, 4000),
    "both parts": ({FLAT: 4000, VIDEO: 5000, WHOLE: {"image_processor": 6000, "video_processor": 7000}}, 6000, 7000),
    "a video part alone": ({FLAT: 4000, WHOLE: {"video_processor": 7000}}, 4000, 7000),
    "an image part alone": ({WHOLE: {"image_processor": 6000}}, 6000, None),
    "a video part and nothing": ({WHOLE: {"video_processor": 7000}}, None, 7000),
    "a video file and nothing": ({VIDEO: 5000}, None, 5000),
    "parts that are null": ({FLAT: 4000, WHOLE: {"image_processor": None, "video_processor": None}}, 4000, 4000),
    "a part that is empty": ({FLAT: 4000, WHOLE: {"image_processor": {}}}, None, 4000),
    "another processor": ({FLAT: 4000, WHOLE: {"processor_class": "Qwen2VLProcessor"}}, 4000, 4000),
}


def limited(limit):
    return limit if not isinstance(limit, int) else NAMED | {"size": {"shortest_edge": 3136, "longest_edge": limit}}


def put(directory, files):
    for name, content in files.items():
        parts = {key: limited(part) for key, part in content.items()} if isinstance(content, dict) else limited(content)
        write_json(directory, name, parts)


@pytest.mark.parametrize("place", PLACES)
def test_where_limits_are_read(tmp_path, place):
    files, images, videos = PLACES[place]
    put(tmp_path, files)
    found = [part.get("size", {}).get("longest_edge") for part in preprocessors(tmp_path)]
    assert found == [images, videos]


@pytest.mark.parametrize("place", [place for place, (_, images, _) in PLACES.items() if images])
def test_where_transformers_reads_those_of_images(tmp_path, place):
    transformers = pytest.importorskip("transformers")
    files, images, _ = PLACES[place]
    put(tmp_path, files)
    write_json(tmp_path, "config.json", {"model_type": "qwen2_vl"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert theirs.size["longest_edge"] == images


@pytest.fixture
def bare(tmp_path):
    """A tiny Qwen2-VL without a preprocessor config, to write some into."""
    write_single(
        tmp_path, {name: array for name, array in tensors_of("qwen2_vl").items()}, config=config_of("qwen2_vl")
    )
    return tmp_path


def test_videos_do_not_take_the_image_part(bare):
    put(bare, {WHOLE: {"image_processor": 6000}})
    spec = ModelSpec.open(bare)
    assert spec.processor.max_pixels == 6000
    with pytest.raises(ConfigError, match=r"no video_preprocessor_config\.json .* the sizes of videos are unknown"):
        spec.video_processor  # noqa: B018


def test_packing_keeps_what_is_missing(bare, tmp_path):
    put(bare, {WHOLE: {"image_processor": 6000}})
    Encoder.from_pretrained(bare, threads=1).save_packed(tmp_path / "packed")
    again = ModelSpec.open(tmp_path / "packed")
    assert again.processor.max_pixels == 6000
    assert again.checkpoint.video_preprocessor == {}


@pytest.mark.parametrize("spelling", ["", "Fast", "Pil"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Qwen3VLImageProcessor", "Qwen2VLImageProcessor"),
        ("Qwen3VLMoeImageProcessor", "Qwen2VLImageProcessor"),
        ("Qwen2_5_VLImageProcessor", "Qwen2VLImageProcessor"),
        ("Qwen2_5OmniImageProcessor", "Qwen2VLImageProcessor"),
        ("Qwen3_5ImageProcessor", "Qwen2VLImageProcessor"),
        ("Glm4vMoeImageProcessor", "Glm4vImageProcessor"),
        ("GlmOcrImageProcessor", "Glm46VImageProcessor"),
    ],
)
def test_names_that_other_libraries_write(name, kind, spelling):
    assert processor_class("paddleocr_vl", {"image_processor_type": name + spelling}) is TYPES[kind]


@pytest.mark.parametrize("name", ["Qwen3VLVideoProcessor", "Qwen3VLVideoProcessorFast", "Qwen3VLMoeVideoProcessor"])
def test_names_of_video_processors_that_other_libraries_write(name):
    assert video_processor_class("qwen2_vl", {"video_processor_type": name}) is VIDEO_TYPES["Qwen3VLVideoProcessor"]


@pytest.mark.parametrize("name", ["VLImageProcessor", "ImageProcessor", "qwen3_vl", "Qwen3VL", "Qwen4VLImageProcessor"])
def test_names_that_are_nobodys(name):
    with pytest.raises(ConfigError, match=r"image_processor_type = .*; expected Qwen2VLImageProcessor or"):
        processor_class("qwen3_vl", {"image_processor_type": name})


@pytest.mark.parametrize(
    ("family", "images", "videos"),
    [
        ("qwen3_vl", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"),
        ("qwen3_vl", "Qwen2VLImageProcessorFast", "Qwen3VLVideoProcessor"),
        ("glm4v_moe", "Glm4vImageProcessor", "Glm4vVideoProcessor"),
        ("glm_ocr", "Glm46VImageProcessor", "Glm46VVideoProcessor"),
        ("qwen2_5_vl", "Glm4vImageProcessor", "Glm4vVideoProcessor"),
    ],
)
def test_the_image_processor_names_that_of_videos(family, images, videos):
    """As transformers' AutoVideoProcessor does where nothing else names one."""
    assert video_processor_class(family, {"image_processor_type": images}) is VIDEO_TYPES[videos]


@pytest.mark.parametrize("family", ["glm4v_moe", "glm_ocr", "paddleocr_vl"])
def test_families_without_videos(family):
    with pytest.raises(ConfigError, match=f"{family} has no videos: transformers has no video processor for it"):
        video_processor_class(family, {"image_processor_type": "Glm46VImageProcessorFast"})


@pytest.mark.parametrize("family", ["qwen3_vl_moe", "glm4v_moe", "glm_ocr"])
def test_families_whose_image_processor_must_be_named(family):
    with pytest.raises(
        ConfigError, match=f"image_processor_type = None; expected a name: .* no image processor for {family}"
    ):
        processor_class(family, {"patch_size": 14})


@pytest.mark.parametrize(
    ("changes", "fps", "most"), [({}, 2, 0), ({"fps": None}, None, 0), ({"max_frames": None}, 2, None)]
)
@pytest.mark.parametrize(("kind", "frames"), [("Qwen3VL", 768), ("Glm5Next", 2048)])
def test_null_takes_a_default_of_the_class_away(changes, fps, most, kind, frames):
    """As in transformers, where a video processor's null replaces the default of its class."""
    sizes = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    kind = VIDEO_TYPES[f"{kind}VideoProcessor"]
    found = kind.from_config(changes, **sizes)
    assert (found.wanted.fps, found.wanted.max_frames) == (fps, frames if most == 0 else None)
    assert found.samples
    assert not kind.from_config({"do_sample_frames": None}, **sizes).samples


NEEDED = ["do_resize", "do_rescale", "do_normalize", "resample", "rescale_factor", "image_mean", "image_std"]
NEEDED += ["patch_size", "merge_size", "temporal_patch_size"]


@pytest.mark.parametrize("field", NEEDED)
def test_null_of_what_transformers_needs(bare, field):
    """Of do_rescale and do_normalize it makes false in transformers; of the others an error."""
    for name, part in ((FLAT, "processor"), (VIDEO, "video_processor")):
        write_json(bare, FLAT, NAMED | {"min_pixels": 3136})
        write_json(bare, name, NAMED | {"min_pixels": 3136, field: None})
        with pytest.raises(ConfigError, match=f"{name} says {field} = None; expected a value"):
            getattr(ModelSpec.open(bare), part)


def test_the_word_bicubic(bare):
    """Read by the torchvision classes of transformers, and taken for bilinear by its Pillow classes."""
    write_json(bare, FLAT, NAMED | {"min_pixels": 3136, "resample": "bicubic"})
    with pytest.raises(ConfigError, match="says resample = 'bicubic'; expected 3: transformers' Pillow classes"):
        ModelSpec.open(bare)
    assert ModelSpec.open(bare, backend="torchvision").processor.backend == "torchvision"
    write_json(bare, VIDEO, NAMED | {"min_pixels": 3136, "resample": "bicubic"})
    write_json(bare, FLAT, NAMED | {"min_pixels": 3136})
    assert ModelSpec.open(bare).video_processor.min_pixels == 3136


@pytest.mark.parametrize(
    ("kind", "field"), [("Glm4v", "size"), ("Glm46V", "size"), ("Glm5Next", "min_image_tokens"), ("Qwen3VL", "size")]
)
def test_null_of_limits(kind, field):
    sizes = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    with pytest.raises(ConfigError, match=f"says {field} = None; expected limits"):
        VIDEO_TYPES[f"{kind}VideoProcessor"].from_config({field: None}, **sizes)
    if kind != "Qwen3VL":
        with pytest.raises(ConfigError, match=f"says {field} = None; expected limits"):
            TYPES[f"{kind}ImageProcessor"].from_config({field: None}, **sizes)


def test_nulls_are_packed_too(tmp_path):
    source = shutil.copytree(preset_of("qwen3_vl"), tmp_path / "source")
    config = json.loads((source / FLAT).read_text())
    write_json(source, VIDEO, config | {"fps": None, "min_frames": None})
    Encoder.from_pretrained(source, threads=1).save_packed(tmp_path / "packed")
    found = ModelSpec.open(tmp_path / "packed", dtype="auto").video_processor
    assert found == ModelSpec.open(source).video_processor
    assert (found.wanted.fps, found.wanted.min_frames, found.wanted.max_frames) == (None, None, 768)


def test_a_stale_index_is_named(tmp_path):
    write_single(tmp_path, tower())
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    index = {"weight_map": {f"visual.{name}": "model-00001-of-00002.safetensors" for name in tower()}}
    write_json(tmp_path, "model.safetensors.index.json", index)
    said = r"lacks model-00001-of-00002\.safetensors, .*; if model-00001-of-00001\.safetensors holds the whole model, "
    with pytest.raises(
        CheckpointError, match=said + r"model\.safetensors\.index\.json is not its own: remove that, and"
    ):
        open_directory(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "model-00001-of-00001.safetensors").rename(tmp_path / "model.safetensors")
    assert len(open_directory(tmp_path).tensors) == 4


def test_a_shard_that_is_merely_missing_is_no_stale_index(tmp_path):
    write_single(tmp_path, tower())
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {f"visual.{name}": "model-00001-of-00002.safetensors" for name in tower()}}
    write_json(tmp_path, "model.safetensors.index.json", index)
    with pytest.raises(CheckpointError, match=r"lacks model-00001-of-00002\.safetensors, which holds .*\.bias$"):
        open_directory(tmp_path)


def test_fields_that_must_not_be_taken_for_others(bare):
    """What Python takes for true, or for the same number, is none of a config's."""
    wrong = [("do_resize", "no"), ("do_resize", 1), ("patch_size", 14.0), ("merge_size", "2"), ("resample", 3.0)]
    for field, value in wrong:
        write_json(bare, FLAT, NAMED | {"min_pixels": 3136, field: value})
        with pytest.raises(ConfigError, match=rf"preprocessor_config\.json says {field} = "):
            ModelSpec.open(bare)


def test_errors_name_file_and_field(bare):
    config = json.loads((preset_of("qwen2_vl") / "config.json").read_text())
    config["vision_config"]["depth"] = True
    write_json(bare, "config.json", config)
    with pytest.raises(ConfigError, match=rf"{bare}/config\.json: vision_config says depth = True; expected"):
        ModelSpec.open(bare)
