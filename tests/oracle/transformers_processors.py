"""transformers' processors: the Pillow ones in this process, the torchvision ones in a process of their own.

Where torchvision is installed, transformers takes its torchvision classes for everything. So torchvision lies outside
the environment, in the directory that ``make torchvision`` fills or QWENVIS_TORCHVISION names. Its compiled operations
do not load beside a torch for CPUs; those that its import needs are declared without code, since no resize calls them.
"""

from __future__ import annotations

import atexit
import functools
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
    not (TORCHVISION / "torchvision").is_dir(), reason="torchvision is not here: make torchvision"
)


# The video processors of transformers, by their names in configs.
VIDEO_PROCESSORS = {
    "Qwen2VLVideoProcessor": "qwen2_vl.video_processing_qwen2_vl.Qwen2VLVideoProcessor",
    "Qwen3VLVideoProcessor": "qwen3_vl.video_processing_qwen3_vl.Qwen3VLVideoProcessor",
    "CohereCompassVideoProcessor": "cohere_compass.video_processing_cohere_compass.CohereCompassVideoProcessor",
    "Glm4vVideoProcessor": "glm4v.video_processing_glm4v.Glm4vVideoProcessor",
    "Glm46VVideoProcessor": "glm46v.video_processing_glm46v.Glm46VVideoProcessor",
    "Glm5NextVideoProcessor": "glm5_next.video_processing_glm5_next.Glm5NextVideoProcessor",
}
# The sizes of the towers that they prepare videos for.
VIDEO_TOWERS = {
    name: {"patch_size": 16 if name.startswith(("Qwen3", "Cohere")) else 14, "merge_size": 2, "temporal_patch_size": 2}
    for name in VIDEO_PROCESSORS
}


class Call(NamedTuple):
    """The call ``Class.from_dict(config)(**given)``; ``name`` is module.Class in transformers.models.

    With a directory as ``config``, ``Class.from_pretrained(config)`` in place of ``from_dict``.
    """

    name: str
    config: dict[str, Any] | Path
    given: dict[str, Any]


def transformers_class(name: str) -> Any:
    """Return a class or a function of transformers.models, whose modules warn while they are imported."""
    module, _, attribute = name.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(f"transformers.models.{module}"), attribute)


def result_of(call: Call) -> dict[str, Any]:
    """Return what the processor returns, its tensors as arrays; or, under "error", what it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kind, stored = transformers_class(call.name), isinstance(call.config, Path)
            processor = kind.from_pretrained(call.config) if stored else kind.from_dict(dict(call.config))
            result = processor(**call.given)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
    return {key: value.numpy() if hasattr(value, "numpy") else value for key, value in result.items()}


def torchvision_results(calls: list[Call]) -> list[dict[str, Any]]:
    """Return the results of all calls where torchvision is installed."""
    process = _torchvision_process()
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump(calls, process.stdin)
    process.stdin.flush()
    return pickle.load(process.stdout)


@functools.cache
def _torchvision_process() -> subprocess.Popen[bytes]:
    """Start the process of `main`, which imports torchvision once for all tests. It is killed at exit."""
    paths = [str(TORCHVISION), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    atexit.register(process.communicate)
    atexit.register(process.kill)  # which comes before
    return process


def import_torchvision() -> Any:
    """Import torchvision. Return the operations that had to be declared, which live as long as the object."""
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
    """Answer each pickled list of calls on stdin with their pickled results, and write nothing else to stdout."""
    stdout, sys.stdout = sys.stdout.buffer, sys.stderr
    warnings.simplefilter("ignore")
    operations = import_torchvision()
    while sys.stdin.buffer.peek(1):
        calls = pickle.load(sys.stdin.buffer)
        stdout.write(pickle.dumps([result_of(call) for call in calls]))
        stdout.flush()
    del operations
