import numpy as np
from numpy.typing import NDArray

_U8 = NDArray[np.uint8]

def resample_rows(image: _U8, starts: NDArray[np.int32], weights: NDArray[np.int16], bits: int, out: _U8) -> _U8: ...
def resample_columns(image: _U8, starts: NDArray[np.int32], weights: NDArray[np.int16], bits: int, out: _U8) -> _U8: ...
