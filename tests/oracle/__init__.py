"""The expected results: the towers in float64, transformers' own classes, and the tolerances."""
