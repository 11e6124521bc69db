"""What the page does when something fails: the words of the service, and a way to go on."""

from PIL import Image
from playwright.sync_api import expect

from engines.page import files
from engines.page.visit import Visit
from processes.served import served

SECRET = "correct-horse-battery"


def test_error_is_shown_in_the_words_of_the_service(visit, service, tmp_path):
    letter = files.no_image(tmp_path)
    visit.drop(letter)
    assert visit.alert() == service.ask(body=letter.read_bytes()).error["message"]
    visit.refused(400)
    visit.drop(files.small(tmp_path))
    visit.shows("35 tokens of small.png")
    expect(visit.page.get_by_role("alert")).to_be_empty()


def test_text_that_is_dropped_is_refused(visit):
    drop = """document.body.dispatchEvent(
        new DragEvent("drop", { dataTransfer: new DataTransfer(), bubbles: true, cancelable: true }))"""
    visit.page.evaluate(drop)
    assert visit.alert() == "That was no file: drop a photo or a film."


def test_folder_is_refused(visit, tmp_path):
    visit.drop(tmp_path)
    assert "is it a folder" in visit.alert()


def test_file_above_the_limit_is_not_sent(browser, tmp_path):
    with served("--threads", 1, "--max-body", "50KB") as service:
        visit = Visit(browser, f"http://127.0.0.1:{service.port}")
        visit.drop(files.PHOTO)
        size = files.PHOTO.stat().st_size
        assert visit.alert() == f"demo.jpg has {size:,} bytes; the service takes at most 50,000"
        visit.close()


def test_busy_service_can_be_asked_again(visit, tmp_path):
    words = {"error": {"type": "BusyError", "message": "16 requests are waiting already", "item": None}}
    answer = {"status": 429, "headers": {"Retry-After": "2"}, "json": words}
    visit.page.route("**/v1/encode?*", lambda route: route.fulfill(**answer), times=1)
    visit.drop(files.small(tmp_path))
    assert visit.alert() == "16 requests are waiting already (Try again in 2 seconds.)"
    visit.refused(429)
    visit.page.get_by_role("button", name="Try again").click()
    visit.shows("35 tokens of small.png")


def test_answer_without_words_is_named(visit, tmp_path):
    visit.page.route("**/v1/encode?*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    visit.drop(files.small(tmp_path))
    assert visit.alert() == "The service answered 502 Bad Gateway."
    visit.refused(502)


def test_service_that_is_gone_is_named(visit, tmp_path):
    visit.page.route("**/v1/encode?*", lambda route: route.abort())
    visit.drop(files.small(tmp_path))
    assert visit.alert() == "The service does not answer. Is it still running?"
    visit.faults.clear()  # Chromium reports it


def test_waiting_can_be_cancelled(visit, tmp_path):
    visit.page.route("**/v1/encode?*", lambda route: None)  # never answered
    visit.drop(files.small(tmp_path))
    visit.shows("Encoding small.png …")
    with visit.page.expect_event("requestfailed") as failed:
        visit.page.get_by_role("button", name="Cancel").click()
    assert "/v1/encode" in failed.value.url
    visit.shows("Cancelled.")
    expect(visit.page.get_by_role("progressbar")).to_be_hidden()


def test_picture_that_the_browser_cannot_show_has_its_tokens(visit, tmp_path):
    Image.open(files.PHOTO).resize((196, 140)).save(tmp_path / "scan.tiff")
    visit.drop(tmp_path / "scan.tiff")
    visit.shows("35 tokens of scan.tiff")
    expect(visit.page.locator("#picture-caption")).to_contain_text("This browser cannot show image/tiff")
    expect(visit.page.locator("#picture")).to_be_hidden()
    visit.page.locator("#tokens").press("Home")
    assert len(visit.nearest) == 6


def test_names_are_text(visit, tmp_path):
    name = "<img src=x onerror=alert(1)>.png"
    visit.drop(files.small(tmp_path, name))
    visit.shows(f"35 tokens of {name}")
    expect(visit.page.locator("#picture-caption")).to_contain_text(name)


def test_token_is_asked_for(browser, tmp_path):
    (tmp_path / "token").write_text(SECRET)
    with served("--threads", 1, "--token-file", tmp_path / "token") as service:
        visit = Visit(browser, f"http://127.0.0.1:{service.port}")
        field = visit.page.get_by_label("Access token")
        expect(field).to_be_focused()
        visit.refused(401)
        field.fill("wrong")
        field.press("Enter")
        assert "token" in visit.alert()
        expect(field).to_be_visible()
        visit.refused(401)
        field.fill(SECRET)
        visit.page.get_by_role("button", name="Continue").click()
        expect(field).to_be_hidden()
        visit.drop(files.small(tmp_path))
        visit.shows("35 tokens of small.png")
        visit.close()
