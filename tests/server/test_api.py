"""The API is as OpenAPI and the docs describe it."""

import re
import shlex
import shutil
import subprocess
from dataclasses import fields

import pytest

from docs.code_blocks import run_blocks
from house.source_files import ROOT
from processes.served import served
from qwenvis import Embeddings
from qwenvis.cli import units
from qwenvis.server.requests.limits import Limits
from qwenvis.server.requests.options import OPTIONS


def test_routes(service):
    """Each path that is described answers to the described methods, and to no other."""
    found = service.ask("/openapi.json").json
    assert found["openapi"].startswith("3.1")
    assert list(found["paths"]) == ["/v1/encode", "/v1/model", "/health", "/ready", "/metrics"]
    for path, operations in found["paths"].items():
        for method in ("GET", "POST", "PUT", "DELETE"):
            reply = service.ask(path, b"" if method != "GET" else None, method=method)
            assert (reply.status == 405) == (method.lower() not in operations), (method, path)
            if reply.status == 405:
                assert set(re.split(", *", reply.headers["allow"])) - {"HEAD"} == {each.upper() for each in operations}


def test_options(service):
    """The query takes the options that are described."""
    parameters = service.ask("/openapi.json").json["paths"]["/v1/encode"]["post"]["parameters"]
    assert [each["name"] for each in parameters] == list(OPTIONS)


def test_an_encode_worker_has_one_more_path(tmp_path):
    with served("--threads", 1, "--vllm-cache", tmp_path) as worker:
        assert "/v1/chat/completions" in worker.ask("/openapi.json").json["paths"]


def test_references_lead_somewhere(service):
    found = service.ask("/openapi.json").json
    assert set(re.findall(r"#/components/schemas/(\w+)", str(found))) <= found["components"]["schemas"].keys()


@pytest.fixture
def page(service):
    """The page of the docs, whose service is the running one."""
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    return text.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{service.port}")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_docs(page, tmp_path, monkeypatch):
    run_blocks(page, tmp_path, monkeypatch, "serve")
    assert len(Embeddings.load("cat.safetensors")) == 1
    commands = re.findall("^    (curl .*)", page, re.MULTILINE)
    for command in commands:
        subprocess.run(shlex.split(command), check=True, capture_output=True)
        assert Embeddings.load(command.split()[-1]).counts.min() > 0
    assert len(commands) == 3


def test_the_limits_of_the_docs(page):
    """Each has a row, with its default."""
    rows = "".join(line for line in page.splitlines() if line.startswith("| `--"))
    for each in fields(Limits):
        unit, number = each.metadata["unit"], each.default
        text = units.nbytes(number) if unit == "bytes" else f"{number:,}"
        assert f"`--{each.name.replace('_', '-')}`" in rows
        assert text in rows or str(number) in rows, each.name


def test_the_options_of_the_docs(page):
    rows = "".join(line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `"))
    assert set(OPTIONS) <= set(re.findall(r"`(\w+)`", rows))
