"""Benchmarks: each prints its table and names its command. They measure, they never assert.

Every figure is a ratio to something that ran in the same window: contenders and the instruction peak alternate, and
medians are reported, because a shared machine's clock drifts.
"""
