"""Benchmarks: each prints a table and the command that produced it. Benchmarks measure, and never assert.

A rate is compared with the instruction peak of the same window. Contenders alternate, and medians are reported, because
a shared machine's clock drifts.
"""
