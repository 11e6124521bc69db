"""Bulk jobs: their inputs, what they write, and how they go on after an accident."""
