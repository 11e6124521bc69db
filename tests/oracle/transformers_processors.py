"""transformers' processors, who judge ours: the Pillow ones here, the torchvision ones in a process of their own.

Where torchvision is installed, transformers takes its torchvision classes for everything; so the tests keep it apart,
in the directory that ``make judges`` fills or QWENVIS_TORCHVISION names. Beside a torch for CPUs, its compiled
operations do not load, and those that its import asks for are declared without code: no resize calls them.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TORCHVISION = Path(os.environ.get("QWENVIS_TORCHVISION", ROOT / "build" / "torchvision"))

needs_torchvision = pytest.mark.skipif(
    not (TORCHVISION / "torchvision").is_dir(), reason="torchvision is not here: make judges"
)


# The video processors of transformers, by the names that configs have for them.
VIDEO_PROCESSORS = {
    "Qwen2VLVideoProcessor": "qwen2_vl.video_processing_qwen2_vl.Qwen2VLVideoProcessor",
    "Qwen3VLVideoProcessor": "qwen3_vl.video_processing_qwen3_vl.Qwen3VLVideoProcessor",
    "CohereCompassVideoProcessor": "cohere_compass.video_processing_cohere_compass.CohereCompassVideoProcessor",
    "Glm4vVideoProcessor": "glm4v.video_processing_glm4v.Glm4vVideoProcessor",
    "Glm46VVideoProcessor": "glm46v.video_processing_glm46v.Glm46VVideoProcessor",
    "Glm5NextVideoProcessor": "glm5_next.video_processing_glm5_next.Glm5NextVideoProcessor",
}
# Sizes of the towers that these are made for.
VIDEO_TOWERS = {
    name: {"patch_size": 16 if name.startswith(("Qwen3", "Cohere")) else 14, "merge_size": 2, "temporal_patch_size": 2}
    for name in VIDEO_PROCESSORS
}


class Ask(NamedTuple):
    """A call, ``Class.from_dict(config)(**given)``; ``name`` is module.Class in transformers.models."""

    name: str
    config: dict[str, Any]
    given: dict[str, Any]


def judge(name: str) -> Any:
    """A class, or a function, of transformers.models; its modules warn while they are imported, as torch does."""
    module, _, attribute = name.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(f"transformers.models.{module}"), attribute)


def answer(ask: Ask) -> dict[str, Any]:
    """What the processor returns, tensors as arrays; or, under "error", what it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            answered = judge(ask.name).from_dict(dict(ask.config))(**ask.given)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
    return {key: value.numpy() if hasattr(value, "numpy") else value for key, value in answered.items()}


def torchvision_answers(asks: list[Ask]) -> list[dict[str, Any]]:
    """The answers of transformers with torchvision, which a process of its own imports once for all of them."""
    paths = [str(TORCHVISION), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]
    run = subprocess.run(command, input=pickle.dumps(asks), capture_output=True, env=environment, timeout=280)
    assert run.returncode == 0, run.stderr.decode()
    return pickle.loads(run.stdout)


def import_torchvision() -> Any:
    """Import it; where its operations are missing, declare those that it registers more code for, and keep them."""
    import torch

    operations = torch.library.Library("torchvision", "FRAGMENT")

    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        operations.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operations.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    assert torchvision.__file__.startswith(str(TORCHVISION))
    return operations


def main() -> None:
    """Answer what stands on stdin, to stdout; nothing else may be written there."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    asks = pickle.load(sys.stdin.buffer)
    warnings.simplefilter("ignore")
    operations = import_torchvision()
    answers.write(pickle.dumps([answer(ask) for ask in asks]))
    del operations
