"""Conversions of a tower to the files that engines read: OpenVINO's format and ONNX, in float32 and in int8.

The forward of transformers cannot be converted, so both conversions read a `plain_tower.PlainTower`. Its shapes are
constants, and its patch embedding is the complete matrix product: the halved product for still images is not part of
the tower of transformers. A conversion takes several times the memory of the tower and does not free all of it, so
conversions run in separate processes.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoder import CASES, inputs
from qwenvis.spec import ModelSpec

ROUNDING = 1e-5  # relative to the largest token: what a different order of float32 sums may change

FILES = {
    "tokens": "tokens.npy",
    "ir": "tower.xml",
    "onnx": "tower.onnx",
    "ir_int8": "tower-int8.xml",
    "onnx_int8": "tower-int8.onnx",
}
# Converted in one process, which holds the float32 tower; conversions of another file have their own process.
FROM_TORCH = ("tokens", "ir", "onnx")
FROM_FILES = {"ir_int8": "ir", "onnx_int8": "onnx"}


class Work:
    """A tower, a batch of patches, and the directory for the converted files."""

    def __init__(self, model: str, case: str, threads: int, directory: Path) -> None:
        self.model, self.case, self.threads, self.directory = model, case, threads, directory
        self.spec = ModelSpec.open(model)
        pixel_values, self.grid_thw = inputs(self.spec, CASES[case])
        self.pixel_values = np.array(pixel_values)  # a copy: torch needs writable arrays
        self.cost = self.spec.cost(self.grid_thw, still=bool((self.grid_thw[:, 0] == 1).all()))

    def file(self, name: str) -> Path:
        """Return the path of a file of `FILES`."""
        return self.directory / FILES[name]

    def torch_tower(self, dtype: str) -> Any:
        """The tower in transformers' class."""
        import torch

        from benchmarks import plain_tower

        torch.set_num_threads(self.threads)
        return plain_tower.load(self.spec.checkpoint, self.spec.family, getattr(torch, dtype))

    def torch_inputs(self) -> tuple[Any, Any]:
        """Return ``pixel_values`` and ``grid_thw`` as tensors."""
        import torch

        return torch.from_numpy(self.pixel_values), torch.from_numpy(self.grid_thw)


def convert(work: Work, names: Collection[str]) -> dict[str, float | str]:
    """Convert to the named files; return the seconds for each, or the reason for a failure."""
    named = {"tokens", *names, *(FROM_FILES[name] for name in names if name in FROM_FILES)}
    made = _converted(work, [name for name in FROM_TORCH if name in named])
    for name in [name for name in FROM_FILES if name in named]:
        reason = made[FROM_FILES[name]]
        made |= {name: reason} if isinstance(reason, str) else _converted(work, [name])
    return made


def deviation(tokens: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error, relative to the largest expected value."""
    return float(np.abs(tokens - expected).max() / np.abs(expected).max())


def reason(error: Exception) -> str:
    """Format an exception as one line."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a call in its own process, which frees all of its memory at the end; return the result."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _converted(work: Work, names: list[str]) -> dict[str, float | str]:
    try:
        made: dict[str, float | str] = in_a_process(_make, names, work.model, work.case, work.threads, work.directory)
    except Exception as error:  # the process has died, probably out of memory
        return dict.fromkeys(names, reason(error))
    return made


def _make(names: list[str], *work: Any) -> dict[str, float | str]:
    warnings.simplefilter("ignore")  # converters warn about future changes,
    logging.disable(logging.WARNING)  # and log unused inputs
    conversion, made = Conversion(Work(*work)), {}
    for name in names:
        start = time.perf_counter()
        try:
            getattr(conversion, name)()
            made[name] = time.perf_counter() - start
        except Exception as error:
            made[name] = reason(error)
    return made


class Conversion:
    """Conversions to files; each method has the name of its file."""

    def __init__(self, work: Work) -> None:
        self.work, self.file = work, work.file

    @cached_property
    def tower(self) -> Any:
        """The tower in transformers' class, float32."""
        return self.work.torch_tower("float32")

    @cached_property
    def plain(self) -> Any:
        """The tower without its loops, checked against transformers; raises ValueError if they differ."""
        import torch

        from benchmarks.plain_tower import PlainTower

        pixel_values, grid_thw = self.work.torch_inputs()
        plain = PlainTower(self.tower, grid_thw).eval()
        with torch.inference_mode():
            error = deviation(plain(pixel_values).numpy(), np.load(self.file("tokens")))
        if error > ROUNDING:
            raise ValueError(f"the plain tower is {error:.1g} away from transformers")
        return plain

    def tokens(self) -> None:
        """The tokens of transformers, the reference for errors: (n / 4, out_hidden_size) float32."""
        import torch

        pixel_values, grid_thw = self.work.torch_inputs()
        with torch.inference_mode():
            tokens = self.tower(pixel_values, grid_thw=grid_thw).pooler_output
        np.save(self.file("tokens"), tokens.numpy())

    def ir(self) -> None:
        """Convert to OpenVINO's format, float32."""
        import openvino
        import torch

        example, _ = self.work.torch_inputs()
        with torch.no_grad():  # exported, because tracing the same tower takes four times the memory
            model = openvino.convert_model(torch.export.export(self.plain, (example,)))
        openvino.save_model(model, self.file("ir"), compress_to_fp16=False)

    def ir_int8(self) -> None:
        """Convert to OpenVINO's format with int8 weights and activations, calibrated on the benchmark's patches."""
        import nncf
        import openvino

        model = openvino.Core().read_model(self.file("ir"))
        samples = nncf.Dataset([self.work.pixel_values])
        model = nncf.quantize(model, samples, model_type=nncf.ModelType.TRANSFORMER, subset_size=1)
        openvino.save_model(model, self.file("ir_int8"), compress_to_fp16=False)

    def onnx(self) -> None:
        """Convert to ONNX, float32, with ONNX Runtime's fused attention."""
        import torch

        from benchmarks.plain_tower import multi_head

        example, _ = self.work.torch_inputs()
        self.plain.attention, sdpa = multi_head, self.plain.attention
        with torch.no_grad():
            program = torch.onnx.export(self.plain, (example,), dynamo=True, opset_version=23, verbose=False)
        self.plain.attention = sdpa
        program.save(self.file("onnx"), external_data=True)

    def onnx_int8(self) -> None:
        """Convert to ONNX with int8 weights, one scale per output; activations are quantised dynamically."""
        from onnxruntime.quantization import quantize_dynamic

        settings = {"op_types_to_quantize": ["MatMul", "Gemm"], "per_channel": True, "use_external_data_format": True}
        quantize_dynamic(self.file("onnx"), self.file("onnx_int8"), **settings)
