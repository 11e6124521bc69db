"""Threads: their number, their tasks, and the values that they share."""
