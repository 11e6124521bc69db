"""llama.cpp through the C interface of the shared library in the package xllamacpp, as include/llama.h states it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
from collections.abc import Iterator
from ctypes import POINTER, c_float, c_int8, c_int32, c_uint32, c_void_p
from pathlib import Path

import numpy as np

FLOAT32 = 0  # ggml_type


class ModelParams(ctypes.Structure):
    """llama_model_params, without names: the default values are used."""

    _fields_ = [("words", c_uint32 * 32)]


class ContextParams(ctypes.Structure):
    """llama_context_params up to the types of the cache; what follows has no name."""

    _fields_ = [
        *((name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq", "n_outputs_max")),
        *((name, c_int32) for name in ("n_outputs_max_per_seq", "n_threads", "n_threads_batch", "context_type")),
        *((name, c_int32) for name in ("rope_scaling", "pooling", "attention", "flash_attention")),
        ("rope", c_uint32 * 8),
        ("callback", c_void_p * 2),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("rest", c_uint32 * 32),
    ]


class Batch(ctypes.Structure):
    """llama_batch."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


@functools.cache
def library() -> ctypes.CDLL:
    """Load the library, silence it, and declare the functions that do not return an int."""
    spec = importlib.util.find_spec("xllamacpp")
    (path,) = Path(spec.origin).parent.glob("xllamacpp*.so")
    library = ctypes.CDLL(str(path))
    library.llama_model_default_params.restype = ModelParams
    library.llama_context_default_params.restype = ContextParams
    library.llama_get_logits.restype = POINTER(c_float)
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab"):
        getattr(library, name).restype = c_void_p
    library.silent = ctypes.CFUNCTYPE(None, c_int32, ctypes.c_char_p, c_void_p)(lambda *_: None)
    library.llama_log_set(library.silent, None)
    library.llama_backend_init()
    return library


class Context:
    """A model and one sequence: float32 everywhere, without flash attention, which rounds to float16."""

    def __init__(self, model: c_void_p, **sizes: int) -> None:
        self.library = library()
        params = self.library.llama_context_default_params()
        defaults = params.n_batch, params.n_ubatch, params.type_k, params.type_v
        assert defaults == (2048, 512, 1, 1), "the layout of the structure has changed"
        for name, value in {"n_ctx": 4096, "n_threads": 1, "n_threads_batch": 1, "flash_attention": 0, **sizes}.items():
            setattr(params, name, value)
        params.type_k = params.type_v = FLOAT32
        self.n_batch = params.n_batch
        self.context = c_void_p(self.library.llama_init_from_model(model, params))
        assert self.context
        self.vocabulary = self.library.llama_vocab_n_tokens(c_void_p(self.library.llama_model_get_vocab(model)))

    def decode(
        self, *, positions: np.ndarray, tokens: np.ndarray | None = None, embd: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Return the logits of all tokens of a batch, (tokens, vocabulary); None if llama.cpp refuses the batch."""
        count = len(tokens) if embd is None else len(embd)
        every = np.ones(count, np.int8)
        batch = Batch(n_tokens=count, pos=_pointer(positions, c_int32), logits=_pointer(every, c_int8))
        if embd is None:
            batch.token = _pointer(tokens, c_int32)
        else:
            batch.embd = _pointer(embd, c_float)
        if self.library.llama_decode(self.context, batch):
            return None
        found = np.ctypeslib.as_array(self.library.llama_get_logits(self.context), (count, self.vocabulary))
        return found.copy()


def _pointer(array: np.ndarray, kind: type) -> object:
    return array.ctypes.data_as(POINTER(kind))


@contextlib.contextmanager
def opened(path: Path, **sizes: int) -> Iterator[Context]:
    """Open the model in a file with a new context."""
    model = c_void_p(library().llama_model_load_from_file(str(path).encode(), library().llama_model_default_params()))
    assert model
    context = Context(model, **sizes)
    yield context
    library().llama_free(context.context)
    library().llama_model_free(model)
