"""Benchmarks: each prints its table and names its command. They measure, they never assert.

A rate is held against the instruction peak of the same window. Contenders alternate, and medians are reported, because
a shared machine's clock drifts.
"""
