"""The end of a service: it accepts nothing more, answers what it has accepted, and exits with 0."""

import contextlib
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors.numpy import load
from starlette.applications import Starlette

from made.images import noise, png
from made.presets import checkpoint, same_bits
from processes.served import answer_on, served
from qwenvis import cli
from qwenvis.errors import InputError
from qwenvis.server.requests.limits import Limits
from qwenvis.server.run import bound, serve

CLIENTS = 16
PICTURE = png(noise(300, 420))


def request(body):
    return b"POST /v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def test_accepted_requests_are_answered(encoder):
    """Requests in the queue, one whose body is still on its way, and clients that go on asking."""
    expected = encoder.encode([PICTURE]).embeddings
    with served("--threads", 1) as service, contextlib.ExitStack() as opened:
        *waiting, late = (opened.enter_context(service.connected()) for _ in range(CLIENTS + 1))
        for connection in waiting:
            connection.sendall(request(PICTURE))
        late.sendall(request(PICTURE)[:-1000])
        while service.metric("qwenvis_held_bytes") < (CLIENTS + 1) * len(PICTURE):
            time.sleep(0.005)
        outcomes = []
        asking = [threading.Thread(target=ask_on, args=(service, outcomes)) for _ in range(4)]
        for thread in asking:
            thread.start()
        time.sleep(0.05)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        late.sendall(request(PICTURE)[-1000:])
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            for reply in pool.map(answer_on, [*waiting, late]):
                assert reply.status == 200
                assert same_bits(load(reply.body)["embeddings"], expected)
        assert service.process.wait(timeout=30) == 0
        for thread in asking:
            thread.join()
        assert set(outcomes) <= {200, "refused"}
        assert "refused" in outcomes


def ask_on(service, outcomes):
    """Ask again and again, until the service accepts nothing more."""
    while True:
        try:
            outcomes.append(service.ask(body=PICTURE).status)
        except (ConnectionError, OSError):
            outcomes.append("refused")
            return


def test_an_idle_service_ends_at_once():
    with served("--threads", 1) as service, service.connected():
        begun = time.monotonic()
        assert service.end() == 0
        assert time.monotonic() - begun < 3


def test_an_interrupt_is_told():
    with served("--threads", 1) as service:
        assert service.end(signal.SIGINT) == 130


def test_a_port_that_is_taken(service, capsys):
    assert cli.main(["serve", "--model", str(checkpoint()), "--port", str(service.port)]) == 1
    assert f"127.0.0.1 port {service.port} cannot be listened on: Address already in use" in capsys.readouterr().err


def test_a_port_that_is_taken_while_the_model_is_read():
    """Two sockets may have one address until one of them listens."""
    with bound("127.0.0.1", 0) as first, bound("127.0.0.1", first.getsockname()[1]) as second:
        first.listen()
        with pytest.raises(InputError, match=r"127\.0\.0\.1 port \d+ cannot be listened on: Address already in use"):
            serve(Starlette(), second, Limits(), lambda: None)
