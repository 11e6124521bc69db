"""The README and the docs: their code blocks, run, and tests of what their pages claim."""
