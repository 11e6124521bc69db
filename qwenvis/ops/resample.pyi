import numpy as np
from numpy.typing import NDArray

_U8 = NDArray[np.uint8]
_I32 = NDArray[np.int32]

MAX_PRECISION: int

def resample_rows(x: _U8, starts: _I32, weights: _I32, precision: int, out: _U8) -> _U8: ...
def resample_columns(x: _U8, starts: _I32, weights: _I32, precision: int, out: _U8) -> _U8: ...
