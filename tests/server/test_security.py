"""Who is served: those with the token, or programs of this machine and the page of the service."""

import pytest

from made.images import noise, png
from made.presets import checkpoint
from processes.served import served
from qwenvis import cli

PICTURE = png(noise(28, 28))
TOKEN = "a-token-of-24-characters"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service that listens on every address, and its token."""
    file = tmp_path_factory.mktemp("token") / "token.txt"
    file.write_text(f"{TOKEN}\n")
    with served("--threads", 1, "--host", "0.0.0.0", "--token-file", file) as running:
        yield running


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token(guarded, scheme):
    headers = {"Authorization": f"{scheme} {TOKEN}", "Host": "enc.example", "Origin": "https://enc.example"}
    assert guarded.ask(body=PICTURE, headers=headers).status == 200
    assert guarded.ask("/v1/model", headers=headers).status == 200


@pytest.mark.parametrize(
    "sent",
    [None, "", TOKEN, "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer \xff"],
)
@pytest.mark.parametrize("path", ["/v1/encode", "/v1/model", "/metrics", "/openapi.json", "/nowhere"])
def test_wrong_tokens(guarded, sent, path):
    headers = {} if sent is None else {"Authorization": sent}
    reply = guarded.ask(path, PICTURE if path == "/v1/encode" else None, headers)
    assert (reply.status, reply.error["type"]) == (401, "TokenError")
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_states_need_no_token(guarded, path):
    assert guarded.ask(path).status == 200


def test_no_redirects(guarded):
    """They would lead from the TLS of a proxy to the same address without it."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "enc.example"}
    assert guarded.ask("/v1/model/", headers=headers).status == 404


def test_a_token_of_the_environment():
    with served("--threads", 1, QWENVIS_TOKEN=TOKEN) as service:
        assert service.ask("/v1/model").status == 401
        assert service.ask("/v1/model", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--host 0.0.0.0", "--host 0.0.0.0 is not this machine alone: pass --token-file FILE, or set QWENVIS_TOKEN"),
        ("--host ::", "is not this machine alone"),
        ("--token-file empty", "the token is empty"),
        ("--token-file spaced", "other characters than visible ASCII"),
        ("--token-file nowhere", "nowhere cannot be read: No such file or directory"),
    ],
)
def test_services_that_do_not_start(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QWENVIS_TOKEN", raising=False)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "spaced").write_text("two words")
    assert cli.main(["serve", "--model", str(checkpoint()), *options.split()]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::", "localhost@evil.example"]
)
def test_other_hosts_are_refused(service, host):
    """A name that a page has made to resolve to this machine (DNS rebinding)."""
    reply = service.ask("/v1/model", headers={"Host": host})
    assert (reply.status, reply.error["type"]) == (403, "OriginError")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:80"])
def test_hosts_of_this_machine(service, host):
    assert service.ask("/v1/model", headers={"Host": host}).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost", "https://localhost:1", ""])
def test_pages_of_other_origins_are_refused(service, origin):
    headers = {"Host": "localhost:1", "Origin": origin, "Content-Type": "text/plain"}
    reply = service.ask(body=PICTURE, headers=headers)
    assert (reply.status, reply.error["type"]) == (403, "OriginError")


def test_the_page_of_the_service(service):
    headers = {"Host": "localhost:1", "Origin": "http://localhost:1"}
    reply = service.ask(body=PICTURE, headers=headers)
    assert reply.status == 200
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("path", ["/v1/model", "/nowhere", "/health"])
def test_headers_of_every_answer(service, path):
    headers = service.ask(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert not {"unsafe", "http", "*"} & {word for word in ("unsafe", "http", "*") if word in policy}
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert "server" not in headers
