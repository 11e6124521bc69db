"""A job: its arguments, its beginning, and its runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import SupportsIndex, Unpack

from qwenvis.concurrency import malloc
from qwenvis.encoder import Encoder
from qwenvis.encoding.runner import Runner
from qwenvis.errors import InputError, shown
from qwenvis.io.files import expanded, given_path
from qwenvis.jobs import manifest, roster
from qwenvis.jobs.folder import Folder, sha256
from qwenvis.jobs.inputs.listing import Listing
from qwenvis.jobs.parts import PartWriter
from qwenvis.jobs.pipeline import Pipeline, Summary, Told
from qwenvis.jobs.roster import Share
from qwenvis.jobs.settings import SHARD_SIZE, Output, Settings
from qwenvis.jobs.survey import Progress, Survey
from qwenvis.videos.video import Sampling


def run(
    encoder: Encoder | Callable[[], Encoder],
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    *,
    include: Iterable[str] = (),
    column: str | None = None,
    to: str = "safetensors",
    dtype: object = "float32",
    shard_size: SupportsIndex = SHARD_SIZE,
    share: tuple[int, int] = (0, 1),
    retry_failed: bool = False,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    verified: Progress = lambda done, total: None,
    told: Told = lambda record, done, total: None,
    **sampling: Unpack[Sampling],
) -> Summary:
    """Encode images and videos into a directory, or continue the job that is there.

    - ``encoder``: or a function that loads it, which is called once the other arguments are checked.
    - ``inputs``: each a file, a directory, a glob, ``@FILE`` with a name in each line, ``-`` for names on standard
      input, or a ``.jsonl``, ``.parquet`` or ``.tar`` file (docs/jobs.md).
    - ``include``: patterns that choose the files of directories and tars; ``column``: the column of Parquet files.
    - ``to``: "safetensors" or "parquet"; ``dtype``: "float32", "float16" or "bfloat16", in which tokens are stored;
      ``shard_size``: the most bytes of tokens in a shard, unless one item has more.
    - ``share``: (i, n): this is process i of n, counted from 0, and encodes about an n-th of the items.
    - ``retry_failed``: try all failed items again; by default those whose bytes have changed since.
    - ``min_pixels``, ``max_pixels``, ``sampling``: as in `Encoder.encode`.
    - ``verified(done, total)``: called while the shards that exist are verified.
    - ``told(record, done, total)``: called with the line of the manifest of each item that this run has tried.

    Items that cannot be used are recorded, and do not end the run. Raises InputError for arguments, for inputs that
    cannot be listed, for a directory that cannot be written or holds a job with other settings or items; PackageError
    if an input needs a package, and ConfigError if the checkpoint has no processor for an item.
    """
    output, mine = Output.checked(to, dtype, shard_size), Share.checked(*share)
    folder = Folder(expanded(str(given_path(directory, "directory"))), mine)
    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    listing = Listing(list(map(os.fsdecode, given)), tuple(include), column, folder.directory.resolve())
    listing.refuse_missing()
    folder.refuse_other_files()
    malloc.keep_little()  # at best before threads read the weights
    loaded = encoder if isinstance(encoder, Encoder) else encoder()
    runner = Runner(loaded.spec, loaded.threads, loaded.cache)
    call = runner.inputs(sampling, min_pixels, max_pixels, runner.keying())
    here = Settings.of(loaded, call, sampling, output)
    sampled = any(value is not None for value in sampling.values())
    pipeline = Pipeline(runner, call, folder, mine, output, sampled, told)
    with folder.opened():
        return _run(listing, here, pipeline, retry_failed, verified)


def _run(listing: Listing, here: Settings, pipeline: Pipeline, retry_failed: bool, verified: Progress) -> Summary:
    """Do what is left of the share, and complete the job if nothing else is left."""
    folder, output = pipeline.folder, pipeline.output
    with folder.writing():
        job = _begin(folder, listing, here)
    survey = Survey(folder, pipeline.share, pipeline.runner.threads, retry_failed)
    gaps = survey.gaps(job.items, verified)
    summary = Summary(job.items, job.repeated, failures=survey.failures)
    if gaps:
        with folder.writing():
            folder.manifest.unlink(missing_ok=True)  # its lines will not fit the shards
            folder.index.unlink(missing_ok=True)
        pipeline.fill(gaps, PartWriter(folder, output.format, job.provenance, output.shard_size), summary)
    with folder.writing():
        summary.complete = manifest.join(folder, job.items)
    if summary.complete:
        folder.remove_abandoned()
    return summary


def _begin(folder: Folder, listing: Listing, here: Settings) -> Settings:
    """List the items and write job.json, or compare both with those of the job that is there."""
    _job_there(folder, here)
    listed = folder.drafts / folder.items.name
    items, repeated = roster.write(listing, listed)
    if (job := _job_there(folder, here)) is not None:  # perhaps of another share, which began meanwhile
        if sha256(folder.items) != job.list_sha256:
            raise InputError(f"{shown(str(folder.items))} was changed, so the job cannot be continued")
        roster.refuse_new(folder.items, listed)
        return job
    job = replace(here, items=items, repeated=repeated, list_sha256=sha256(listed))
    folder.place(listed, folder.items)
    draft = folder.drafts / folder.job.name
    job.save(draft)
    folder.place(draft, folder.job)
    return job


def _job_there(folder: Folder, here: Settings) -> Settings | None:
    """Return the job that is there, if there is one. Raises InputError if it has other settings."""
    if not folder.job.is_file():
        return None
    job = Settings.load(folder.job)
    job.refuse_others(here, folder.directory)
    return job
