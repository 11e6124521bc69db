"""A service in a process of its own, on a free port of the loopback interface, and clients that ask it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from made.presets import checkpoint
from processes.programs import launch

PROGRAM = "from qwenvis.cli import main; sys.exit(main(sys.argv[1:]))"
STARTED = re.compile(r"serving on http://[\w.\[\]:]+:(\d+)")
TIMEOUT = 60


class Reply(NamedTuple):
    """The status, the headers in lower case and the body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of an answer that holds nothing else."""
        assert self.json.keys() == {"error"}
        assert self.json["error"].keys() == {"type", "message", "item"}
        return self.json["error"]


@dataclass
class Served:
    """A running service."""

    port: int
    process: Any
    stderr: list[str]

    def ask(
        self,
        path: str = "/v1/encode",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
    ) -> Reply:
        """Send a request on a connection of its own: a POST if there is a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
            return read_reply(connection.getresponse())
        finally:
            connection.close()

    def send(self, data: bytes) -> Reply:
        """Send bytes as they are, and no more; return the answer."""
        with self.connected() as connection:
            connection.sendall(data)
            return answer_on(connection)

    def ask_json(self, fields: Any, path: str = "/v1/encode", **headers: str) -> Reply:
        """Send JSON."""
        return self.ask(path, json.dumps(fields).encode(), {"Content-Type": "application/json", **headers})

    def connected(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self.ask("/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=TIMEOUT)


def read_reply(answer: http.client.HTTPResponse) -> Reply:
    """Read an answer to its end."""
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(answer.status, headers, answer.read())


def answer_on(connection: socket.socket) -> Reply:
    """Read an answer on a connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return read_reply(answer)


@contextmanager
def served(*options: object, model: object = None, **environment: str) -> Iterator[Served]:
    """Start a service of the tiny Qwen2-VL, or of another model; end it with the block."""
    given = ["serve", "--model", model or checkpoint(), "--port", 0, *options]
    with launch(PROGRAM, *given, **environment) as process:
        stderr: list[str] = []
        started = threading.Event()

        def listen() -> None:
            for line in process.stderr:
                stderr.append(line)
                if STARTED.search(line):
                    started.set()
            started.set()

        reader = threading.Thread(target=listen)
        reader.start()
        try:
            assert started.wait(TIMEOUT), "the service does not start"
            found = STARTED.search("".join(stderr))
            assert found, "".join(stderr)
            yield Served(int(found[1]), process, stderr)
        finally:
            process.kill()
            reader.join()


def form(parts: list[tuple[str, str | None, bytes]], boundary: str = "b0undary") -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a form: of each part the field, the name of its file, and its content."""
    body = b""
    for name, file, content in parts:
        named = f'; filename="{file}"' if file is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}
