"""One error for all that cannot be used."""

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from house import source_files
from made.presets import encoder, picture
from qwenvis import Embeddings, Encoder
from qwenvis.errors import (
    MAX_ERRORS,
    MAX_LISTED,
    ConfigError,
    ImageError,
    ImageLimitError,
    InputError,
    LimitError,
    Place,
    QwenvisError,
    VideoError,
    VideoLimitError,
    about,
    call_all,
    try_all,
)


def failing(*errors):
    """Makers of which each raises an error, or makes what is none."""

    def maker(error):
        def make():
            if isinstance(error, Exception):
                raise error
            return error

        return make

    return [maker(error) for error in errors]


def every_kind(root=QwenvisError):
    """The tree of exceptions, flat."""
    return [*dict.fromkeys([root, *(kind for child in root.__subclasses__() for kind in every_kind(child))])]


def test_what_all_make():
    assert call_all(failing(1, 2), "images") == [1, 2]
    assert call_all([], "images") == []


def test_one_error_is_itself():
    error = VideoError("bad")
    with pytest.raises(VideoError) as caught:
        call_all(failing(1, error, 2), "videos")
    assert caught.value is error


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([ImageError("a"), ImageError("b")], ImageError),
        ([ImageLimitError("a"), ImageError("b")], ImageError),
        ([ImageLimitError("a"), ImageLimitError("b")], ImageLimitError),
        ([ImageLimitError("a"), VideoLimitError("b")], LimitError),
        ([VideoError("a"), VideoLimitError("b")], VideoError),
        ([VideoError("a"), ImageError("b")], InputError),
    ],
)
def test_several_are_listed(errors, kind):
    with pytest.raises(InputError) as caught:
        call_all(failing(0, *errors), "images and videos")
    assert type(caught.value) is kind
    assert str(caught.value) == "2 of 3 images and videos cannot be used:\n  a\n  b"


def test_a_long_list_is_cut():
    with pytest.raises(ImageError) as caught:
        call_all(failing(*[ImageError("a")] * (MAX_LISTED + 2)), "images")
    assert str(caught.value).endswith("a\n  and 2 more")


def test_what_is_wrong_with_the_checkpoint_is_raised_at_once():
    with pytest.raises(ConfigError, match="config"):
        call_all(failing(ImageError("a"), ConfigError("config")), "images")


# Errors that go on for ever.


def test_gathering_ends_where_nothing_can_be_used():
    """An endless iterable of what cannot be used is an error all the same."""
    with pytest.raises(ImageError) as caught:
        call_all(failing(1, *[ImageError("a")] * MAX_ERRORS, "not looked at"), "images")
    assert str(caught.value).startswith(
        "1000 of the first 1001 images cannot be used, and the others were not checked:"
    )
    assert len(caught.value.errors) == MAX_ERRORS


def test_lenience_ends_where_nothing_can_be_used():
    bad = [ImageError("a")] * (MAX_ERRORS + 1)
    assert [len(each) for each in try_all(failing(*bad, 1), lenient=True)] == [0, MAX_ERRORS]
    assert [len(each) for each in try_all(failing(1, *bad, 2), lenient=True)] == [2, MAX_ERRORS + 1]


# What an error knows.


def test_an_error_about_an_item_says_which():
    with pytest.raises(ImageError) as caught, about(Place.of("videos", 3, Path("a") / "b.mp4")):
        raise ImageError("bad")
    assert (caught.value.argument, caught.value.index, caught.value.source) == ("videos", 3, str(Path("a") / "b.mp4"))
    with pytest.raises(ImageError) as again, about(Place.of("images", 4, b"")):
        raise caught.value
    assert again.value.index == 3  # what is nearest knows best
    assert Place.of("images", 4, b"").source == "image 4"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("kind", every_kind())
def test_errors_cross_borders(kind, again):
    error = kind("some words")
    error.index, error.source, error.errors = 2, "a.jpg", (ImageError("part"),)
    got = again(error)
    assert type(got) is kind
    assert str(got) == "some words"
    assert (got.index, got.source, [str(part) for part in got.errors]) == (2, "a.jpg", ["part"])


def test_a_joint_error_holds_its_parts_and_nothing_else():
    """Tracebacks would keep the arrays of their frames alive."""
    errors = [ImageError("a"), ImageLimitError("b")]
    with pytest.raises(ImageError) as caught:
        call_all(failing(0, *errors), "images")
    assert caught.value.errors == tuple(errors)
    assert all(error.__traceback__ is None for error in errors)


def test_limits_of_images_are_errors_of_images():
    assert issubclass(ImageLimitError, ImageError)
    assert issubclass(VideoLimitError, VideoError)
    assert all(
        issubclass(kind, LimitError) and issubclass(kind, InputError) for kind in (ImageLimitError, VideoLimitError)
    )


@pytest.mark.parametrize("path", source_files.files(".py"), ids=lambda path: path.name)
def test_a_limit_of_an_item_says_of_which_kind(path):
    """`except ImageError` is to catch every error about an image."""
    assert not re.search(r"raise LimitError\b", path.read_text(encoding="utf-8"))


class Unspeakable:
    """What neither compares nor says what it is."""

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    def __repr__(self):
        raise RuntimeError("no words")

    __hash__ = None


ODD = [np.zeros((2, 2)), np.zeros(0), np.zeros(2, [("a", "f4")]), Unspeakable(), 10**5000, "x" * 10**6, "\udcff\ud800"]
ODD += [["natural"], 1.5, "\x1b[31m\0"]
TAKEN = {
    "pixels": lambda value: encoder(pixels=value),
    "backend": lambda value: encoder(backend=value),
    "dtype": lambda value: encoder(dtype=value),
    "on_error": lambda value: encoder().encode(picture(28, 28), on_error=value),
    "hidden_states": lambda value: encoder().encode(picture(28, 28), hidden_states=value),
    "hidden_states of a stream": lambda value: encoder().encode_iter([picture(28, 28)], hidden_states=value),
    "hidden_states of a tower": lambda value: encoder()(*encoder().preprocess(picture(28, 28)), hidden_states=value),
    "sampling": lambda value: encoder().encode(videos=[[picture(28, 28)]], sampling=value, video_fps=2),
    "path of a file of tokens": Embeddings.load,
    "path to write to": lambda value: encoder().encode(picture(28, 28)).save(value),
    "source": Encoder.from_pretrained,
    "cache_dir": lambda value: Encoder.from_pretrained("no/thing", cache_dir=value),
}


@pytest.mark.parametrize("argument", TAKEN)
def test_odd_values_of_arguments(argument):
    for value in ODD:
        with pytest.raises(QwenvisError) as caught:
            TAKEN[argument](value)
        text = str(caught.value)
        assert len(text) < 2000
        assert text.replace("\n", "").isprintable()
