#!/usr/bin/env bash
# A download of huggingface_hub whose connection breaks: it resumes, though not from the byte that had arrived.
#
# Guess: with a server that honours ranges, `hf_hub_download` continues a broken transfer where it stopped, so that a
# file of 24 MB takes 24 MB of traffic, however often the line breaks.
# Found: bytes are written in chunks of 10 MiB, and what has arrived of a chunk is dropped when the connection breaks.
# So every break costs up to 10 MiB of traffic again.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet huggingface_hub==2.4.0
cat > "$work/resume.py" <<'PYTHON'
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SIZE, AFTER = 24_000_000, 18_000_000  # bytes of the file, and of the first answer before it breaks off
sent, answers = 0, 0


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(0, body=False)

    def do_GET(self):
        match = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.answer(int(match[1]) if match else 0, body="resolve" in self.path)

    def answer(self, begin, body):
        global sent, answers
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{SIZE - 1}/{SIZE}")
        for name, value in {"Content-Length": SIZE - begin, "ETag": '"an-etag"', "X-Repo-Commit": "a" * 40}.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            answers += 1
            count = AFTER if answers == 1 else SIZE - begin
            sent += count
            self.wfile.write(bytes(count))
        self.close_connection = True


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": sys.argv[1]}
import huggingface_hub

path = huggingface_hub.hf_hub_download("org/name", "file.bin")
print(f"huggingface_hub {huggingface_hub.__version__}: a file of {os.path.getsize(path):,} bytes, {sent:,} bytes sent")
raise SystemExit(os.path.getsize(path) != SIZE or sent <= SIZE + 5_000_000)
PYTHON
"$work/venv/bin/python" "$work/resume.py" "$work/home" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
# Seen:
# huggingface_hub 2.4.0: a file of 24,000,000 bytes, 31,514,240 bytes sent
