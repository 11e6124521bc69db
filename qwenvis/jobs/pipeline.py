"""The pipeline of a run: what is left of a job is read, prepared, encoded and written, all at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from typing import Any, cast

from qwenvis.concurrency import tasks
from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.rules import DTYPES
from qwenvis.encoding.inputs import InputItem, Inputs
from qwenvis.encoding.runner import Runner
from qwenvis.encoding.stream import grouped, stream_results
from qwenvis.errors import ImageError, InputError, QwenvisError, spoils_one_item
from qwenvis.geometry import PATCH_BUDGET
from qwenvis.jobs import roster
from qwenvis.jobs.folder import Folder
from qwenvis.jobs.inputs.entries import Entry
from qwenvis.jobs.inputs.payloads import Payload, Reader
from qwenvis.jobs.parts import Part, PartWriter, Record, read_kept
from qwenvis.jobs.roster import Share
from qwenvis.jobs.settings import Output
from qwenvis.jobs.survey import Gap
from qwenvis.videos.animation import format_of
from qwenvis.videos.video import VideoItem

# Patches of an item that is prepared while the tower is busy; of larger items, memory never holds two. A photo at
# 1024 x 1024 has up to 5,300.
BESIDE = 2 * PATCH_BUDGET

AHEAD = 8  # items whose bytes are read before their turn

Told = Callable[[Record, int, int], None]
Result = tuple[Payload, InputItem | None, "Embeddings | QwenvisError"]


@dataclass
class Summary:
    """What a run did, and the state of the job after it.

    - ``items``, ``repeated``: the items of the job, and the names that the inputs listed again, which count once.
    - ``encoded``, ``failed``, ``tokens``: the items and tokens of this run; ``cached`` of the items were in the cache.
    - ``failures``: the failed items of this share, those of earlier runs included.
    - ``complete``: whether every item of the job has been tried, by this run or by others.
    """

    items: int
    repeated: int
    encoded: int = 0
    failed: int = 0
    tokens: int = 0
    cached: int = 0
    failures: int = 0
    complete: bool = False


@dataclass(frozen=True)
class Pipeline:
    """The pipeline: while the tower encodes, bytes are read, the next items prepared, and the last shard written."""

    runner: Runner
    call: Inputs
    folder: Folder
    share: Share
    output: Output
    sampled: bool  # whether an argument chooses the frames of videos: animated images are videos then
    told: Told

    def fill(self, gaps: Sequence[Gap], writer: PartWriter, summary: Summary) -> None:
        """Encode what is to do in the gaps, and write it between the items that are there."""
        total = sum(len(gap.todo) for gap in gaps)
        results = self._results(tasks.run_ahead(self._reads(gaps), AHEAD))
        try:
            for gap in gaps:
                kept = dict(self._kept(gap))
                writer.begin(gap.start, gap.others)
                for position in range(gap.start, gap.stop):
                    if position in kept:
                        writer.add(*kept.pop(position))
                    else:
                        record = writer.add(*self._outcome(next(results), summary))
                        self.told(record, summary.encoded + summary.failed, total)
                writer.end()
            writer.finish()
        finally:
            results.close()
            with suppress(QwenvisError):
                writer.finish()

    def _reads(self, gaps: Sequence[Gap]) -> Iterator[Callable[[], Payload]]:
        """Yield for each item to encode a function that reads it."""
        reader, coming = Reader(), iter(gaps)
        gap = next(coming, None)
        for position, lines in roster.blocks(self.folder.items, self.share):
            if gap is not None and gap.start < position + len(lines):
                for number in gap.todo:
                    yield partial(reader.read, Entry.parse(lines[number - position]), number)
                gap = next(coming, None)

    def _results(self, payloads: Generator[Payload, None, None]) -> Generator[Result, None, None]:
        """Yield the results of items in order; items of different blocks do not share a forward pass."""
        waiting: deque[tuple[Payload, list[InputItem]]] = deque()

        def planned(payload: Payload) -> InputItem:
            waiting.append((payload, []))
            item = self._item(payload)
            waiting[-1][1].append(item)
            return item

        blocks = (block for _, block in groupby(payloads, lambda payload: roster.block_of(payload.position)))
        factories = (map(partial(partial, planned), block) for block in blocks)
        groups = chain.from_iterable(grouped(self.call, block, self._group) for block in factories)
        begin = partial(self.runner.begin, self.call)
        results = stream_results(self.call, groups, begin, BESIDE, self.runner.threads)
        try:
            for result in results:
                payload, items = waiting.popleft()
                yield payload, items[0] if items else None, result
        finally:
            results.close()
            payloads.close()

    @property
    def _group(self) -> int:
        """The most patches that the items of a group have: half a shard at most, since a kill loses the group too."""
        config = self.runner.spec.config
        token = config.out_hidden_size * (1 + len(config.deepstack)) * DTYPES[self.output.dtype].itemsize
        return int(min(PATCH_BUDGET, self.output.shard_size // (2 * token) * config.merge_unit))

    def _item(self, payload: Payload) -> InputItem:
        """Plan an item. Raises its error."""
        if payload.error is not None or payload.content is None:
            raise payload.error or ImageError(f"{payload.entry.source} has no content")
        animated = self.sampled and not payload.entry.kind and format_of(payload.content) is not None
        make = self.call.video if payload.kind == "video" or animated else self.call.image
        item = make(cast(Any, payload.content), payload.position)
        item.place = replace(item.place, source=payload.entry.source)
        return item

    def _outcome(self, found: Result, summary: Summary) -> tuple[Record, Embeddings | None]:
        """Return the record and the tokens of an item, or the record of its error. Raises errors that end the run."""
        payload, planned, result = found
        if isinstance(result, QwenvisError):
            if not spoils_one_item(result):
                raise result
            return self._failed(payload, result, summary)
        try:
            item = result.astype(self.output.dtype)
        except InputError as error:  # a value is outside the range of the dtype
            return self._failed(payload, error, summary)
        summary.encoded += 1
        summary.tokens += len(item.embeddings)
        summary.cached += planned is not None and planned.hit
        record = _record(payload, item)
        video = planned.item if planned is not None else None
        if isinstance(video, VideoItem) and video.damaged:
            record["damaged_frames"] = video.damaged
        return record, item._with(sources=[payload.entry.source])

    def _failed(self, payload: Payload, error: QwenvisError, summary: Summary) -> tuple[Record, None]:
        """Count an item that cannot be used; return its record."""
        summary.failed += 1
        summary.failures += 1
        return _record(payload, None, payload.reason(error)), None

    def _kept(self, gap: Gap) -> Iterator[tuple[int, tuple[Record, Embeddings | None]]]:
        """Yield the position, record and item of what was encoded before."""
        folder, todo = self.folder, set(gap.todo) if gap.parts else ()
        for first in gap.parts:
            part = Part.load(folder.table(first))
            for position, kept in enumerate(read_kept(folder, self.output.format, part), first):
                if position not in todo:
                    yield position, kept


def _record(payload: Payload, item: Embeddings | None, error: str | None = None) -> Record:
    """Return the line of the manifest of an item, whose place in a shard is not known yet."""
    return {
        "source": payload.entry.source,
        "size": None if item is None else item.sizes[0].tolist(),
        "grid": None if item is None else item.grid_thw[0].tolist(),
        "tokens": None if item is None else len(item.embeddings),
        "shard": None,
        "offset": None,
        "key": None if item is None else item.keys[0],
        "sha256": payload.sha256,
        "error": error,
    }
