"""Every limit, as a status and in words, and nothing slower than its limit."""

import contextlib
import struct
import time

import numpy as np
import pytest
from PIL import Image

from made import video_files
from made.images import chunk, encoded, noise, png
from made.presets import checkpoint
from processes.served import answer_on, form, served

PICTURE = png(noise(60, 60))
HEAD = b"POST /v1/encode HTTP/1.1\r\nHost: localhost\r\n"


def film(count, fps, height=32, width=32):
    return video_files.encoded(video_files.frames(count, height, width), fps=fps)


def header_of(height, width):
    """A PNG file that claims a size, and holds no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "query", "kind", "words"),
    [
        (b"x" * 3_000_001, "", "LimitError", "the body is larger than 3,000,000 bytes, the limit"),
        (
            header_of(1001, 1000),
            "",
            "ImageLimitError",
            "image 0 is 1001 x 1000; this service decodes at most 1,000,000",
        ),
        (header_of(60_000, 60_000), "", "ImageLimitError", "3,600,000,000 pixels"),
        (encoded(Image.new("RGB", (990, 990))), "", "ImageLimitError", "patches; this service encodes at most 3,000"),
        (film(81, 30), "", "VideoLimitError", "video 0 has 81 frames; this service reads at most 80"),
        (film(30, 3), "", "VideoLimitError", "lasts 10 seconds; this service reads at most 8 seconds"),
        (film(40, 30, 240, 240), "?sampling=all", "VideoLimitError", "patches; this service encodes at most 3,000"),
    ],
)
def test_large(service, body, query, kind, words):
    reply = service.ask(f"/v1/encode{query}", body)
    assert (reply.status, reply.error["type"]) == (413, kind)
    assert words in reply.error["message"]


def test_many_items(service):
    reply = service.ask("/v1/encode", *form([("image", "a", PICTURE)] * 9))
    assert (reply.status, reply.error["message"]) == (413, "the request holds 9 items; at most 8 are encoded")
    many = form([("image", "a", b"")] * 50)
    assert service.ask("/v1/encode", *many).status == 413


def test_a_body_is_counted_whatever_its_headers_say(service):
    """Chunks have no length in advance."""
    with service.connected() as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            connection.sendall(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
        assert answer_on(connection).status == 413


def test_a_length_above_the_limit_is_refused_before_the_body_comes(service):
    reply = service.send(HEAD + b"Content-Length: 3000001\r\n\r\n")
    assert (reply.status, reply.error["type"]) == (413, "LimitError")


@pytest.mark.parametrize(("path", "status"), [("/v1/encode", 413), ("/nowhere", 404), ("/v1/model", 405)])
def test_an_answer_to_a_client_that_still_sends(service, path, status):
    """The connection stays until its client has read why the request is refused, also if it sends first."""
    reply = service.ask(path, b"x" * 20_000_000, {"Connection": "close"})
    assert reply.status == status


def test_a_slow_body(service):
    begun = time.monotonic()
    with service.connected() as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nabc")
        reply = answer_on(connection)
    assert (reply.status, reply.error["type"]) == (408, "TimeoutError")
    assert reply.error["message"] == "3 bytes of the body came in 1 second, and not the rest"
    assert 1 <= time.monotonic() - begun < 3


def test_slow_headers(service):
    """The connection is cut, as there is no request to answer."""
    begun = time.monotonic()
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(service.connected()) for _ in range(3)]
        for connection, sent in zip(connections, (b"", b"POST /v1/encode HT", HEAD), strict=True):
            connection.sendall(sent)
        assert [connection.recv(100) for connection in connections] == [b""] * 3
    assert 0.9 <= time.monotonic() - begun < 3


def test_a_client_that_does_not_read():
    """Its answer, which no buffer of the system holds, is dropped, and its memory is free again."""
    body, headers = form([("image", "a", png(np.zeros((420, 300, 3), np.uint8)))] * 50)
    kind = headers["Content-Type"].encode()
    sent = HEAD + b"Content-Length: %d\r\nContent-Type: %s\r\n\r\n" % (len(body), kind) + body
    deep = checkpoint("qwen3_vl")  # with the longest tokens
    with served("--threads", 1, "--read-seconds", 1, model=deep) as service, service.connected() as connection:
        connection.sendall(sent)
        while service.metric("qwenvis_items_total") < 50:
            time.sleep(0.05)
        time.sleep(0.3)
        assert service.metric("qwenvis_held_bytes") > len(body)
        for _ in range(100):
            if service.metric("qwenvis_held_bytes") == 0:
                return
            time.sleep(0.1)
    raise AssertionError("the answer is still in memory")


def test_waiting():
    """Behind a picture that takes some seconds, others are told to come again."""
    large = png(noise(1400, 1400))
    with served("--threads", 1, "--wait-seconds", 1) as service, service.connected() as first:
        first.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(large) + large)
        while service.metric("qwenvis_held_bytes") < 2 * len(large):
            time.sleep(0.01)
        time.sleep(0.3)
        begun = time.monotonic()
        reply = service.ask(body=PICTURE)
        assert (reply.status, reply.error["type"]) == (503, "UnavailableError")
        assert int(reply.headers["retry-after"]) >= 1
        assert 1 <= time.monotonic() - begun < 3


def test_requests_at_once():
    with served("--threads", 1, "--max-requests", 1) as service:
        with service.connected() as connection:
            connection.sendall(HEAD + b"Content-Length: 5\r\n\r\n")
            time.sleep(0.2)
            reply = service.ask(body=PICTURE)
            assert (reply.status, reply.error["type"]) == (429, "BusyError")
            assert int(reply.headers["retry-after"]) >= 1
            assert service.ask("/ready").status == 503
        time.sleep(0.2)
        assert service.ask(body=PICTURE).status == 200


def test_a_request_that_never_fits():
    with served("--threads", 1, "--memory", "1MB") as service:
        reply = service.ask(body=png(noise(420, 420)))
        assert (reply.status, reply.error["type"]) == (413, "LimitError")
        assert "bytes of memory; this service has 1,000,000" in reply.error["message"]
