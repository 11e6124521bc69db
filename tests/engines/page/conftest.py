"""The browser, the service, and a visit whose faults are looked for when it ends."""

import pytest

from engines.page.browser import browsing
from engines.page.visit import Visit
from processes.served import served


@pytest.fixture(scope="session")
def browser():
    with browsing() as found:
        yield found


@pytest.fixture(scope="session")
def service():
    with served("--threads", 1) as found:
        yield found


@pytest.fixture(scope="session")
def address(service):
    return f"http://127.0.0.1:{service.port}"


@pytest.fixture
def visit(browser, address):
    found = Visit(browser, address)
    yield found
    found.close()
