"""Make torchvision's wheel importable beside a torch for CPUs, in every process of vLLM, which imports both.

The compiled operations of torchvision do not load there. Those that its import needs are declared, without code, right
before it; no processor calls them. The declaration waits for the import, because torch takes seconds.
"""

import sys
from importlib.metadata import version

OPERATIONS = ("nms", "qnms")


class Declaring:
    """A finder of modules that finds none, and declares the operations when torchvision is looked for."""

    library = None

    def find_spec(self, name, path=None, target=None):
        """Return None: the next finder finds the module."""
        if name == "torchvision" and self.library is None:
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for operation in OPERATIONS:
                self.library.define(f"{operation}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


if version("torch").endswith("+cpu") and not version("torchvision").endswith("+cpu"):
    sys.meta_path.insert(0, Declaring())
