"""Preprocessor configs: the sizes, pixel values and frames that a checkpoint wants."""
