"""A model after `adapters.transformers.attach`: copies, files, changed weights, gradients; and what is refused."""

import copy
import functools
import pickle

import pytest
import torch

from adapters.transformers.pixel_path import SCENARIOS, encoder, logits, pixel_inputs
from oracle.tolerance import TOWER, relative_error
from oracle.transformers_models import full_model
from oracle.transformers_processors import transformers_class
from qwenvis import ConfigError, Encoder, InputError
from qwenvis.adapters.transformers import attach

PATCHES, GRID = "pixel_values", "image_grid_thw"
IMAGE = SCENARIOS["one image"]


@functools.cache
def pixels(family):
    return pixel_inputs(family, IMAGE, None)


def fresh(family="qwen2_vl", seed=0):
    return copy.deepcopy(full_model(family, seed).model)


def features(model, family="qwen2_vl", **options):
    given = pixels(family)
    with torch.no_grad():
        return torch.cat(model.get_image_features(given[PATCHES], given[GRID], **options).pooler_output)


@pytest.mark.parametrize("family", ["qwen3_vl", "paddleocr_vl"])
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies(family, copied):
    """A copy has weights of its own: a change of them does not reach the other model."""
    model = attach(fresh(family))
    other = copied(model)
    assert torch.equal(features(other, family), features(model, family))
    torch.nn.init.zeros_(other.get_input_embeddings().weight)
    for parameter in other.base_model.visual.parameters():
        parameter.data.mul_(1.1)
    assert not torch.equal(features(other, family), features(model, family))
    assert torch.equal(features(model, family), features(attach(fresh(family)), family))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl_moe", "paddleocr_vl"])
def test_save_pretrained_writes_the_tower(family, tmp_path):
    model = attach(fresh(family))
    assert list(model.state_dict()) == list(full_model(family).model.state_dict())
    model.save_pretrained(tmp_path)
    again = type(full_model(family).model).from_pretrained(tmp_path)
    assert torch.equal(logits(again, pixels(family)), logits(full_model(family).model, pixels(family)))
    Encoder.from_pretrained(tmp_path)


def test_the_encoder_follows_the_weights():
    model, other = attach(fresh()), full_model("qwen2_vl", 1).model
    before = features(model)
    model.load_state_dict(other.state_dict())
    after = features(model)
    assert not torch.equal(after, before)
    assert torch.equal(after, features(attach(fresh(seed=1))))
    model.model.visual.merger.mlp[2].weight.data[0] += 1  # no counter of PyTorch sees a change through .data
    assert not torch.equal(features(model), after)


@pytest.mark.parametrize("copied", [lambda model: model, copy.deepcopy], ids=["same", "copy"])
def test_a_change_of_one_entry(copied):
    model = attach(fresh())
    before = features(model)
    bias = model.model.visual.merger.mlp[2].bias
    with torch.no_grad():
        bias[7] += 1
    after = features(copied(model))
    assert torch.allclose((after - before)[:, 7], torch.tensor(1.0), atol=1e-5)
    with torch.no_grad():
        model.model.visual.merger.mlp[2].bias = torch.nn.Parameter(bias.clone())
        model.model.visual.merger.mlp[2].bias[7] += 1
    assert torch.allclose((features(model) - after)[:, 7], torch.tensor(1.0), atol=1e-5)


def test_other_models():
    """The model without its head, the thinker of an Omni model, and the class of the tower."""
    model = fresh()
    want = features(attach(copy.deepcopy(model)))
    base = attach(model.model)
    assert torch.equal(features(base), want)
    assert isinstance(
        base.visual, transformers_class("qwen2_vl.modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel")
    )
    holder = torch.nn.Module()
    holder.thinker = fresh("qwen2_5_omni")
    assert attach(holder) is holder
    thinker = attach(fresh("qwen2_5_omni"))
    assert torch.equal(features(holder.thinker, "qwen2_5_omni"), features(thinker, "qwen2_5_omni"))


