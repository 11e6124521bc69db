"""A number format compared with float32, or the package with transformers, on images of one's own (docs/models.md)."""

from qwenvis.comparison.comparison import compare
from qwenvis.comparison.deviation import Deviation
from qwenvis.comparison.results import Comparison, ItemComparison

__all__ = ["Comparison", "Deviation", "ItemComparison", "compare"]
