import numpy as np
from numpy.typing import NDArray

def gather(x: NDArray[np.float32], index: NDArray[np.int64], out: np.ndarray) -> np.ndarray: ...
