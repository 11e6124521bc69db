"""The files of the page: complete, and free of all that comes from elsewhere. tests/engines/page has it in use."""

import re

import pytest

from house.source_files import PACKAGE

FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted((PACKAGE / "server/page").iterdir())}
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
LINK = {"html": r'(?:src|href)="(.+?)"', "js": r'\bfrom "\./(.+?)"', "css": r"url\((.+?)\)", "svg": r'href="(.+?)"'}
# What a strict policy forbids, and what makes markup or code of data.
INLINE = r'\bon\w+="|\bstyle="|<style|<script(?! type="module" src=)'
MARKUP = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"


def links(name):
    """The files that a file names."""
    return re.findall(LINK[name.rpartition(".")[2]], FILES[name])


def test_every_file_is_reached_from_the_first():
    reached = {"index.html"}
    for _ in FILES:
        reached |= {link for name in reached for link in links(name)}
    assert reached == FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_nothing_comes_from_elsewhere(name):
    addresses = set(re.findall(r"\w+://[^\s\"'#]+", FILES[name]))
    assert addresses <= {"http://www.w3.org/2000/svg", "https://github.com/huggingface/safetensors"}
    assert not re.search(f"{INLINE}|{MARKUP}", FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_files_are_served_as_what_they_are(service, name):
    reply = service.ask("/" if name == "index.html" else f"/{name}")
    assert reply.status == 200
    assert reply.headers["content-type"].partition(";")[0] == MEDIA_TYPES[name.rpartition(".")[2]]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in reply.headers["content-security-policy"]
    assert reply.body.decode() == FILES[name]
