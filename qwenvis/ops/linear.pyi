import numpy as np

from qwenvis.ops.packed_weight import PackedWeight

ACTIVATIONS: tuple[str, ...]
quantized_rows: int

def linear(
    x: np.ndarray, weight: PackedWeight, out: np.ndarray, *, activation: str = "none", add: bool = False
) -> np.ndarray: ...
