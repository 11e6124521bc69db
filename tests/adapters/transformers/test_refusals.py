"""What `inputs` and `outputs` refuse, in words, before a model sees it."""

import copy
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
import transformers

from adapters.transformers.pixel_path import SCENARIOS, encoded, encoder, videos
from oracle.transformers_models import full_model
from qwenvis import ConfigError, InputError
from qwenvis.adapters.transformers import inputs, outputs
from qwenvis.adapters.transformers.receiver import FIRST

OUT = encoded("qwen2_vl", SCENARIOS["images of different sizes"])
FULL = full_model("qwen2_vl")


def refused(message, text=FULL.image * 3, out=OUT, processor=FULL.processor, model=FULL.model, error=InputError):
    with pytest.raises(error, match=message):
        inputs(text, out, processor, model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nothing",
            "has 0 placeholders .*image_pad.* of images, and out has 3: image 0, image 1, image 2; expected one",
        ),
        (FULL.image * 2, "has 2 placeholders"),
        ([FULL.image * 3, FULL.image], "has 4 placeholders"),
        (FULL.image * 3 + FULL.video, "has 1 placeholders .*video_pad.* of videos, and out has none"),
        ([], r"text is \[\]; expected a str or a list of them"),
        ([FULL.image, 3], "expected a str or a list of them"),
        (None, "text is None"),
        (FULL.image * 3 + "<|AUDIO|>", None),
    ],
)
def test_texts(text, message):
    if message is None:  # to this processor, only text
        assert inputs(text, OUT, FULL.processor, FULL.model)["input_ids"].shape[0] == 1
    else:
        refused(message, text=text)


def test_texts_without_items():
    for out in (None, OUT[:0]):
        refused("has 1 placeholders .* and out has none", text=FULL.image, out=out)


def test_audio_goes_to_the_processor():
    omni = full_model("qwen2_5_omni")
    refused("does not take the text: .*audio", text="<|AUDIO|>", out=None, processor=omni.processor, model=omni.model)


def broken(**changes):
    return replace(OUT, **changes)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (broken(provenance={"family": "qwen2_5_vl"}), "of the family 'qwen2_5_vl'; the model takes those of qwen2_vl"),
        (broken(merge_size=1, embeddings=np.zeros((96, 96), np.float32)), "1 x 1 patches; the model takes those of 2"),
        (broken(deepstack=[OUT.embeddings]), "1 levels of deepstack; the model adds 0"),
        (broken(embeddings=OUT.embeddings[:, :48]), "48 wide; expected 96"),
        (broken(embeddings=OUT.embeddings[1:]), "tokens do not fit the grid"),
        (broken(embeddings=np.full_like(OUT.embeddings, np.nan)), r"token 0, of item 0 \(image 0\), has the value nan"),
        (OUT.embeddings, "out is a ndarray; expected the Embeddings"),
    ],
)
def test_results(out, message):
    refused(message, out=out)
    with pytest.raises(InputError, match=message):
        outputs(out, FULL.model)


def test_values_outside_the_range_of_the_model():
    """A float32 token that float16 would turn into infinity, and the logits into NaN."""
    out = broken(embeddings=OUT.embeddings.copy())
    out.embeddings[-1, 5] = 65520
    model = copy.deepcopy(FULL.model).half()
    for give in (lambda: inputs(FULL.image * 3, out, FULL.processor, model), lambda: outputs(out, model)):
        with pytest.raises(InputError, match=r"of item 2 \(image 2\), .* which is outside the range of float16"):
            give()


def test_float64_models():
    model = copy.deepcopy(FULL.model).double()
    rows = torch.cat(inputs(FULL.image * 3, OUT, FULL.processor, model)["mm_encoder_outputs"]["image"].pooler_output)
    assert torch.equal(rows, torch.from_numpy(OUT.embeddings).double())


def test_results_of_unknown_origin_are_taken():
    assert isinstance(outputs(broken(provenance={}), FULL.model)["image"].pooler_output, list)


def test_videos_without_times():
    clip = encoder("qwen2_vl").preprocess(videos=videos(1), video_fps=2.0)
    out = encoder("qwen2_vl")(clip.pixel_values, clip.grid_thw)
    refused("'item 0' has 3 temporal steps and no times; encode videos with videos=", text=FULL.video, out=out)
    assert list(outputs(out, FULL.model)) == ["video"]


def test_still_among_the_videos_is_an_image():
    out = encoder("qwen2_vl").encode(videos=[*videos(1), videos(1)[0][0]], video_fps=2.0)
    found = inputs(FULL.video + FULL.image, out, FULL.processor, FULL.model)
    assert found["image_grid_thw"].tolist() == [out.grid_thw[1].tolist()]
    assert found["video_grid_thw"].tolist() == [out.grid_thw[0].tolist()]


@pytest.mark.parametrize("processor", [None, FULL.processor.image_processor, "Qwen/Qwen2-VL-2B-Instruct"])
def test_processors(processor):
    refused("processor is a .*; expected the processor of the model, or its tokenizer", processor=processor)


def test_processor_of_another_model():
    model = copy.copy(FULL.model)
    model.config = copy.deepcopy(FULL.model.config)
    model.config.image_token_id = 5
    placeholders = sum(OUT.counts)
    refused(rf"wrote \[0\] placeholders into the prompts, which have \[{placeholders}\] tokens: is this", model=model)


def test_placeholders_that_the_processor_does_not_have():
    paddle = full_model("paddleocr_vl")
    out = replace(encoded("qwen2_vl", SCENARIOS["a video"]), provenance={})
    refused(
        "no placeholder for videos, and out has 1: video 0",
        text="",
        out=out,
        processor=paddle.processor,
        model=paddle.model,
    )


def test_models():
    refused("model is a Linear; expected a model of transformers", model=torch.nn.Linear(1, 1))
    refused("model is a str", model="Qwen/Qwen2-VL-2B-Instruct")
    refused(
        "model is a Qwen2VLTextModel of transformers .*, which takes no visual", model=FULL.model.model.language_model
    )
    with mock.patch.object(type(FULL.model), "thinker", FULL.model, create=True):
        refused("expected its thinker, which takes the tokens: model.thinker")


def test_models_of_other_families():
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    tower = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, **sizes}
    text = {"model_type": "llama", "vocab_size": 8, "num_key_value_heads": 1, **sizes}
    llava = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(vision_config=tower, text_config=text))
    refused("model_type 'clip_vision_model' is not supported", model=llava, error=ConfigError)


def test_models_behind_adapters_of_the_peft_package():
    behind = SimpleNamespace(get_base_model=lambda: FULL.model)
    assert "mm_encoder_outputs" in inputs(FULL.image * 3, OUT, FULL.processor, behind)


@pytest.mark.parametrize(
    ("package", "module"),
    [("torch", None), ("transformers", None), ("transformers", "types.ModuleType('transformers')")],
)
def test_packages_that_are_missing_or_old(package, module):
    code = f"""
import sys, types
sys.modules[{package!r}] = {module}
import qwenvis
try:
    import qwenvis.adapters.transformers
except qwenvis.PackageError as error:
    assert isinstance(error, ImportError) and "pip install torch 'transformers>={FIRST}'" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
