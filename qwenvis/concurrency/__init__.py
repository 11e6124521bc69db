"""Threads: how many, what runs on them, and values that they share."""
