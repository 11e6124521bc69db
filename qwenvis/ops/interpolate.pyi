import numpy as np
from numpy.typing import NDArray

_F32 = NDArray[np.float32]

def add_interpolated(grid: _F32, y: tuple[np.ndarray, _F32], x: tuple[np.ndarray, _F32], out: _F32) -> _F32: ...
