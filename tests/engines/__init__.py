"""Tests that need an engine, each in an environment of its own; the default suite leaves them out."""
