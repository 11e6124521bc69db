"""One error for all that cannot be used."""

import pytest

from qwenvis.errors import MOST_LISTED, ConfigError, ImageError, InputError, LimitError, VideoError, gathered


def failing(*errors):
    """Makers of which each raises an error, or makes what is none."""

    def maker(error):
        def make():
            if isinstance(error, Exception):
                raise error
            return error

        return make

    return [maker(error) for error in errors]


def test_what_all_make():
    assert gathered(failing(1, 2), "images") == [1, 2]
    assert gathered([], "images") == []


def test_one_error_is_itself():
    error = VideoError("bad")
    with pytest.raises(VideoError) as caught:
        gathered(failing(1, error, 2), "videos")
    assert caught.value is error


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([ImageError("a"), ImageError("b")], ImageError),
        ([LimitError("a"), ImageError("b")], ImageError),
        ([LimitError("a"), LimitError("b")], LimitError),
        ([VideoError("a"), LimitError("b")], VideoError),
        ([VideoError("a"), ImageError("b")], InputError),
    ],
)
def test_several_are_listed(errors, kind):
    with pytest.raises((InputError, LimitError)) as caught:
        gathered(failing(0, *errors), "images and videos")
    assert type(caught.value) is kind
    assert str(caught.value) == "2 of 3 images and videos cannot be used:\n  a\n  b"


def test_a_long_list_is_cut():
    with pytest.raises(ImageError) as caught:
        gathered(failing(*[ImageError("a")] * (MOST_LISTED + 2)), "images")
    assert str(caught.value).endswith("a\n  and 2 more")


def test_what_is_wrong_with_the_checkpoint_is_raised_at_once():
    with pytest.raises(ConfigError, match="config"):
        gathered(failing(ImageError("a"), ConfigError("config")), "images")