def test_a_given_encoder():
    given = Encoder.from_pretrained(full_model("qwen2_vl").directory, dtype="bfloat16", threads=1)
    model = attach(fresh(), given)
    out = given(pixels("qwen2_vl")[PATCHES], pixels("qwen2_vl")[GRID])
    assert torch.equal(features(model), torch.from_numpy(out.embeddings))
    assert torch.equal(features(attach(model)), features(attach(fresh())))  # the second attach counts
    assert torch.equal(features(pickle.loads(pickle.dumps(attach(model, given)))), torch.from_numpy(out.embeddings))


def test_encoders_of_other_towers():
    with pytest.raises(InputError, match=r"the encoder is qwen2_5_vl with .*, the model is qwen2_vl with"):
        attach(fresh(), encoder("qwen2_5_vl"))
    other = Encoder.from_pretrained(full_model("qwen2_vl", 1).directory, threads=1)
    with pytest.raises(InputError, match="the encoder has other weights than the model's tower"):
        attach(fresh(), other)
    with pytest.raises(InputError, match="the encoder has other weights than the model's tower"):
        attach(fresh().bfloat16(), other)
    model = attach(fresh(), encoder("qwen2_vl"))
    model.load_state_dict(full_model("qwen2_vl", 1).model.state_dict())
    with pytest.raises(InputError, match="the encoder has other weights than the model's tower"):
        features(model)
    deep = fresh("qwen3_vl")
    torch.nn.init.zeros_(deep.model.visual.deepstack_merger_list[0].linear_fc2.weight)  # no token changes
    with pytest.raises(InputError, match="the encoder has other weights than the model's tower"):
        attach(deep, encoder("qwen3_vl"))


def test_an_encoder_in_int8_may_differ_more():
    """In a tower that amplifies rounding it differs as much as here, where other weights make up for the depth."""
    directory, model = full_model("qwen2_vl").directory, fresh()
    with torch.no_grad():
        for weight in model.model.visual.merger.mlp.parameters():
            weight += 0.13 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"random image differ by 0\.1\d+, and rounding explains 0\.1"):
        attach(copy.deepcopy(model), Encoder.from_pretrained(directory, dtype="bfloat16", threads=1))
    attach(model, Encoder.from_pretrained(directory, dtype="int8", threads=1))
    other = Encoder.from_pretrained(full_model("qwen2_vl", 1).directory, dtype="int8", threads=1)
    with pytest.raises(InputError, match=r"rounding explains 0\.3"):
        attach(fresh(), other)


@pytest.mark.parametrize("family", ["glm4v", "paddleocr_vl"])
def test_given_encoders_of_other_kinds(family):
    assert torch.equal(
        features(attach(fresh(family), encoder(family)), family), features(attach(fresh(family)), family)
    )


def test_gradients():
    """The language model trains with a frozen tower; a gradient that the tower would lose is an error."""
    model, given = attach(fresh()).train(), pixels("qwen2_vl")
    loss = model(**given, labels=given["input_ids"]).loss
    with pytest.raises(InputError, match="no gradient flows through an attached tower: freeze its weights"):
        loss.backward()
    model.model.visual.requires_grad_(False)
    model(**given, labels=given["input_ids"]).loss.backward()
    assert model.lm_head.weight.grad.abs().max() > 0
    wanting = given[PATCHES].clone().requires_grad_()
    with pytest.raises(InputError, match="and pass pixels that require none"):
        model(**{**given, PATCHES: wanting}, labels=given["input_ids"]).loss.backward()


