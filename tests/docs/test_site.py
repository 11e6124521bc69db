"""The site of the docs: built without a warning, and complete: the browser of a reader sends no request elsewhere."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from house.source_files import ROOT

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="the docs extra is not installed")
LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "object": "data", "use": "href"}
LOADED_LINKS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "manifest"}


class Requests(HTMLParser):
    """The addresses that a browser requests for a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "link" and set((values.get("rel") or "").split()) & LOADED_LINKS:
            self.found.append(values["href"])
        elif values.get(LOADED.get(tag)):
            self.found.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return directory


def test_api_is_on_the_site(site):
    assert "from_pretrained" in (site / "api.html").read_text(encoding="utf-8")


def test_pages_request_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        requests = Requests(page.read_text(encoding="utf-8")).found
        assert requests
        assert not [address for address in requests if re.match(r"(\w+:)?//", address)], page


def test_styles_request_nothing_from_elsewhere(site):
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles
    assert not [
        found for style in styles for found in re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//.{60}", style)
    ]
