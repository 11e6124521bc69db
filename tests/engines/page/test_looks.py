"""How the page looks and what it promises: light and dark, wide and narrow, WCAG's rules, its own origin."""

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from engines.page import files
from engines.page.visit import Visit

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 3}
LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {**PHONE, "color_scheme": "light"},
    "dark phone": {**PHONE, "color_scheme": "dark"},
    "tablet": {"viewport": {"width": 820, "height": 1180}},
}


@pytest.fixture(params=LOOKS)
def look(request, browser, address):
    found = Visit(browser, address, **LOOKS[request.param])
    yield found
    found.close()


def check(visit):
    """Nothing is wider than the screen, and axe finds no fault: names, roles, contrast of text."""
    sizes = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    width, room = visit.page.evaluate(sizes)
    assert width <= room
    found = Axe().run(visit.page)
    assert found.violations_count == 0, found.generate_report()


def test_every_look_is_accessible(look, tmp_path):
    check(look)
    look.drop(files.no_image(tmp_path))
    look.alert()
    look.refused(400)
    check(look)
    look.drop(files.film(tmp_path))
    look.shows("tokens of film.mp4")
    check(look)
    look.page.locator("#tokens").press("End")
    check(look)


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_colours_follow_the_scheme(browser, address, scheme, dark):
    visit = Visit(browser, address, color_scheme=scheme)
    colour = visit.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    levels = [int(each) for each in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    assert (np.mean(levels) < 60) == dark
    visit.close()


def test_phone_has_one_column_and_the_token_in_sight(browser, address):
    visit = Visit(browser, address, **PHONE)
    visit.page.locator("#file").set_input_files(files.PHOTO)
    visit.shows("tokens of demo.jpg")
    first, second = (visit.page.locator(each).bounding_box() for each in ("#picture", "#tokens"))
    assert second["y"] >= first["y"] + first["height"]
    assert first["width"] == second["width"] > 300
    visit.page.locator("#picture").tap()
    expect(visit.token).not_to_have_value("")
    expect(visit.token).to_be_in_viewport()
    visit.close()


def test_reduced_motion_is_respected(browser, address, tmp_path):
    visit = Visit(browser, address, reduced_motion="reduce")
    visit.page.route("**/v1/encode?*", lambda route: None)
    visit.drop(files.small(tmp_path))
    expect(visit.page.get_by_role("button", name="Cancel")).to_be_visible()
    expect(visit.page.get_by_role("progressbar")).to_be_hidden()
    moving = """[...document.querySelectorAll("*")].filter((each) => {
        const style = getComputedStyle(each);
        return parseFloat(style.transitionDuration) || style.animationName !== "none";
    }).length"""
    assert visit.page.evaluate(moving) == 0
    visit.close()


ELSEWHERE = "http://127.0.0.2:9/"
ADD = "([tag, properties]) => void document.body.append(Object.assign(document.createElement(tag), properties))"
BREACHES = {
    "script-src": (ADD, ["script", {"textContent": "window.ran = true"}]),
    "style-src": (ADD, ["style", {"textContent": "body { color: red }"}]),
    "img-src": (ADD, ["img", {"src": ELSEWHERE}]),
    "frame-src": (ADD, ["iframe", {"src": ELSEWHERE}]),
    "connect-src": ("(address) => fetch(address).catch(() => null)", ELSEWHERE),
}


@pytest.mark.parametrize("directive", BREACHES)
def test_policy_is_enforced_and_breaches_are_seen(browser, address, directive):
    visit = Visit(browser, address)
    with visit.page.expect_console_message(lambda each: each.text.startswith(f"policy {directive}")):
        visit.page.evaluate(*BREACHES[directive])
    assert visit.faults
    assert not visit.page.evaluate("window.ran")
    visit.page.close()
