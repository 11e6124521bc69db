"""The way of a request's items through the service: planned, held against the limits, decoded, encoded, joined."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from qwenvis.embeddings import Embeddings
from qwenvis.encoder import Encoder
from qwenvis.encoding.inputs import InputItem, Inputs
from qwenvis.encoding.items import Call
from qwenvis.encoding.runner import Runner
from qwenvis.errors import ImageLimitError, LimitError, VideoLimitError, counted
from qwenvis.io.signatures import HEAD, video_container
from qwenvis.server.batcher import Batcher, Encoded
from qwenvis.server.metrics import Metrics
from qwenvis.server.requests.body import Content, Upload
from qwenvis.server.requests.limits import Account, Limits, Memory
from qwenvis.server.requests.options import Options
from qwenvis.server.requests.refusals import Refusal
from qwenvis.videos.animation import format_of
from qwenvis.videos.video import VideoItem

COPIES = 4  # how many times tokens are in memory until they are sent: of the batch, of the item, joined, and as a file
MOST_SECONDS = 120  # that a client is told to wait before it tries again


@dataclass(frozen=True)
class Result:
    """The tokens of a request.

    - ``shown``: (items, 2) int64, the (height, width) of each picture after resizing, without padding.
    - ``queue_seconds``, ``encode_seconds``: until the first item was begun, and from then until the last one was done.
    """

    out: Embeddings
    shown: np.ndarray
    queue_seconds: float
    encode_seconds: float


class Service:
    """An encoder that many requests share.

    - ``encoder``, ``name``: the encoder, and the name of its checkpoint, which tells no path.
    - ``limits``, ``memory``: what requests may take.
    - ``metrics``: what is counted.
    """

    def __init__(self, encoder: Encoder, name: str, limits: Limits) -> None:
        """Take a loaded encoder. Its weights are hashed here, so that no request waits for that."""
        self.encoder, self.name, self.limits = encoder, name, limits
        self.memory, self.metrics = Memory(limits), Metrics()
        self.metrics.memory.set_function(lambda: self.memory.held)
        self._runner = Runner(encoder.spec, encoder.threads, encoder.cache)
        self._keying = self._runner.keying()
        str(self._keying.identity)
        columns = self._runner.inputs({}, None, None).columns
        self.batcher = Batcher(self._runner, Call(self._keying), columns, self.metrics)
        self._decoders = ThreadPoolExecutor(encoder.threads + 1, "decode")
        self._videos = asyncio.Semaphore(encoder.threads)  # so that one thread is always there for images
        config = encoder.config
        tokens = 4 * config.out_hidden_size * (1 + len(config.deepstack)) / config.merge_unit
        self._bytes_of_patch = columns + math.ceil(COPIES * tokens)

    def start(self) -> None:
        """Start to encode."""
        self.batcher.start()

    def close(self) -> None:
        """Encode what was accepted, and end all threads."""
        self.batcher.close()
        self._decoders.shutdown()

    @property
    def ready(self) -> bool:
        """Whether a small request would be accepted now."""
        return self.batcher.running and not self.memory.full

    @property
    def retry_seconds(self) -> int:
        """The whole seconds after which a request that was turned away may succeed."""
        return min(max(1, math.ceil(self.batcher.expected_wait())), MOST_SECONDS)

    async def encode(self, content: Content, account: Account) -> Result:
        """Return the tokens of all items, in order, in the dtype that the request asks for.

        Raises the errors of `Encoder.encode`, with the position of the item in the request as ``index``; Refusal if
        there is no memory for the items, or if they wait too long.
        """
        deadline = asyncio.get_running_loop().time() + self.limits.wait_seconds
        try:
            async with asyncio.timeout_at(deadline):
                inputs, items = await self._prepared(content, account)
        except TimeoutError:
            raise self._late() from None
        encoded = await self._encoded(items, deadline)
        out = await asyncio.to_thread(self._joined, encoded, inputs, items, content.options)
        first = min(encoded, key=lambda each: each.begun)
        last = max(each.ended for each in encoded)
        shown = np.array([item.item.resized.content for item in items], np.int64)
        return Result(out, shown, first.begun - first.since, last - first.begun)

    async def _prepared(self, content: Content, account: Account) -> tuple[Inputs, list[InputItem]]:
        """Read the headers of all items, then decode them: what cannot be used is found before anything is encoded."""
        options, items = content.options, []
        inputs = self._runner.inputs(options.sampling, options.min_pixels, options.max_pixels, self._keying)
        for number, upload in enumerate(content.uploads):
            item = await asyncio.to_thread(self._planned, inputs, upload, number, options)
            account.add(math.prod(item.grid) * self._bytes_of_patch)
            items.append(item)
        inputs.check_sampling(items)
        for item in items:
            await self._decoded(item)
        return inputs, items

    async def _decoded(self, item: InputItem) -> None:
        """Decode an item. A video keeps its thread from other videos until it is decoded, even if it is given up."""
        loop, is_video = asyncio.get_running_loop(), isinstance(item.item, VideoItem)
        if is_video:
            await self._videos.acquire()
        decoding = self._decoders.submit(item.settle)
        if is_video:
            decoding.add_done_callback(lambda _: loop.call_soon_threadsafe(self._videos.release))
        await asyncio.wrap_future(decoding)

    def _late(self) -> Refusal:
        seconds = counted(self.limits.wait_seconds, "second")
        return Refusal(503, f"in {seconds} no item of the request was encoded: others came before, or decoding is slow")

    def _planned(self, inputs: Inputs, upload: Upload, number: int, options: Options) -> InputItem:
        """Read the header of an item. Raises its error, also for an item that is larger than a limit."""
        sampled = bool(options.sampling) and not upload.kind
        moving = video_container(bytes(upload.content[:HEAD])) or (sampled and format_of(upload.content) is not None)
        plan = inputs.video_or_still if upload.kind == "video" or (moving and not upload.kind) else inputs.image
        item = plan(upload.content, number)
        if reason := self._excess(item):
            kind: type[LimitError] = VideoLimitError if isinstance(item.item, VideoItem) else ImageLimitError
            error = kind(f"{item.place.source} {reason}")
            item.place.mark(error)
            raise error
        return item

    def _excess(self, item: InputItem) -> str:
        """Return in words which limit an item exceeds, or nothing."""
        limits, (height, width), patches = self.limits, item.size, math.prod(item.grid)
        if height * width > limits.max_image_pixels:
            return f"is {height} x {width}; this service decodes at most {limits.max_image_pixels:,} pixels"
        if isinstance(item.item, VideoItem):
            length = item.item.video.length
            if length.frames > limits.max_video_frames:
                return f"has {length.frames:,} frames; this service reads at most {limits.max_video_frames:,}"
            if length.duration is not None and length.duration > limits.max_video_seconds:
                most = counted(limits.max_video_seconds, "second")
                return f"lasts {length.duration:,.0f} seconds; this service reads at most {most}"
        if patches > limits.max_patches:
            remedy = "a smaller max_pixels, or fewer frames"
            return f"has {patches:,} patches; this service encodes at most {limits.max_patches:,}: pass {remedy}"
        return ""

    async def _encoded(self, items: list[InputItem], deadline: float) -> list[Encoded]:
        """Encode items that are decoded. Raises Refusal if none of them is begun in time, and the error of an item.

        If it raises, or is cancelled, the items that are not begun leave the queue.
        """
        futures = [self.batcher.submit(item) for item in items]
        waiting = [asyncio.wrap_future(future) for future in futures]
        try:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            if not any(future.running() or future.done() for future in futures):
                raise self._late()
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
            if errors := [error for future in done if (error := future.exception()) is not None]:
                raise errors[0]
            return [future.result() for future in waiting]
        finally:
            for each in waiting:
                each.cancel()

    def _joined(self, encoded: list[Encoded], inputs: Inputs, items: list[InputItem], options: Options) -> Embeddings:
        """Join the items of a request into a result like that of `Encoder.encode`."""
        parts = [each.out for each in encoded]
        out = Embeddings.concatenate(parts) if len(parts) > 1 else parts[0]
        facts = {**out.provenance, **inputs.provenance(items), "source": self.name}
        return out._with(provenance=facts).astype(options.dtype)
