"""Tiny random towers of transformers: what they compute, and their checkpoints on disk."""

from __future__ import annotations

import atexit
import copy
import functools
import json
import tempfile
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np

from oracle.families import FAMILIES, model_class, sized
from oracle.reference_towers import Features

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import transformers
    from safetensors.torch import save_file
    from torch.overrides import TorchFunctionMode
    from transformers.models.paddleocr_vl.modeling_paddleocr_vl import PaddleOCRProjector
    from transformers.vision_utils import get_vision_window_index

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)  # faster than two at these sizes

# A grid that is square, a multiple of the 8 x 8 window, of one frame, or alone in its batch may hide a mistake.
GRIDS = [
    [[1, 10, 14]],
    [[3, 10, 14]],
    [[1, 6, 10], [2, 12, 18]],
    [[1, 2, 2]],
    [[1, 4, 40]],
]

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


class WithProjector(torch.nn.Module):
    """The tower of PaddleOCR-VL and its projector, with the checkpoint's names."""

    def __init__(self, model):
        super().__init__()
        self.config, self.visual = model.config, model
        text = SimpleNamespace(hidden_size=getattr(model.config, "out_hidden_size", 1024))
        self.mlp_AR = PaddleOCRProjector(SimpleNamespace(vision_config=model.config, text_config=text))

    @property
    def dtype(self):
        return self.visual.dtype

    def forward(self, pixel_values, grid_thw):
        side = self.config.patch_size
        patches = pixel_values.reshape(1, len(pixel_values), -1, side, side)
        hidden = self.visual(pixel_values=patches, grid_thw=grid_thw).last_hidden_state
        return SimpleNamespace(pooler_output=self.mlp_AR(hidden, grid_thw))


def stills(grid_thw):
    """Return a grid of one frame for each frame, as the GLM towers expect it."""
    return torch.tensor([[1, h, w] for t, h, w in grid_thw.tolist() for _ in range(t)])


def build(family, vision_config):
    """Build transformers' tower of a family."""
    kind = model_class(family)
    config = kind.config_class(**vision_config)
    config._attn_implementation = "eager"
    model = kind(config).eval()
    return WithProjector(model) if hasattr(model, "vision_model") else model


def make(family, seed=0, **overrides):
    """Return a tiny random float32 tower: (torch model, vision_config as a dict, weights by name as NumPy arrays).

    Sizes have the names of Qwen2.5-VL's config. Norms and biases are random too: if they kept their initial ones and
    zeros, a tower without them would give the same result.
    """
    model = build(family, {**FAMILIES[family].tiny, **sized(family, **overrides)})
    randomize(model, seed)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return model, model.config.to_dict(), weights


def randomize(model, seed):
    """Fill the parameters of a model with seeded random numbers, which keep activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            parameter.data = 0.1 * noise
        elif parameter.dim() == 1:
            parameter.data = 1 + 0.2 * noise
        else:
            experts = parameter.dim() == 3  # (experts, out, in), where all else is (out, in...)
            parameter.data = noise / (parameter[0, 0] if experts else parameter[0]).numel() ** 0.5


def parts(config):
    """Return the channels and frames of a patch; 1 frame where a config states none."""
    return config.get("in_channels") or config["num_channels"], config.get("temporal_patch_size", 1)


def inputs(config, grids, seed=1, scale=1.0):
    """Return random pixel_values (n, 3 · temporal · patch²) float32 and grid_thw (items, 3) int64.

    At scale 1e-3 the variances in the norms are of the size of their eps, so that a wrong eps shows.
    """
    grid_thw = np.array(grids, dtype=np.int64)
    columns = np.prod(parts(config)) * config["patch_size"] ** 2
    pixel_values = np.random.default_rng(seed).standard_normal((grid_thw.prod(axis=1).sum(), columns))
    return (scale * pixel_values).astype(np.float32), grid_thw


def still(config, pixel_values):
    """Return the patches with their first temporal slice in place of all slices."""
    split = pixel_values.reshape(len(pixel_values), *parts(config), -1).copy()
    split[:, :, 1:] = split[:, :, :1]
    return split.reshape(pixel_values.shape)


def folded(weights):
    """Return the weights that multiply stills in bfloat16: the slices of the patch embedding are summed, then rounded.

    The first slice holds the sum; the other slices are zero.
    """
    folded = dict(weights)
    for name in [name for name, kernel in weights.items() if kernel.ndim == 5]:
        folded[name] = np.zeros_like(weights[name])
        folded[name][:, :, 0] = weights[name].sum(axis=2).astype(ml_dtypes.bfloat16)
    return folded


def double(model):
    """Return a copy of the tower in float64, for `run`."""
    model = copy.deepcopy(model).double()
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            module.float()  # its frequencies are defined in float32
    return model


def narrowed(model):
    """Return a copy of the tower with its weights in bfloat16, as transformers runs a bfloat16 checkpoint."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():  # not the buffers: frequencies are defined in float32
        parameter.data = parameter.data.bfloat16()
    return model


