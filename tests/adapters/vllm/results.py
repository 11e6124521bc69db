"""Results of tiny towers, of images and videos, and what is in the parts that are made of them."""

import base64
import functools
import io

import numpy as np

from made.presets import encoder, picture

CLIP = np.stack([picture(56, 84, seed) for seed in range(6)])


@functools.cache
def encoded(family, images=2, videos=1):
    """Return the tokens of images of different sizes and of videos of 6 and fewer frames, 3 a second."""
    pictures = [picture(56 + 28 * number, 84, number) for number in range(images)]
    clips = [CLIP[: 6 - 2 * number] for number in range(videos)]
    found = encoder(family)
    out = found.encode(pictures, videos=clips, video_fps=3.0 if videos else None)
    assert len(out.keys) == images + videos  # the encoder computes keys as long as it exists
    return out


def decoded(part):
    """Return the modality of a content part, its arrays by name, and its identifier."""
    kind = part["type"]
    assert part.keys() == {"type", kind, "uuid"}
    arrays = {name: np.load(io.BytesIO(base64.b64decode(text, validate=True))) for name, text in part[kind].items()}
    return kind.removesuffix("_embeds"), arrays, part["uuid"]
