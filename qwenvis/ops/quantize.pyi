import numpy as np

from qwenvis.ops.packed_weight import PackedWeight

def quantize(x: np.ndarray, weight: PackedWeight, out: np.ndarray) -> np.ndarray: ...
