import numpy as np
from numpy.typing import NDArray

_F32 = NDArray[np.float32]

def layer_norm(x: _F32, weight: _F32, bias: _F32, eps: float, out: np.ndarray) -> np.ndarray: ...
def rms_norm(x: _F32, weight: _F32, eps: float, out: np.ndarray) -> np.ndarray: ...
