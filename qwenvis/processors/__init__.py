"""Preprocessor configs: sizes, pixel values and frames that a checkpoint asks for."""
