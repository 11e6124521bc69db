"""The files that are given to the page."""

from importlib import resources
from pathlib import Path

from PIL import Image

from made.video_files import encoded, numbered

PHOTO = Path(str(resources.files("qwenvis") / "demo.jpg"))
FPS = 2  # of the film, from which every frame is taken


def small(directory, name="small.png", size=(196, 140)):
    """A photo of 5 x 7 tokens."""
    Image.open(PHOTO).resize(size).save(directory / name)
    return directory / name


def film(directory):
    """A film of 8 numbered frames, which become 4 temporal steps."""
    path = directory / "film.mp4"
    path.write_bytes(encoded(numbered(8, height=112, width=168), fps=FPS))
    return path


def no_image(directory):
    """A text with the name of an image."""
    path = directory / "letter.png"
    path.write_text("Dear reader")
    return path
