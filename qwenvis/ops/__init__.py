"""The compiled operations: arrays, threads and shape checks over the C kernels.

Every op fills and returns its last array argument. It allocates no array for results, and cuts its work into
independent tasks of one parallel loop (`runtime.pyx`), so that no bit depends on the number of threads.
"""

from qwenvis.ops.activate import activate
from qwenvis.ops.attention import attention, attention_scratch
from qwenvis.ops.finite import all_finite
from qwenvis.ops.gather import gather
from qwenvis.ops.interpolate import add_interpolated
from qwenvis.ops.linear import ACTIVATIONS, linear, quantized_rows
from qwenvis.ops.norm import layer_norm, rms_norm
from qwenvis.ops.packed_weight import PackedWeight
from qwenvis.ops.quantize import quantize
from qwenvis.ops.resample import resample_columns, resample_rows
from qwenvis.ops.runtime import (
    cache_line,
    formats,
    granted_threads,
    isa,
    isas,
    openmp,
    peak,
    use_isa,
    use_threads,
)
from qwenvis.ops.vol2col import vol2col

__all__ = [
    "ACTIVATIONS",
    "PackedWeight",
    "activate",
    "add_interpolated",
    "all_finite",
    "attention",
    "attention_scratch",
    "cache_line",
    "formats",
    "gather",
    "granted_threads",
    "isa",
    "isas",
    "layer_norm",
    "linear",
    "openmp",
    "peak",
    "quantize",
    "quantized_rows",
    "resample_columns",
    "resample_rows",
    "rms_norm",
    "use_isa",
    "use_threads",
    "vol2col",
]
