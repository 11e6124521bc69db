"""Hub ids on the command line: what is asked for before and with a download, and the tower alone in a directory."""

import pytest
from PIL import Image

from made.presets import same_bits
from processes import hub_repos, hub_server
from qwenvis import Embeddings, Encoder, cli
from qwenvis.cli.__init__ import COMMANDS

REPO = "Some/Model"


@pytest.fixture(scope="module")
def files():
    """The files of a repo."""
    return hub_repos.repo()[0]


@pytest.fixture
def hub(tmp_path, monkeypatch, files):
    """A Hub with that repo, which this process may ask."""
    monkeypatch.chdir(tmp_path)
    with hub_server.running() as found, hub_server.allowed(found, tmp_path, monkeypatch):
        found.repos[REPO] = dict(files)
        yield found


def test_info_asks_for_headers_only(hub, tmp_path, capsys):
    Image.new("RGB", (280, 280)).save("cat.png")
    assert cli.main(["info", REPO, "cat.png"]) == 0
    out = capsys.readouterr().out
    assert "12.3 MB of BF16, not there yet: first use downloads 1 file of 0.02 GB" in out
    assert "cat.png" in out
    assert hub.sent < 1_000_000
    assert cli.main(["info", REPO, "--tower-only"]) == 0
    assert "first use downloads its bytes of 1 file of 0.02 GB" in capsys.readouterr().out
    assert hub.sent < 1_000_000


def test_encode_downloads_the_tower(hub, tmp_path, files):
    Image.new("RGB", (56, 84), "red").save("red.png")
    assert cli.main(["encode", "red.png", "--model", REPO, "--tower-only"]) == 0
    asked = len(hub.requests)
    assert cli.main(["encode", "red.png", "--model", REPO, "--local-files-only", "-o", "b.safetensors"]) == 0
    assert len(hub.requests) == asked
    local = Encoder.from_pretrained(hub_repos.write(tmp_path / "local", files)).encode("red.png")
    for name in ("embeddings.safetensors", "b.safetensors"):
        assert same_bits(Embeddings.load(name).embeddings, local.embeddings)


def test_a_revision_that_is_not_there(hub, capsys):
    assert cli.main(["pack", REPO, "packed", "--revision", "v7"]) == 1
    assert f"{REPO} has no revision v7 on 127.0.0.1" in capsys.readouterr().err
    assert cli.main(["extract", REPO, "-o", "tower", "--local-files-only"]) == 1
    assert "Nothing is downloaded, because local_files_only is set" in capsys.readouterr().err


def test_extract(hub, tmp_path, capsys):
    assert cli.main(["extract", REPO, "-o", "tower"]) == 0
    assert capsys.readouterr().out == "wrote tower: 12.3 MB of BF16\n"
    assert not (tmp_path / "qwenvis").exists()
    assert cli.main(["extract", REPO, "-o", "tower"]) == 1
    assert "already exists" in capsys.readouterr().err


def test_a_token_is_no_argument():
    for command in COMMANDS:
        assert cli.main([command, "--token", "x"]) == 2
