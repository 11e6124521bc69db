"""The table of rooms: who may import whom. tests/test_house.py compares it with the source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """What a room may import: of ours, of others, and of ours inside of functions only."""

    ours: str = ""
    others: str = ""
    lazily: str = ""


# From the bottom of the house to its top: a room may name only rooms that stand before it.
ROOMS = {
    "version": Room(),
    "errors": Room(),
    "arrays": Room("errors", "numpy"),
    "sharing": Room(others="PIL"),
    "files": Room("sharing errors"),
    "iterables": Room("sharing", "PIL"),
    "threads": Room("errors"),
    "tasks": Room(),
    "memo": Room(),
    "fields": Room("errors"),
    "dtypes": Room("errors", "numpy"),
    "weights": Room("errors", "numpy"),
    "kernels": Room(),
    "ops": Room("kernels errors", "numpy cython libc typing_extensions"),  # the last in stubs alone
    "workspace": Room("ops errors", "numpy"),
    "layers": Room("workspace ops weights errors", "numpy"),
    "blocks": Room("layers workspace ops weights errors", "numpy"),
    "mergers": Room("layers workspace ops weights errors", "numpy"),
    "geometry": Room("errors", "numpy"),
    "models": Room("mergers blocks layers workspace ops geometry weights fields errors", "numpy"),
    "resizing": Room("errors"),
    "resampling": Room("ops.resample_rows ops.resample_columns", "numpy"),
    "limits": Room("fields errors", "numpy"),
    "normalisation": Room("memo fields errors", "numpy"),
    "processors": Room("resizing limits normalisation fields errors", "numpy"),
    "policies": Room("errors", "numpy PIL"),
    "signatures": Room(),
    "pictures": Room("policies signatures arrays files sharing errors", "numpy PIL"),
    "images": Room("pictures policies processors resampling ops.vol2col errors", "numpy PIL"),
    "samplers": Room("errors", "numpy"),
    "video_processors": Room("samplers processors limits normalisation fields errors"),
    "video_families": Room("video_processors processors samplers limits normalisation resizing fields errors"),
    "films": Room("samplers pictures files errors", "numpy av"),
    "timelines": Room("", "numpy av"),
    "playback": Room("films timelines samplers errors", "numpy av"),
    "animations": Room("films samplers pictures errors", "numpy PIL"),
    "clips": Room("animations playback films samplers pictures arrays errors", "numpy PIL"),
    "videos": Room("clips samplers video_families video_processors resampling ops.vol2col errors", "numpy"),
    "directory": Room("files errors"),
    "layouts": Room("errors", "numpy ml_dtypes"),
    "shards": Room("layouts directory files errors", "numpy safetensors"),
    "checkpoint": Room("tasks shards layouts directory weights fields errors", "numpy"),
    "packed": Room(
        "checkpoint shards layouts directory fields weights ops.PackedWeight ops.cache_line errors", "numpy"
    ),
    "gguf": Room("layouts files errors", "numpy ml_dtypes gguf"),
    "projectors": Room(),
    "mmproj": Room("projectors gguf checkpoint layouts fields errors", "numpy"),
    "presets": Room("models errors"),
    "synthetic": Room("presets models checkpoint shards layouts directory tasks errors", "numpy safetensors ml_dtypes"),
    "hub": Room("checkpoint shards directory files errors", "huggingface_hub", lazily="synthetic presets"),
    "cost": Room("models geometry workspace ops weights errors", "numpy"),
    "outline": Room(
        "ops.rows_dtype dtypes cost hub packed checkpoint video_families video_processors processors models memo "
        "errors",
        "numpy",
        lazily="mmproj synthetic",
    ),
    "door": Room("models arrays errors", "numpy"),
    "tokenfile": Room("directory files errors", "numpy safetensors"),
    "mosaic": Room("", "numpy PIL"),
    "notebook": Room("mosaic errors", "numpy"),
    "embeddings": Room("tokenfile errors", "numpy", lazily="notebook"),
    "plan": Room("tasks door geometry ops.use_threads errors", "numpy"),
    "work": Room("models workspace geometry ops.all_finite errors", "numpy"),
    "intake": Room("outline videos clips samplers images pictures processors iterables memo errors", "numpy"),
    "passage": Room("intake work plan embeddings door geometry ops.use_threads errors", "numpy"),
    "stream": Room("passage intake plan embeddings errors"),
    # the front door knows everybody
    "encoder": Room(
        "stream passage intake work plan embeddings door outline packed cost hub synthetic checkpoint videos images "
        "pictures processors models geometry workspace weights ops threads errors version",
        "numpy PIL",
    ),
    "__init__": Room("encoder stream embeddings errors version"),
    "bulk": Room("__init__ encoder embeddings errors", "numpy safetensors"),
    "adapters": Room("__init__ encoder embeddings errors", "numpy safetensors torch transformers vllm"),
    # of ops, what `doctor` reports
    "cli": Room(
        "__init__ adapters bulk encoder embeddings tokenfile mosaic outline cost hub directory videos animations films "
        "images pictures signatures processors video_processors threads errors version ops.isa ops.isas ops.openmp "
        "ops.rows_dtype",
        "numpy PIL",
        lazily="synthetic.cache_root presets",
    ),
    "__main__": Room("cli"),
}
