"""Engines that run a tower: how each is built, and one call of it. All start from the same checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import numpy as np

from benchmarks.conversions import Work
from qwenvis import Encoder

Run = Callable[[], np.ndarray]


def build_qwenvis(work: Work, dtype: str) -> Run:
    """Return a call of qwenvis, including the checks of its arguments."""
    encoder = Encoder.from_pretrained(work.model, dtype=dtype, threads=work.threads)
    return lambda: encoder(work.pixel_values, work.grid_thw).embeddings


def build_torch(work: Work, dtype: str) -> Run:
    """Return a call of transformers on torch."""
    import torch

    tower = work.torch_tower(dtype)
    pixel_values, grid_thw = work.torch_inputs()

    def run() -> np.ndarray:
        with torch.inference_mode():
            return tower(pixel_values, grid_thw=grid_thw).pooler_output.float().numpy()

    return run


def build_openvino(work: Work, file: str, precision: str) -> Run:
    """Return a call of OpenVINO's CPU plugin, with one stream."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": work.threads,
        "ENABLE_HYPER_THREADING": True,  # without this setting it may use fewer
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = openvino.Core().compile_model(work.file(file), "CPU", settings).create_infer_request()
    return lambda: request.infer([work.pixel_values], share_inputs=True)[0]


def build_onnxruntime(work: Work, file: str) -> Run:
    """Return a call of ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = work.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Its workers spin during a run as usual, but not for 40 ms after it, which would slow another engine.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(work.file(file), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: work.pixel_values}
    return lambda: session.run(None, feed)[0]


def build_zentorch(work: Work, dtype: str) -> Run:
    """Return a call of the tower compiled by zentorch; raise RuntimeError if torch's own compiler would compile it."""
    import torch
    import zentorch  # noqa: F401, registers its compiler
    from torch._inductor import config

    from benchmarks.plain_tower import PlainTower

    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        raise RuntimeError("zentorch optimises for CPUs with AVX-512")
    pixel_values, grid_thw = work.torch_inputs()
    compiled = torch.compile(PlainTower(work.torch_tower(dtype), grid_thw).eval(), backend="zentorch")

    def run() -> np.ndarray:
        with torch.no_grad():
            return compiled(pixel_values).float().numpy()

    with config.patch(freezing=True):  # weights are packed while the first call is compiled
        run()
    return run


# The name of an engine, and the packages whose versions identify it.
NAMES = {
    "qwenvis": "qwenvis",
    "openvino": "OpenVINO",
    "zentorch": "zentorch",
    "onnxruntime": "ONNX Runtime",
    "torch": "transformers",
}
PACKAGES = {
    "openvino": ["openvino"],
    "zentorch": ["zentorch", "torch"],
    "onnxruntime": ["onnxruntime"],
    "torch": ["transformers", "torch"],
}


def versions(name: str) -> dict[str, str]:
    """Return the versions of the packages of an engine of `ENGINES`."""
    return {package: version(package) for package in PACKAGES.get(name.rsplit("-", 1)[0], [])}


@dataclass(frozen=True)
class Engine:
    """How to build an engine; ``file`` is its input in `conversions.FILES`, empty for the checkpoint itself."""

    format: str
    build: Callable[[Work], Run]
    file: str = ""


ENGINES = {
    "qwenvis-f32": Engine("f32", partial(build_qwenvis, dtype="float32")),
    "torch-f32": Engine("f32", partial(build_torch, dtype="float32")),
    "openvino-f32": Engine("f32", partial(build_openvino, file="ir", precision="f32"), "ir"),
    "zentorch-f32": Engine("f32", partial(build_zentorch, dtype="float32")),
    "onnxruntime-f32": Engine("f32", partial(build_onnxruntime, file="onnx"), "onnx"),
    "qwenvis-bf16": Engine("bf16", partial(build_qwenvis, dtype="bfloat16")),
    "torch-bf16": Engine("bf16", partial(build_torch, dtype="bfloat16")),
    "openvino-bf16": Engine("bf16", partial(build_openvino, file="ir", precision="bf16"), "ir"),
    "zentorch-bf16": Engine("bf16", partial(build_zentorch, dtype="bfloat16")),
    "qwenvis-i8": Engine("i8", partial(build_qwenvis, dtype="int8")),
    # operations that stay in floats use the higher of two precisions
    "openvino-i8": Engine("i8", partial(build_openvino, file="ir_int8", precision="bf16"), "ir_int8"),
    "onnxruntime-i8": Engine("i8", partial(build_onnxruntime, file="onnx_int8"), "onnx_int8"),
}