def test_outputs():
    """No hidden states: what reads them fails, instead of getting tokens."""
    model, given = attach(fresh()), pixels("qwen2_vl")
    out = model.get_image_features(given[PATCHES], given[GRID], output_hidden_states=True)
    assert (out.hidden_states, out.attentions) == (None, None)
    with pytest.raises((NotImplementedError, RuntimeError)):
        out.last_hidden_state.sum().item()
    last, tokens = model.get_image_features(given[PATCHES], given[GRID], return_dict=False)
    assert (last.is_meta, len(tokens)) == (True, 1)
    assert len(model(**given, output_hidden_states=True).hidden_states) == 5  # of the language model
    with pytest.raises(InputError, match="the encoder computes cu_seqlens of the grid itself"):
        features(model, image_cu_seqlens=torch.tensor([0, 48]))
    with pytest.raises(InputError, match=r"pixel_values has 48 rows; grid_thw .* adds up to"):
        model.get_image_features(given[PATCHES], given[GRID] * 2)


def test_what_is_refused(monkeypatch):
    with pytest.raises(InputError, match="str has no module named 'visual'"):
        attach("Qwen/Qwen2-VL-2B-Instruct")
    with pytest.raises(InputError, match="Linear has no module named 'visual'"):
        attach(torch.nn.Linear(1, 1))
    both = torch.nn.ModuleList([fresh(), fresh()])
    with pytest.raises(InputError, match="ModuleList has 2 modules named 'visual'"):
        attach(both)
    with pytest.raises(InputError, match="the model is compiled: attach first"):
        attach(torch.compile(fresh(), backend="eager"))
    quantised, hooked, absent, adapted, foreign = (fresh() for _ in range(5))
    weight = quantised.model.visual.blocks[0].mlp.fc1.weight
    quantised.model.visual.blocks[0].mlp.fc1.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(InputError, match=r"the model's tower has weights of torch.int8; expected torch.float32"):
        attach(quantised)
    hooked.model.visual.forward = hooked.model.visual.forward
    with pytest.raises(InputError, match="another library has replaced the forward pass"):
        attach(hooked)
    absent.model.visual.to("meta")
    with pytest.raises(InputError, match="not in memory, but on the meta device"):
        attach(absent)
    adapted.model.visual.blocks[0].mlp.fc1.lora_A = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"left over .*lora_A"):
        attach(adapted)
    foreign.model.config.model_type = "another"
    monkeypatch.setattr(type(foreign.model.visual.config), "model_type", "another")
    with pytest.raises(ConfigError, match="another"):
        attach(foreign.model)


def test_code_within_the_tower():
    """Hooks on its modules, and exchanged forward passes, would change the tokens in silence by not running."""
    message = r"blocks\.1 of the model's tower has a hook or another forward pass, which the encoder would not run"
    model, exchanged = fresh(), fresh()
    block = model.model.visual.blocks[1]
    for register in (block.register_forward_hook, block.register_forward_pre_hook):
        hook = register(lambda *_: None)
        with pytest.raises(InputError, match=message):
            attach(model)
        hook.remove()
    exchanged.model.visual.blocks[1].forward = block.forward
    with pytest.raises(InputError, match=message):
        attach(exchanged)
    attach(model)
    hook = block.register_forward_hook(lambda *_: None)
    with pytest.raises(InputError, match=message):
        features(model)
    hook.remove()
    calls = []
    model.model.visual.register_forward_hook(lambda *_: calls.append(1))
    model.enable_input_require_grads()
    features(model)
    assert calls == [1]


def test_hooks_of_transformers_within_the_tower():
    model = fresh()
    want = features(model, output_hidden_states=True, output_attentions=True)
    assert any(module._forward_hooks for module in model.model.visual.modules())
    assert relative_error(features(attach(model)), want) <= TOWER


def test_a_refused_attach_leaves_the_model_alone():
    model = fresh()
    with pytest.raises(InputError):
        attach(model, encoder("qwen2_5_vl"))
    assert torch.equal(features(model), features(full_model("qwen2_vl").model))


@pytest.mark.slow
def test_compiled_after_attach():
    """The tower runs between compiled graphs."""
    given = pixels("qwen2_vl")
    model = attach(fresh())
    want = logits(model, given)
    assert relative_error(logits(torch.compile(model, backend="eager"), given), want) <= TOWER
