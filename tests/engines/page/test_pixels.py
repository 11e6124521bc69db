"""The picture lies below the grid as the tower gets it: upright, on white where transparent, on a black canvas."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from playwright.sync_api import expect
from safetensors.numpy import load

from engines.page import files
from engines.page.visit import Visit
from made.presets import checkpoint
from processes.served import served

SIZE = 250, 150
ORIENTATION, TURNED = 274, 6  # the EXIF tag, and its value for a camera that was held upright
LEVELS = 4  # two filters of resizing differ by so much, in the mean over a cell


def photo():
    return Image.open(files.PHOTO).crop((300, 200, 800, 500)).resize(SIZE)


def sideways(path):
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    photo().save(path, "JPEG", exif=exif, quality=95)


def transparent(path):
    image = photo().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(SIZE).point(lambda level: 255 * (level > 127)))
    image.save(path, "PNG")


def upright(path):
    photo().save(path, "PNG")


@pytest.fixture(scope="module", params=["qwen2_vl", "glm5_next"])
def of_family(request, browser):
    """A service of a family that stretches pictures, or of one that places them on a black canvas."""
    with served("--threads", 1, model=checkpoint(request.param)) as service:
        visit = Visit(browser, f"http://127.0.0.1:{service.port}")
        yield service, visit
        visit.close()


def below_grid(answer, path):
    """The mean colour (rows, columns, 3) that the tower gets below each token."""
    tensors = load(answer)
    rows, columns = (tensors["grid_thw"][0, 1:] // 2).tolist()
    height, width = tensors["content"][0].tolist()
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGBA").resize((width, height))
    canvas = Image.new("RGBA", (columns * 28, rows * 28), "black")
    canvas.paste(Image.new("RGBA", picture.size, "white"))
    canvas.alpha_composite(picture)
    return np.asarray(canvas.convert("RGB").resize((columns, rows), Image.Resampling.BOX), np.float64)


@pytest.mark.parametrize("make", [upright, sideways, transparent])
def test_picture_is_that_of_the_tower(of_family, tmp_path, make):
    service, visit = of_family
    path = tmp_path / f"{make.__name__}.img"
    make(path)
    want = below_grid(service.ask("/v1/encode?colors=true", path.read_bytes()).body, path)
    visit.drop(path)
    expect(visit.page.locator("#picture-caption")).to_contain_text(path.name)
    visit.page.get_by_role("checkbox", name="grid").uncheck()
    shown = Image.fromarray(visit.pixels("#picture"))
    got = np.asarray(shown.resize(want.shape[1::-1], Image.Resampling.BOX), np.float64)
    assert np.abs(got - want).mean() < LEVELS
