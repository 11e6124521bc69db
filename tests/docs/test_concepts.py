"""The page of concepts: its positions and its families are those of transformers."""

import functools
import importlib
import re
import types
import warnings

import pytest

from docs.code_blocks import run_blocks
from house.source_files import ROOT
from qwenvis.models import FAMILIES
from qwenvis.sources.presets import PRESETS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

PAGE = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
GRID, START, AFTER = (1, 6, 8), 2, 2  # the example of the page, between two words and two words
SPACED = ("Qwen2_5_VLModel",)
STEPWISE = ("Qwen3VLModel", "Qwen3VLMoeModel", "Qwen3_5Model", "Qwen3_5MoeModel", "Qwen4ExpModel", "CohereCompassModel")
GLM = ("Glm4vModel", "Glm4vMoeModel", "Glm46VModel", "GlmOcrModel")
MODELS = ("Qwen2VLModel", *SPACED, *STEPWISE, *GLM, "PaddleOCRVLModel")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The names that the code of the page defines."""
    with pytest.MonkeyPatch.context() as patch:
        return run_blocks(PAGE, tmp_path_factory.mktemp("page"), patch)


def transformers_class(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module("transformers"), name)


def rope_index(name, kinds, **inputs):
    """Return transformers' positions (3, places) of a prompt whose places are words (0), images (1) and videos (2)."""
    cls = transformers_class(name)
    vision = types.SimpleNamespace(spatial_merge_size=2, tokens_per_second=4)
    model = types.SimpleNamespace(config=types.SimpleNamespace(vision_config=vision))
    model.get_vision_position_ids = functools.partial(cls.get_vision_position_ids, model)
    kinds = torch.tensor([kinds])
    inputs = {key: torch.tensor(value) for key, value in inputs.items()}
    return cls.get_rope_index(model, torch.zeros_like(kinds), kinds, **inputs)[0][:, 0].numpy()


@pytest.mark.parametrize("name", MODELS)
def test_positions_of_a_picture(name, names):
    ours = names["positions"](START, GRID)
    places = rope_index(name, [0] * START + [1] * 12 + [0] * AFTER, image_grid_thw=[GRID])
    assert (places[:, START:-AFTER] == ours).all()
    assert (places[:, :START] == range(START)).all()
    assert (places[:, -AFTER:] == [6, 7]).all()


@pytest.mark.parametrize(("name", "expected"), [("Qwen2VLModel", [1, 2, 3]), ("Qwen2_5_VLModel", [1, 3, 6])])
def test_times_that_grow_with_the_steps(name, expected):
    """0.7 seconds at 4 tokens each second are 2.8 positions, rounded down."""
    places = rope_index(name, [0] + [2] * 12, video_grid_thw=[[3, 4, 4]], second_per_grid_ts=[0.7])
    assert (places[0, 1::4] == expected).all()


def test_steps_of_one_second_where_the_seconds_are_left_out():
    places = rope_index("Qwen2_5_VLModel", [0] + [2] * 12, video_grid_thw=[[3, 4, 4]])
    assert (places[0, 1::4] == [1, 5, 9]).all()


@pytest.mark.parametrize("name", STEPWISE + GLM)
def test_steps_that_are_pictures_between_texts(name, names):
    places = rope_index(name, [0, 2, 2, 2, 2] * 2, video_grid_thw=[[2, 4, 4]])
    for start in (1, 4):  # a word, a picture that is 2 positions long, a word
        first = 1 + (start > 1) * 5
        assert (places[:, first : first + 4] == names["positions"](start, (1, 4, 4))).all()


@pytest.mark.parametrize("name", ["Qwen3VLProcessor", "CohereCompassProcessor"])
def test_times_before_the_steps(name):
    """Frames at 0, 0.5, 1 and 1.5 seconds are two steps, whose middles are 0.25 and 1.25 seconds."""
    cls, sizes = transformers_class(name), types.SimpleNamespace(merge_size=2, temporal_patch_size=2)
    processor = types.SimpleNamespace(video_processor=sizes, video_token="v", vision_start_token="[")
    processor.vision_end_token = "]"
    processor._calculate_timestamps = functools.partial(cls._calculate_timestamps, processor)
    metadata = types.SimpleNamespace(fps=2, frames_indices=[0, 1, 2, 3])
    video = {"video_grid_thw": torch.tensor([[2, 4, 4]]), "video_metadata": [metadata]}
    assert cls.replace_video_token(processor, video, 0) == "<0.2 seconds>[vvvv]<1.2 seconds>[vvvv]"


@pytest.mark.parametrize("name", ["Glm4vProcessor", "Glm46VProcessor", "Glm5NextProcessor"])
def test_times_after_the_steps(name):
    written = transformers_class(name).replace_frame_token_id(types.SimpleNamespace(image_token="v"), 1.5, 4)
    assert re.fullmatch(r"<\|begin_of_image\|>vvvv<\|end_of_image\|>1(\.5 seconds)?", written)


@pytest.mark.parametrize("name", ["Exaone4_5_Model", "Glm5NextModel"])
def test_families_without_three_positions(name):
    assert not hasattr(transformers_class(name), "get_rope_index")


def test_deepstack_families():
    deep = {PRESETS[p].family for p in PRESETS if PRESETS[p].vision_config.get("deepstack_visual_indexes")}
    assert deep == {"qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe", "cohere_compass"} <= FAMILIES.keys()
