"""The page of the service, as a person uses it: a file comes in, tokens are shown, one token is looked at."""

import numpy as np
import pytest
from playwright.sync_api import expect

from engines.page import files
from made.presets import encoder
from made.video_files import number

PANELS = ("#picture", "#tokens")
NEAR = 6  # near tokens that the page lists
DIGIT = 0.0006  # half of the last digit that the page shows, and the rounding of its float32


@pytest.fixture(scope="module")
def photo():
    return encoder().encode([files.PHOTO])


@pytest.fixture
def small(tmp_path):
    """A photo of few tokens."""
    return files.small(tmp_path)


def grid_of(out):
    """Rows and columns of tokens of the first item."""
    return tuple((out.grid_thw[0, 1:] // out.merge_size).tolist())


def nearest(tokens, token):
    """The near tokens, computed in float64: numbers, and all similarities."""
    rows = tokens.astype(np.float64)
    cosines = rows @ rows[token] / np.linalg.norm(rows, axis=1) / np.linalg.norm(rows[token])
    return [int(each) for each in np.argsort(-cosines) if each != token][:NEAR], cosines


def check_nearest(visit, tokens, token):
    """The page lists the near tokens of a token."""
    expect(visit.token).to_have_value(str(token))
    _, cosines = nearest(tokens, token)
    listed = visit.nearest
    assert len(listed) == NEAR
    assert all(abs(cosines[other] - shown) <= DIGIT for other, shown in listed)
    least = min(cosines[other] for other, _ in listed)
    left = np.delete(cosines, [token, *(other for other, _ in listed)])
    assert (left <= least + DIGIT).all()


def edge(visit, canvas, row, column, grid):
    """The pixels on the left and right edges of a cell, inside of it, which an outline covers."""
    shown = visit.pixels(canvas)
    rise, side = (size / count for size, count in zip(shown.shape, grid, strict=False))
    y = int((row + 0.5) * rise)
    return shown[y, [int(np.ceil(column * side)), int((column + 1) * side) - 1]]


def test_dropped_photo_is_shown_beside_its_tokens(visit, photo):
    visit.drop(files.PHOTO)
    visit.shows(f"{len(photo.embeddings):,} tokens of demo.jpg, in ")
    rows, columns = grid_of(photo)
    facts = visit.page.locator("#facts").inner_text()
    assert f"{rows} rows × {columns} columns" in facts
    assert f"{photo.embeddings.shape[1]} numbers, float32" in facts
    expect(visit.page.locator("#panels canvas")).to_have_count(2)
    assert all(visit.pixels(canvas).std() > 10 for canvas in PANELS)


def test_hover_shows_a_token_and_its_nearest_in_both_panels(visit, photo):
    visit.drop(files.PHOTO)
    visit.shows("tokens of demo.jpg")
    grid = grid_of(photo)
    for canvas, row, column in (("#picture", 3, 5), ("#tokens", grid[0] - 1, 0), ("#picture", 0, grid[1] - 1)):
        before = [edge(visit, each, row, column, grid) for each in PANELS]
        visit.point(canvas, row, column, grid)
        check_nearest(visit, photo.embeddings, row * grid[1] + column)
        expect(visit.page.locator("#place")).to_have_text(f"row {row}, column {column}")
        assert all((edge(visit, each, row, column, grid) == 255).all() for each in PANELS)
        assert not any((each == 255).all() for each in before)
    visit.page.mouse.move(5, 5)
    expect(visit.token).to_have_value("")


def test_click_holds_a_token(visit, photo):
    visit.drop(files.PHOTO)
    visit.shows("tokens of demo.jpg")
    visit.point("#tokens", 2, 3, grid_of(photo))
    visit.page.mouse.down()
    visit.page.mouse.up()
    visit.page.mouse.move(5, 5)
    held = 2 * grid_of(photo)[1] + 3
    check_nearest(visit, photo.embeddings, held)
    expect(visit.page.locator("#spoken")).to_contain_text(f"Token {held}, row 2, column 3. Nearest: token ")


def test_keyboard_alone_is_enough(visit, small):
    keys = visit.page.keyboard
    with visit.page.expect_file_chooser() as chosen:  # first: the browser is told to wait for it
        keys.press("Tab")
        expect(visit.page.locator("#file")).to_be_focused()
        keys.press("Enter")
    chosen.value.set_files(small)
    visit.shows("35 tokens of small.png")
    for _ in range(2):
        keys.press("Tab")
    expect(visit.page.locator("#tokens")).to_be_focused()
    walk = [("ArrowRight", 0), ("ArrowRight", 1), ("ArrowDown", 8), ("ArrowLeft", 7), ("ArrowLeft", 7), ("End", 13)]
    for key, token in [*walk, ("ArrowRight", 13), ("ArrowUp", 6), ("ArrowUp", 6), ("Home", 0)]:
        keys.press(key)
        expect(visit.token).to_have_value(str(token))
    check_nearest(visit, encoder().encode([small]).embeddings, 0)
    keys.press("Tab")
    keys.press("Control+a")
    keys.type("34")
    expect(visit.page.locator("#spoken")).to_contain_text("Token 34, row 4, column 6.")
    keys.press("Tab")
    (first, _), *_ = visit.nearest
    keys.press("Enter")
    expect(visit.token).to_have_value(str(first))
    visit.page.locator("#tokens").focus()
    keys.press("Escape")
    expect(visit.token).to_have_value("")


def test_pasted_picture_is_encoded(visit, small):
    paste = """(bytes) => {
        const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([Uint8Array.from(bytes)], "image.png", { type: "image/png" }));
        document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
    }"""
    visit.page.evaluate(paste, list(small.read_bytes()))
    visit.shows("35 tokens of image.png")


def test_first_of_several_files_is_encoded(visit, small):
    visit.drop(small, files.PHOTO)
    visit.shows("35 tokens of small.png, the first of 2 files, in ")


def test_squares_show_similarity(visit, small):
    visit.drop(small)
    visit.shows("35 tokens")
    visit.page.get_by_role("checkbox", name="grid").uncheck()
    visit.page.get_by_role("radio", name="similarity").check()
    visit.token.fill("17")
    expect(visit.page.locator("#tokens-caption")).to_contain_text("Similarity to token 17: dark is ")
    _, cosines = nearest(encoder().encode([small]).embeddings, 17)
    shown = visit.pixels("#tokens")
    middles = [shown[int((k // 7 + 0.2) * len(shown) / 5), int((k % 7 + 0.2) * shown.shape[1] / 7)] for k in range(35)]
    unmarked = [k for k in range(35) if k not in {17, *(token for token, _ in visit.nearest)}]
    order = sorted(unmarked, key=lambda k: cosines[k])
    assert np.diff([int(middles[k].sum()) for k in order]).min() >= -2


def test_limit_makes_fewer_tokens(visit, photo):
    visit.drop(files.PHOTO)
    visit.shows(f"{len(photo.embeddings):,} tokens")
    visit.page.get_by_label("Pixels at most").select_option(str(256 * 28 * 28))
    fewer = encoder().encode([files.PHOTO], max_pixels=256 * 28 * 28)
    visit.shows(f"{len(fewer.embeddings)} tokens")


def test_tokens_can_be_saved(visit, small, tmp_path):
    visit.drop(small)
    visit.shows("35 tokens")
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name="Save the tokens").click()
    assert download.value.suggested_filename == "small.safetensors"
    download.value.save_as(tmp_path / "saved.safetensors")
    saved, want = type(encoder().encode([])).load(tmp_path / "saved.safetensors"), encoder().encode([small])
    assert saved.embeddings.tobytes() == want.embeddings.tobytes()


def test_film_has_a_strip_of_steps(visit, tmp_path):
    path = files.film(tmp_path)
    out = encoder().encode(videos=[path])
    visit.drop(path)
    visit.shows(f"{len(out.embeddings)} tokens of film.mp4")
    visit.page.get_by_role("checkbox", name="grid").uncheck()
    steps = visit.page.get_by_role("list", name="Temporal steps").get_by_role("button")
    expect(steps).to_have_count(int(out.grid_thw[0, 0]))
    rows, columns = grid_of(out)
    for step, button in enumerate(steps.all()):
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        expect(visit.page.locator("#picture-caption")).to_contain_text(f"step {step}, {out.timestamps[0][step]:.2f} s")
        assert number(visit.pixels("#picture")) in out.frame_indices[0][2 * step : 2 * step + 2]
    visit.page.locator("#tokens").press("Home")
    visit.page.locator("#tokens").press("PageUp")
    expect(visit.token).to_have_value(str(2 * rows * columns))
    expect(visit.page.locator("#place")).to_have_text("step 2, row 0, column 0")
