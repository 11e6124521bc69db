"""The layout of the code: the table of rooms, readers of source files, and tests of source, wheels and benchmarks."""
