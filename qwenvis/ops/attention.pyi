from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_F32 = NDArray[np.float32]

def attention(
    qkv: Sequence[_F32],
    rope: Sequence[_F32],
    cu_seqlens: NDArray[np.int32],
    out: np.ndarray,
    scratch: _F32,
    *,
    format: str = "f32",
) -> np.ndarray: ...
def attention_scratch(longest: int, pairs: int, head_dim: int, format: str = "f32") -> int: ...
