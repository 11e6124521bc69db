"""Bulk jobs: images and videos encoded into a directory by runs that may be killed and continued (docs/jobs.md).

>>> from qwenvis import jobs
>>> jobs.run(encoder, "photos/", "tokens/")
>>> jobs.open("tokens/")["photos/cat.jpg"].embeddings
"""

from qwenvis.jobs.job import run
from qwenvis.jobs.pipeline import Summary
from qwenvis.jobs.results import Results, open

__all__ = ["Results", "Summary", "open", "run"]
