"""A source, as a caller names it, becomes the path of a checkpoint."""