class Unrounded(TorchFunctionMode):
    """Keep float64 where transformers narrows to float32 whatever the model's type: in norms, softmax and rope.

    The angles of rope and the places of interpolation stay float32, as they are defined, but their cosines and weights
    are not rounded again. So formulas are comparable to 1e-13 instead of 1e-6.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.Tensor.cos, torch.Tensor.sin):
            return function(args[0].double())
        if function is torch.nn.functional.grid_sample:
            return function(args[0], args[1].to(args[0].dtype), **kwargs)
        if args and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64:
            if function is torch.Tensor.float:
                return args[0]
            args = [torch.float64 if value is torch.float32 else value for value in args]
            kwargs = {name: torch.float64 if value is torch.float32 else value for name, value in kwargs.items()}
        return function(*args, **kwargs)


def run(model, pixel_values, grid_thw):
    """Run a tower of transformers; return its `Features`. A model from `double` computes in float64 throughout."""
    pixel_values, grid_thw = torch.tensor(pixel_values, dtype=model.dtype), torch.tensor(grid_thw)
    grid = stills(grid_thw) if model.config.model_type.startswith("glm") else grid_thw
    blocks = model.visual.vision_model.encoder.layers if hasattr(model, "visual") else model.blocks
    states = []
    hooks = [block.register_forward_hook(lambda _, args, out: states.append(out)) for block in blocks]
    hooks.append(blocks[0].register_forward_pre_hook(lambda _, args: states.append(args[0])))
    with torch.no_grad(), Unrounded() if model.dtype == torch.float64 else nullcontext():
        out = model(pixel_values, grid_thw=grid)
    for hook in hooks:
        hook.remove()
    natural = _natural_order(model.config, grid_thw)
    deepstack = [_array(each) for each in getattr(out, "deepstack_features", None) or []]
    return Features(_array(out.pooler_output), [_array(state)[natural] for state in states], deepstack)


@functools.cache
def cached(family):
    """The family's tower from `make` and from `double`, its vision_config and its weights, made once."""
    model, config, weights = make(family)
    return model, double(model), config, weights


@functools.cache
def expected(family, grids, scale=1.0):
    """Return random pixel_values, grid_thw (``grids`` are tuples), and the `Features` of transformers in float64."""
    _, model, config, _ = cached(family)
    given = inputs(config, grids, scale=scale)
    return *given, run(model, *given)


def hashable(grids):
    """Return grids as tuples, for the caches."""
    return tuple(map(tuple, grids))


def _array(tensor):
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _natural_order(config, grid_thw):
    """Return the rows of hidden states in natural order: Qwen2.5-VL's are in window order, except its tokens."""
    if not hasattr(config, "window_size"):
        return slice(None)
    merge_size = config.spatial_merge_size
    order, _ = get_vision_window_index(grid_thw, merge_size, config.window_size, config.patch_size)
    patches = order[:, None] * merge_size**2 + torch.arange(merge_size**2)
    return torch.argsort(patches.flatten()).numpy()


def save(directory, family, model, *, prefix=None, dtype="float32", shards=1):
    """Write the tower as a checkpoint in the Hub's layout, beside a tensor of a language model.

    An empty prefix writes a stand-alone tower, whose config.json is the vision_config. `dtype` is a torch name.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    prefix = FAMILIES[family].prefix if prefix is None else prefix
    alone = prefix != FAMILIES[family].prefix and not prefix
    vision_config = json.loads(model.config.to_json_string(use_diff=False))
    config = (
        {**vision_config, "model_type": family} if alone else {"model_type": family, "vision_config": vision_config}
    )
    _write_json(directory / "config.json", config)
    _write_json(directory / "preprocessor_config.json", _preprocessor(model.config))
    tensors = {
        f"{prefix}{name}": tensor.to(getattr(torch, dtype)).contiguous() for name, tensor in model.state_dict().items()
    }
    if not alone:
        tensors["model.norm.weight"] = torch.ones(96, dtype=getattr(torch, dtype))
    _write_tensors(directory, tensors, shards)


def kept(family, model, **options):
    """Write the tower as `save` does, for several tests, which must not change it; return its directory."""
    directory = new_directory()
    save(directory, family, model, **options)
    return directory


def new_directory():
    """Return an empty directory, which is removed at exit."""
    directory = tempfile.TemporaryDirectory(prefix="qwenvis-tests-")
    atexit.register(directory.cleanup)
    return Path(directory.name)


def _preprocessor(config):
    """Return the Hub's preprocessor_config.json of Qwen2-VL and Qwen2.5-VL."""
    return {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": config.patch_size,
        "temporal_patch_size": getattr(config, "temporal_patch_size", 1),
        "merge_size": config.spatial_merge_size,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
    }


def _write_tensors(directory, tensors, shards):
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        names = list(tensors)[shard::shards]
        save_file({name: tensors[name] for name in names}, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    total_size = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(
        directory / "model.safetensors.index.json", {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    )


def _write_json(path, content):
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
