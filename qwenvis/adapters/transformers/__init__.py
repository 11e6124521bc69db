"""Visual tokens for the models of transformers, which take them in place of pixels (docs/transformers.md).

This package imports PyTorch and transformers; ``import qwenvis`` does not. Raises PackageError without them, and for a
transformers that is too old.
"""

from qwenvis.errors import PackageError

try:
    from qwenvis.adapters.transformers.inputs import Inputs, inputs, outputs
    from qwenvis.adapters.transformers.language_model import load_language_model
    from qwenvis.adapters.transformers.outputs import TowerOutput
    from qwenvis.adapters.transformers.tower import attach
except ImportError as error:
    raise PackageError(
        f"qwenvis.adapters.transformers needs PyTorch and transformers 5.18 or later: "
        f"pip install torch 'transformers>=5.18' ({error})"
    ) from error

__all__ = ["Inputs", "TowerOutput", "attach", "inputs", "load_language_model", "outputs"]
