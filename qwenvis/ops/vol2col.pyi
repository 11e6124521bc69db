import numpy as np
from numpy.typing import NDArray

_F32 = NDArray[np.float32]

def vol2col(
    frames: NDArray[np.uint8], lut: _F32, patch_size: int, temporal_patch_size: int, merge_size: int, out: _F32
) -> _F32: ...
