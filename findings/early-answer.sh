#!/usr/bin/env bash
# uvicorn: an answer that is sent before the body was read does not reach a client that asked to close the connection.
#
# Guess: an application may answer 413 or 404 as soon as it has seen the headers, and any HTTP client then reads that
# answer: the server sends it, and the rest of the body is its own affair.
# Found: with `Connection: close`, which urllib of Python always sends, uvicorn closes the socket right after the answer
# while bytes of the body are still unread. The kernel then resets the connection, and the reset overtakes the answer:
# the client fails to write, or to read, and never learns the status. Without that header the connection stays open, the
# body is read to its end, and the same answer arrives. The application has to read the body, or to linger, itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uvicorn==0.54.0 h11==0.16.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import http.client
import socket
import threading
import time

import uvicorn


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"big"})


listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, http="h11", lifespan="off", log_level="error"))
threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
while not server.started:
    time.sleep(0.01)


def outcome(headers):
    client = http.client.HTTPConnection(*listener.getsockname(), timeout=20)
    try:
        client.request("POST", "/", b"x" * (64 << 20), headers)
        return client.getresponse().status
    except (ConnectionError, http.client.BadStatusLine):
        return "no answer"
    finally:
        client.close()


print("uvicorn", uvicorn.__version__)
found = {name: {outcome(headers) for _ in range(10)} for name, headers in (("keep-alive", {}), ("close", {"Connection": "close"}))}
for name, outcomes in found.items():
    print(f"Connection: {name}, 10 requests of 64 MiB:", *outcomes)
assert found == {"keep-alive": {413}, "close": {"no answer"}}
server.should_exit = True
PYTHON
# Seen:
# uvicorn 0.54.0
# Connection: keep-alive, 10 requests of 64 MiB: 413
# Connection: close, 10 requests of 64 MiB: no answer
