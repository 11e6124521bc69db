"""The description of the API is that of its routes."""

import re

from processes.served import served
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
