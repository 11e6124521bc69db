"""The formats of checkpoints: configs, and tensors by name."""
