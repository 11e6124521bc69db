"""The table of rooms: who may import whom. tests/house/test_imports.py compares the table with the source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """What a room may import: of ours, of others, and of ours inside of functions only."""

    ours: str = ""
    others: str = ""
    lazily: str = ""


# From the bottom of the house to its top: a room may name only rooms that stand before it. A room is a file or a
# folder, by its dotted name: a file belongs to the longest name that it lies in, and who may import a folder may import
# all of its files.
ROOMS = {
    "version": Room(),
    "errors": Room(),
    "concurrency.memo": Room(),
    "concurrency.tasks": Room(),
    "concurrency.threads": Room("errors"),
    "io.sharing": Room(others="PIL"),
    "io.files": Room("io.sharing errors"),
    "io.iterables": Room("io.sharing", "PIL"),
    "io.arrays": Room("errors", "numpy"),
    "io.fields": Room("errors"),
    "io.signatures": Room(),
    "weights": Room(others="numpy"),
    "kernels": Room(),
    "ops": Room("errors", "numpy cpython cython libc typing_extensions"),
    "geometry": Room(others="numpy"),
    "nn.formats": Room("ops.formats errors", "numpy"),
    "nn.workspace": Room("ops", "numpy"),
    "nn.layers": Room("nn.workspace geometry ops weights", "numpy"),
    "nn.blocks": Room("nn.layers nn.workspace ops weights", "numpy"),
    "nn.mergers": Room("nn.layers nn.workspace ops weights", "numpy"),
    "models": Room("nn.mergers nn.blocks nn.layers nn.workspace geometry ops weights io.fields errors", "numpy"),
    "processors.smart_resize": Room("errors"),
    "processors.pixel_limits": Room("io.fields errors", "numpy"),
    "processors.normalize": Room("models io.fields concurrency.memo errors", "numpy"),
    "processors.frame_sampling": Room("errors", "numpy"),
    "processors.image": Room(
        "processors.normalize processors.pixel_limits processors.smart_resize models io.fields errors", "numpy"
    ),
    "processors.video": Room(
        "processors.image processors.frame_sampling processors.normalize processors.pixel_limits io.fields errors"
    ),
    "processors.video_families": Room(
        "processors.video processors.image processors.frame_sampling processors.normalize "
        "processors.pixel_limits processors.smart_resize models io.fields errors"
    ),
    "images.torch_resize": Room("ops.resample_columns ops.resample_rows", "numpy"),
    "images.to_rgb": Room("errors", "numpy PIL"),
    "images.decode": Room("images.to_rgb io.signatures io.arrays io.files io.sharing errors", "numpy PIL"),
    "images.image": Room(
        "images.decode images.to_rgb images.torch_resize processors.image ops.vol2col errors", "numpy PIL"
    ),
    "videos.timeline": Room(others="numpy av"),
    "videos.decode": Room("images.decode processors.frame_sampling io.files errors", "numpy av"),
    "videos.playback": Room("videos.decode videos.timeline processors.frame_sampling errors", "numpy av"),
    "videos.animation": Room("videos.decode images.decode processors.frame_sampling errors", "numpy PIL"),
    "videos.source": Room(
        "videos.animation videos.playback videos.decode images.decode processors.frame_sampling io.arrays errors",
        "numpy PIL",
    ),
    "videos.video": Room(
        "videos.source images.torch_resize processors.video_families processors.video "
        "processors.frame_sampling ops.vol2col errors",
        "numpy",
    ),
    "checkpoints.files": Room("io.files errors"),
    "checkpoints.tensors": Room("models errors", "numpy ml_dtypes"),
    "checkpoints.shards": Room("checkpoints.tensors checkpoints.files io.files errors", "numpy safetensors"),
    "checkpoints.checkpoint": Room(
        "checkpoints.shards checkpoints.tensors checkpoints.files models weights io.fields concurrency.tasks errors",
        "numpy",
    ),
    "checkpoints.packed": Room(
        "checkpoints.checkpoint checkpoints.shards checkpoints.tensors checkpoints.files ops.PackedWeight ops.formats "
        "ops.cache_line weights io.fields errors",
        "numpy",
    ),
    "checkpoints.gguf": Room("checkpoints.tensors io.files errors", "numpy gguf ml_dtypes"),
    "checkpoints.mmproj": Room(
        "checkpoints.gguf checkpoints.checkpoint checkpoints.tensors models io.fields errors", "numpy"
    ),
    "sources.presets": Room("models"),
    "sources.synthetic": Room(
        "sources.presets checkpoints.checkpoint checkpoints.shards checkpoints.tensors checkpoints.files "
        "models concurrency.tasks errors",
        "numpy ml_dtypes safetensors",
    ),
    "sources.hub": Room("checkpoints.checkpoint checkpoints.shards checkpoints.files io.files errors"),
    "sources.resolve": Room(
        "sources.hub checkpoints.packed checkpoints.checkpoint checkpoints.files models io.files errors",
        lazily="sources.synthetic sources.presets checkpoints.mmproj",
    ),
    "cost": Room("models nn.workspace geometry ops weights", "numpy"),
    "spec": Room(
        "cost sources.resolve checkpoints.checkpoint processors.video_families processors.video "
        "processors.image models nn.formats concurrency.memo errors",
        "numpy",
        lazily="sources.synthetic",
    ),
    "embeddings.file": Room("checkpoints.files io.files errors", "numpy safetensors"),
    "embeddings.picture": Room(others="numpy PIL"),
    "embeddings.notebook": Room("embeddings.picture errors", "numpy"),
    "embeddings.embeddings": Room("embeddings.file errors", "numpy", lazily="embeddings.notebook"),
    "embeddings": Room("embeddings.embeddings"),
    "encoding.batching": Room("geometry ops.use_threads concurrency.tasks", "numpy"),
    "encoding.outputs": Room("models nn.workspace geometry ops.all_finite errors", "numpy"),
    "encoding.inputs": Room(
        "spec videos.video videos.source images.image images.decode processors.image "
        "processors.frame_sampling models io.arrays io.iterables concurrency.memo errors",
        "numpy",
    ),
    "encoding.passage": Room(
        "encoding.inputs encoding.outputs encoding.batching embeddings geometry ops.use_threads errors", "numpy"
    ),
    "encoding.stream": Room("encoding.passage encoding.inputs encoding.batching embeddings errors"),
    # the front door knows everybody
    "encoder": Room(
        "encoding.stream encoding.passage encoding.inputs encoding.outputs encoding.batching embeddings spec "
        "sources.hub checkpoints.packed videos.video models nn.workspace geometry ops concurrency.threads "
        "errors version",
        "numpy",
    ),
    "__init__": Room("encoder encoding.stream embeddings errors version"),
    "jobs": Room("__init__ encoder embeddings errors", "numpy safetensors"),
    "adapters": Room("__init__ encoder embeddings errors", "numpy safetensors torch transformers vllm"),
    # of ops, what `doctor` reports
    "cli": Room(
        "__init__ encoder embeddings spec cost sources.resolve sources.hub checkpoints.files videos.video "
        "videos.animation videos.decode images.decode processors.video processors.image ops.isa ops.isas "
        "ops.openmp ops.formats nn.formats io.signatures concurrency.threads errors version",
        "numpy PIL",
        lazily="sources.synthetic sources.presets",
    ),
    "__main__": Room("cli"),
}
PLANNED = {"jobs", "adapters"}  # what they will import; there is no code yet


def within(name: str, place: str) -> bool:
    """Whether a dotted name is that of a place or of something in it."""
    return f"{name}.".startswith(f"{place}.")


def room_of(module: str) -> str:
    """The room that a module, or a name in one, belongs to; empty where there is none."""
    return max((room for room in ROOMS if within(module, room)), key=len, default="")
