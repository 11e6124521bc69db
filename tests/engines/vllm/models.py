"""Tiny random models for vLLM on a CPU, and the engines and servers that serve them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before vLLM is imported: engines for this machine only, in processes that are not forked from one with threads, with
# little memory for keys and values.
os.environ.update(
    VLLM_WORKER_MULTIPROCESSING_METHOD="spawn",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_LOGGING_LEVEL="ERROR",
    VLLM_NO_USAGE_STATS="1",
    VLLM_HOST_IP="127.0.0.1",
    OMP_NUM_THREADS="1",
)

from vllm import LLM

import qwenvis
from oracle.full_families import FULL_FAMILIES
from oracle.transformers_models import FullModel, full_model

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
STARTING = 240  # seconds that a server may take until it answers

# The attention of vLLM on CPUs has kernels for heads of 32, and none for those of the tiny models of transformers.
HEADS = {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32}
for name, case in FULL_FAMILIES.items():
    rope = {"rope_parameters": {**case.text["rope_parameters"], "mrope_section": [4, 6, 6]}}
    FULL_FAMILIES[name] = case._replace(text={**case.text, **HEADS, **rope})

SIZES = {"max_model_len": 2048, "max_num_seqs": 2, "enforce_eager": True, "dtype": "float32"}


@functools.cache
def tiny_model(family: str) -> FullModel:
    """Build the tiny full model of a family, with one normalisation for images and videos, as published models have.

    vLLM normalises videos like images.
    """
    found = full_model(family)
    if family == "qwen3_vl":
        images = found.processor.image_processor
        images.image_mean = images.image_std = [0.5, 0.5, 0.5]
        found.processor.save_pretrained(found.directory)
    return found


@functools.cache
def encoder(family: str) -> qwenvis.Encoder:
    """Load the tower of the family's full model."""
    return qwenvis.Encoder.from_pretrained(tiny_model(family).directory, threads=1)


def reading(directory: Path) -> dict[str, Any]:
    """Return the ``ec_transfer_config`` of an engine that reads tokens in a directory."""
    place = {"shared_storage_path": str(directory)}
    return {"ec_connector": "ECExampleConnector", "ec_role": "ec_consumer", "ec_connector_extra_config": place}


@contextlib.contextmanager
def engine(model: Path, **options: Any) -> Iterator[LLM]:
    """Serve a model in a process that ends with the block."""
    llm = LLM(str(model), enable_mm_embeds=True, **{**SIZES, **options})
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()


@contextlib.contextmanager
def server(model: Path, directory: Path) -> Iterator[str]:
    """Serve a model, and the tokens in a directory, over the loopback; yield the address of the chat API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {**SIZES, "ec_transfer_config": json.dumps(reading(directory)), "host": "127.0.0.1", "port": port}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    flags = ["--enforce-eager", "--enable-mm-embeds"]
    with subprocess.Popen([*command, *flags, *given]) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait(address, process)
            yield f"{address}/v1/chat/completions"
        finally:
            process.terminate()


def wait(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return once a server answers."""
    for _ in range(STARTING):
        assert process.poll() is None, "the server has ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return
        time.sleep(1)
    raise AssertionError(f"no answer after {STARTING} seconds")
