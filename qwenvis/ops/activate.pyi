import numpy as np
from numpy.typing import NDArray

def activate(x: NDArray[np.float32], out: np.ndarray, *, activation: str, limit: float = ...) -> np.ndarray: ...
