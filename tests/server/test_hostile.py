"""Requests that mean harm, or none: each is refused with a 4xx in words, soon, and reads nothing but itself."""

import base64
import contextlib
import itertools
import json
import struct
import time

import pytest

from made.images import chunk, noise, png
from processes.served import answer_on, form

PICTURE = png(noise(28, 28))
DATA = base64.b64encode(PICTURE).decode()
HEAD = "POST /v1/encode HTTP/1.1\r\nHost: localhost\r\n"
SECRET = "/etc/hostname"


def raw(headers, body=b""):
    """A request whose headers are written by hand."""
    return f"{HEAD}{headers}\r\n".encode("latin-1") + body


def claimed(height, width, data=b""):
    """A PNG file whose header claims a size."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


LENGTHS = {
    f"length {text!r}": raw(f"Content-Length: {text}\r\n", PICTURE)
    for text in ("-1", "0x10", "1e3", "abc", "", " ", "+5", "99999999999999999999", "5, 6", "1.5", "1_0", "٣")
    if text.isascii()
} | {
    "two lengths": raw("Content-Length: 5\r\nContent-Length: 6\r\n", b"abcde"),
    "length and chunks": raw("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "two codings": raw("Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "a chunk of no number": raw("Transfer-Encoding: chunked\r\n", b"xyz\r\nabc\r\n0\r\n\r\n"),
    "a negative chunk": raw("Transfer-Encoding: chunked\r\n", b"-5\r\nabc\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": raw("Transfer-Encoding: chunked\r\n", b"2\r\nabcdef\r\n0\r\n\r\n"),
    "a huge chunk": raw("Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\n"),
    "a compressed body": raw("Content-Encoding: gzip\r\nContent-Length: 3\r\n", b"abc"),
}
HEADERS = {
    "a huge header": raw(f"X-Long: {'x' * 70_000}\r\n"),
    "very many headers": raw("".join(f"X-{i}: {i}\r\n" for i in range(9000))),
    "a huge path": f"GET /{'x' * 70_000} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "a huge query": f"GET /v1/model?{'a=1&' * 5000} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "no host": b"GET /v1/model HTTP/1.1\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    "a header without a name": raw(": x\r\n"),
    "a folded header": raw("X: a\r\n\x00b\r\n"),
}
PATHS = {
    f"{method} {path}": f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
    for method, path in itertools.product(
        ("GET", "POST", "PUT", "DELETE", "TRACE", "PROPFIND"),
        (
            "/../../etc/hostname",
            "/%2e%2e/%2e%2e/etc/hostname",
            "/..%2f..%2fetc%2fhostname",
            "/page/../server/app.py",
            "//etc/hostname",
            "/v1/encode/../../../etc/hostname",
            "/v1/encode;/",
            "/app.py",
            "/.git/config",
            "/%00",
            "http://evil.example/",
            "*",
        ),
    )
}
VALUES = [None, True, False, 0, -1, 1.5, 1e999, "", "x", [], [[]], {}, {"a": 1}, [None], ["x"], [1], [{}], "é" * 300]
JSONS = {
    f"{name} {json.dumps(value)[:40]}": {name: value}
    for name, value in itertools.product(("images", "videos"), VALUES)
    if value not in ([],)
}
JSONS |= {
    f"{kind} data {json.dumps(value)[:40]}": {f"{kind}s": [{"data": value}]}
    for kind, value in itertools.product(("image", "video"), [*VALUES, DATA[:-3], DATA + "!", "AAAA"])
}
JSONS |= {
    f"URL {url[:40]}": {"images": [{"data": url}]}
    for url in (
        "file:///etc/hostname",
        SECRET,
        "../../etc/hostname",
        "http://127.0.0.1:1/x.png",
        "https://evil.example/x.png",
        "ftp://evil.example/x",
        "data:text/html;base64," + DATA,
        "data:image/png," + DATA,
        "data:image/png;base64," + DATA[:-1],
        "data:image/png;charset=x;base64",
        "data:image/png;base64,file:///etc/hostname",
        "\\\\evil.example\\share\\x.png",
        "gopher://evil.example/",
    )
}
JSONS |= {
    f"extra fields {extra}": {"images": [{"data": DATA, **extra}]}
    for extra in ({"path": SECRET}, {"url": "http://evil.example/"}, {"file": SECRET}, {"type": "x"})
}
OPTIONS = ("format", "dtype", "colors", "min_pixels", "max_pixels", "sampling", "fps", "num_frames", "video_fps")
JSONS |= {
    f"{name} {json.dumps(value)[:40]}": {"images": [{"data": DATA}], name: value}
    for name, value in itertools.product(
        (*OPTIONS, "path", "__class__"), (None, -1, [], {}, "x", SECRET, 10**400, 1e999, "../x")
    )
}
TEXTS = {
    f"text {text[:30]!r}": text
    for text in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"\xff\xfe",
        b'{"images": [}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"images": ' + b"9" * 10_000 + b"}",
        b"{'images': []}",
        b'{"images": []}',
        b"{}",
        b'{"images": [{"data": "\\ud800"}]}',
    )
}
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + PICTURE + b"\r\n"
KIND = "multipart/form-data; boundary=b"
FORMS = {
    "no boundary": ("multipart/form-data", PART + b"--b--\r\n"),
    "an empty boundary": ("multipart/form-data; boundary=", PART + b"--b--\r\n"),
    "a long boundary": (f"multipart/form-data; boundary={'b' * 5000}", PART + b"--b--\r\n"),
    "another boundary": ("multipart/form-data; boundary=c", PART + b"--b--\r\n"),
    "no end": (KIND, PART),
    "cut in a header": (KIND, PART[:30]),
    "cut in a file": (KIND, PART[:90]),
    "nothing": (KIND, b""),
    "an end alone": (KIND, b"--b--\r\n"),
    "no name": (KIND, PART.replace(b' name="image";', b"") + b"--b--\r\n"),
    "no headers": (KIND, b"--b\r\n\r\nabc\r\n--b--\r\n"),
    "a header without a colon": (KIND, b"--b\r\nContent-Disposition\r\n\r\nabc\r\n--b--\r\n"),
    "huge headers of a part": (
        KIND,
        PART.replace(b'filename="a"', b'filename="' + b"a" * 100_000 + b'"') + b"--b--\r\n",
    ),
    "many headers of a part": (KIND, PART.replace(b"\r\n\r\n", b"\r\nX: y" * 5000 + b"\r\n\r\n", 1) + b"--b--\r\n"),
    "very many parts": (KIND, PART * 500 + b"--b--\r\n"),
    "very many options": (KIND, b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n' * 5000 + b"--b--\r\n"),
    "a long option": form([("image", "a", PICTURE), ("format", None, b"x" * 100_000)], "b")[::-1],
    "a file as an option": form([("image", None, PICTURE)], "b")[::-1],
    "the name of a file": form([("image", SECRET, b"")], "b")[::-1],
    "a path as an option": form([("path", None, SECRET.encode()), ("image", "a", PICTURE)], "b")[::-1],
}
FORMS = {name: (kind["Content-Type"] if isinstance(kind, dict) else kind, body) for name, (kind, body) in FORMS.items()}
KINDS = {
    kind: (kind, PICTURE)
    for kind in (
        *("text/html", "text/plain", "application/xml", "application/json", "multipart/mixed", "multipart/form-data"),
        *("x", "/", "application/x-tar", "model/gltf+json"),
    )
}
BOMBS = {
    f"{height} x {width}": claimed(height, width)
    for height in (0, 1, 30_000, 2**31 - 1)
    for width in (0, 30_000, 2**31 - 1)
}
BOMBS |= {
    "an image in words": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/hostname'/></svg>",
    "a playlist": b"#EXTM3U\nfile:///etc/hostname\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/hostname\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/hostname) (r) file\n",
    "a path": SECRET.encode(),
    "an archive": b"PK\x03\x04" + bytes(100),
    "zeros": bytes(1_000_000),
    "a pickle": b"\x80\x04cos\nsystem\n.",
}
BOMBS |= {f"cut at {stop}": PICTURE[:stop] for stop in range(1, len(PICTURE) - 20, 97)}


def number_of_cases():
    return sum(map(len, (LENGTHS, HEADERS, PATHS, JSONS, TEXTS, FORMS, KINDS, BOMBS)))


def test_there_are_a_few_hundred():
    assert number_of_cases() > 300


@pytest.fixture(autouse=True)
def unharmed(service):
    """After each group the service still serves, has read no file, and says nothing of this machine."""
    yield
    assert service.ask(body=PICTURE).status == 200
    assert len(service.stderr) == 1, service.stderr


def refused(reply, begun, name):
    """Check the answer to a request."""
    assert 400 <= reply.status < 500, (name, reply)
    assert time.monotonic() - begun < 2, name
    for secret in (b"Traceback", b"site-packages", b".py", b"/tmp", b"/root", b"/home", b"qwenvis-tests"):
        assert secret not in reply.body.replace(b"app.py", b""), (name, reply)
    if reply.headers["content-type"] == "application/json":
        assert reply.error["message"], name


def test_long_headers(service):
    """Those that come at once too, which the parser accepts."""
    for name in ("a huge header", "very many headers", "a huge path", "a huge query"):
        reply = service.send(HEADERS[name])
        assert (reply.status, reply.error["type"]) == (431, "LimitError")


def test_compression_in_a_second_header(service):
    reply = service.send(raw("Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n", b"abc"))
    assert (reply.status, reply.error["type"]) == (415, "MediaTypeError")


@pytest.mark.parametrize("group", [LENGTHS, HEADERS, PATHS], ids=["lengths", "headers", "paths"])
def test_requests_by_hand(service, group):
    for name, sent in group.items():
        begun = time.monotonic()
        refused(service.send(sent), begun, name)


def test_a_body_that_is_damaged_after_its_answer(service):
    """The connection is cut, and the log stays empty (`unharmed`)."""
    with service.connected() as connection:
        connection.sendall(raw("Transfer-Encoding: chunked\r\n").replace(b"/v1/encode", b"/nowhere"))
        assert answer_on(connection).status == 404
        connection.sendall(b"xyz\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_json(service):
    for name, fields in JSONS.items():
        begun = time.monotonic()
        refused(service.ask_json(fields), begun, name)
    for name, body in TEXTS.items():
        begun = time.monotonic()
        refused(service.ask(body=body, headers={"Content-Type": "application/json"}), begun, name)


@pytest.mark.parametrize("group", [FORMS, KINDS], ids=["forms", "types"])
def test_bodies_by_type(service, group):
    for name, (kind, body) in group.items():
        begun = time.monotonic()
        refused(service.ask(body=body, headers={"Content-Type": kind}), begun, name)


def test_images(service):
    for name, body in BOMBS.items():
        begun = time.monotonic()
        refused(service.ask(body=body), begun, name)
