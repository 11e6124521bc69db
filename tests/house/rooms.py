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
    "concurrency.malloc": Room(),
    "concurrency.memo": Room(),
    "concurrency.tasks": Room(),
    "concurrency.threads": Room("errors"),
    "io.sharing": Room(others="PIL"),
    "io.files": Room("io.sharing errors"),
    "io.drafts": Room("io.files errors"),
    "io.iterables": Room("io.sharing", "PIL"),
    "io.arrays": Room("errors", "numpy"),
    "io.fields": Room("errors"),
    "io.signatures": Room(),
    "io.data_urls": Room("errors"),
    "weights": Room("concurrency.tasks", "numpy"),
    "kernels": Room(),
    "ops": Room("errors", "numpy cpython cython libc typing_extensions"),
    "geometry": Room(others="numpy"),
    "nn.formats": Room("ops.formats io.arrays errors"),
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
        "processors.image processors.frame_sampling processors.normalize processors.pixel_limits "
        "processors.smart_resize io.fields errors"
    ),
    "processors.video_families": Room(
        "processors.video processors.image processors.frame_sampling processors.normalize "
        "processors.pixel_limits processors.smart_resize models io.fields errors"
    ),
    "images.torch_resize": Room("ops.resample_columns ops.resample_rows", "numpy"),
    "images.to_rgb": Room("errors", "numpy PIL"),
    "images.decode": Room("images.to_rgb io.signatures io.arrays io.files io.sharing errors", "numpy PIL"),
    "images.step": Room("ops.vol2col", "numpy"),
    "images.image": Room(
        "images.step images.decode images.to_rgb images.torch_resize processors.image processors.smart_resize errors",
        "numpy PIL",
    ),
    "videos.timeline": Room(others="numpy av"),
    "videos.decode": Room("images.decode processors.frame_sampling io.signatures io.files errors", "numpy av"),
    "videos.playback": Room("videos.decode videos.timeline processors.frame_sampling errors", "numpy av"),
    "videos.animation": Room("videos.decode images.decode processors.frame_sampling errors", "numpy PIL"),
    "videos.source": Room(
        "videos.animation videos.playback videos.decode images.decode processors.frame_sampling io.arrays errors",
        "numpy PIL",
    ),
    "videos.video": Room(
        "videos.source images.step images.torch_resize processors.video_families processors.video "
        "processors.frame_sampling errors",
        "numpy",
    ),
    "checkpoints.files": Room("io.files errors"),
    "checkpoints.configs": Room("checkpoints.files models io.fields errors"),
    "checkpoints.stored": Room("io.files errors", "numpy ml_dtypes"),
    "checkpoints.tensors": Room("checkpoints.stored models errors", "numpy"),
    "checkpoints.checkpoint": Room(
        "checkpoints.tensors checkpoints.stored checkpoints.configs weights io.files concurrency.tasks errors", "numpy"
    ),
    "checkpoints.shards": Room(
        "checkpoints.checkpoint checkpoints.tensors checkpoints.stored checkpoints.configs checkpoints.files "
        "io.files errors"
    ),
    "checkpoints.packed": Room(
        "checkpoints.shards checkpoints.checkpoint checkpoints.tensors checkpoints.stored checkpoints.configs "
        "checkpoints.files ops.PackedWeight ops.formats ops.cache_line weights io.drafts errors",
        "numpy",
    ),
    "checkpoints.extract": Room(
        "checkpoints.shards checkpoints.checkpoint checkpoints.tensors checkpoints.stored weights io.drafts errors",
        "numpy",
    ),
    "checkpoints.gguf": Room("checkpoints.stored io.files errors", "numpy gguf"),
    "checkpoints.mmproj": Room(
        "checkpoints.checkpoint checkpoints.tensors checkpoints.stored models io.fields errors", "numpy"
    ),
    "sources.caches": Room("io.files"),
    "sources.presets": Room("models"),
    "sources.synthetic": Room(
        "sources.caches sources.presets checkpoints.shards checkpoints.checkpoint checkpoints.tensors "
        "checkpoints.configs models weights io.fields io.drafts io.files concurrency.tasks concurrency.memo errors",
        "numpy ml_dtypes",
    ),
    "sources.hub": Room("sources.caches checkpoints.shards checkpoints.configs checkpoints.files io.files errors"),
    # The rooms below this line and above `sources.resolve` need the extra `hub`.
    "sources.ranges": Room("checkpoints.stored concurrency.tasks", "httpx2 huggingface_hub"),
    "sources.download": Room("sources.ranges sources.hub io.drafts errors version", "httpx2 huggingface_hub"),
    "sources.remote": Room(
        "sources.download sources.ranges sources.hub checkpoints.extract checkpoints.shards checkpoints.checkpoint "
        "checkpoints.stored checkpoints.configs checkpoints.files models weights io.files concurrency.tasks errors",
        "huggingface_hub",
    ),
    "sources.resolve": Room(
        "sources.hub checkpoints.packed checkpoints.shards checkpoints.checkpoint checkpoints.configs "
        "checkpoints.files models io.files errors",
        lazily="sources.remote sources.synthetic sources.presets checkpoints.mmproj checkpoints.gguf",
    ),
    "sources": Room("sources.resolve"),
    "cost": Room("models nn.workspace geometry ops weights", "numpy"),
    "spec": Room(
        "cost sources checkpoints.extract checkpoints.checkpoint processors.video_families processors.video "
        "processors.image models nn.formats weights concurrency.memo errors",
        "numpy",
    ),
    "embeddings.keys": Room("errors"),
    "embeddings.rules": Room("io.arrays errors", "numpy ml_dtypes"),
    "embeddings.convert": Room("embeddings.rules errors", "numpy pyarrow torch"),
    "embeddings.join": Room("errors", "numpy"),
    "embeddings.file": Room("embeddings.rules embeddings.keys geometry io.drafts io.files errors", "numpy safetensors"),
    "embeddings.picture": Room(others="numpy PIL"),
    "embeddings.page": Room("embeddings.picture", "numpy PIL"),
    "embeddings.notebook": Room("embeddings.picture errors", "numpy"),
    "embeddings.embeddings": Room(
        "embeddings.file embeddings.join embeddings.convert embeddings.rules embeddings.keys geometry errors",
        "numpy pyarrow torch",
        lazily="embeddings.notebook",
    ),
    "embeddings": Room("embeddings.embeddings"),
    "cache.file": Room("embeddings io.drafts errors", "numpy"),
    "cache.cache": Room("cache.file embeddings io.drafts io.files errors"),
    "cache": Room("cache.cache"),
    "encoding.arguments": Room("embeddings.rules models geometry io.arrays errors", "numpy"),
    "encoding.batching": Room("geometry ops.use_threads concurrency.tasks", "numpy"),
    "encoding.outputs": Room("embeddings models nn.workspace geometry ops.all_finite errors", "numpy"),
    "encoding.keying": Room("cache embeddings spec models concurrency.tasks errors version", "numpy"),
    "encoding.items": Room("encoding.keying embeddings images.step errors", "numpy"),
    "encoding.patches": Room("encoding.items encoding.batching geometry errors", "numpy"),
    "encoding.inputs": Room(
        "encoding.items encoding.keying encoding.batching spec videos.video videos.source images.image images.decode "
        "images.step processors.frame_sampling processors.image io.iterables concurrency.memo errors"
    ),
    "encoding.runner": Room(
        "encoding.patches encoding.inputs encoding.items encoding.keying encoding.outputs encoding.batching cache "
        "embeddings spec videos.video nn.workspace geometry ops.isa ops.use_threads errors version",
        "numpy",
    ),
    "encoding.stream": Room("encoding.runner encoding.inputs encoding.items encoding.batching embeddings errors"),
    # the front door knows everybody
    "encoder": Room(
        "encoding.stream encoding.runner encoding.inputs encoding.outputs encoding.batching encoding.arguments "
        "cache embeddings spec sources checkpoints.packed videos.video models geometry ops concurrency.threads errors",
        "numpy",
    ),
    "__init__": Room(
        "encoder encoding.stream encoding.batching cache embeddings spec cost checkpoints.checkpoint "
        "processors.video processors.image processors.smart_resize models weights errors version"
    ),
    "jobs.inputs": Room("videos.decode images.decode io.files errors", "pyarrow"),
    "jobs.roster": Room("jobs.inputs errors", "numpy"),
    "jobs.formats": Room(
        "jobs.inputs embeddings embeddings.convert checkpoints.shards checkpoints.stored errors", "numpy"
    ),
    "jobs.folder": Room("jobs.formats jobs.roster io.drafts io.files errors"),
    "jobs.parts": Room("jobs.folder jobs.formats embeddings concurrency.tasks errors"),
    "jobs.settings": Room("jobs.formats encoder encoding.inputs embeddings videos.video errors version"),
    "jobs.survey": Room("jobs.parts jobs.folder jobs.roster jobs.inputs concurrency.tasks"),
    "jobs.manifest": Room("jobs.parts jobs.folder jobs.formats concurrency.memo io.drafts errors", "numpy safetensors"),
    "jobs.pipeline": Room(
        "jobs.survey jobs.settings jobs.parts jobs.folder jobs.roster jobs.inputs encoding.stream encoding.runner "
        "encoding.inputs embeddings videos.video videos.animation geometry concurrency.tasks errors"
    ),
    "jobs.job": Room(
        "jobs.pipeline jobs.manifest jobs.survey jobs.settings jobs.parts jobs.folder jobs.roster jobs.inputs "
        "encoder encoding.runner videos.video io.files concurrency.malloc errors"
    ),
    "jobs.results": Room("jobs.manifest jobs.settings jobs.formats jobs.folder embeddings io.files errors", "numpy"),
    "jobs": Room("jobs.job jobs.pipeline jobs.results"),
    "adapters.modalities": Room("embeddings errors", "numpy"),
    "adapters.llama_cpp": Room("adapters.modalities embeddings errors", "numpy"),
    "adapters.memory": Room("checkpoints.checkpoint weights errors", "numpy"),
    "adapters.transformers.weights": Room("adapters.memory spec checkpoints.tensors errors", "numpy ml_dtypes torch"),
    "adapters.transformers.receiver": Room("models embeddings errors", "torch transformers"),
    "adapters.transformers.outputs": Room(
        "adapters.transformers.receiver embeddings.convert embeddings",
        "numpy torch transformers",
    ),
    "adapters.transformers.prompt": Room(
        "adapters.transformers.receiver adapters.modalities embeddings errors", "numpy transformers"
    ),
    "adapters.transformers.inputs": Room(
        "adapters.transformers.prompt adapters.transformers.outputs adapters.transformers.receiver adapters.modalities "
        "embeddings errors",
        "torch transformers",
    ),
    "adapters.transformers.subclasses": Room(),
    "adapters.transformers.reference": Room(
        "adapters.transformers.weights adapters.transformers.subclasses spec models weights errors",
        "numpy torch transformers",
    ),
    "adapters.transformers.follower": Room(
        "adapters.transformers.reference adapters.transformers.weights encoder spec errors", "torch"
    ),
    "adapters.transformers.tower": Room(
        "adapters.transformers.follower adapters.transformers.subclasses encoder embeddings.convert errors",
        "torch transformers",
    ),
    "adapters.transformers.conversion": Room(
        "adapters.transformers.weights checkpoints.shards checkpoints.stored errors", "torch safetensors"
    ),
    "adapters.transformers.language_model": Room(
        "adapters.transformers.tower adapters.transformers.follower adapters.transformers.conversion "
        "adapters.transformers.subclasses errors",
        "torch transformers",
    ),
    "adapters.transformers": Room(
        "adapters.transformers.inputs adapters.transformers.outputs adapters.transformers.language_model "
        "adapters.transformers.tower errors"
    ),
    "adapters.vllm": Room(
        "adapters.modalities embeddings.convert embeddings io.drafts io.files errors", "numpy safetensors"
    ),
    "adapters.sglang": Room("adapters.modalities embeddings.convert embeddings"),
    "adapters.dynamo": Room(
        "encoder encoding.batching embeddings.convert geometry io.data_urls errors", "numpy dynamo"
    ),
    "adapters.ray": Room("adapters.vllm encoder embeddings errors", "numpy"),
    "adapters.ray_cluster": Room("errors", "ray"),
    "adapters.ray_data": Room("adapters.ray_cluster embeddings.convert embeddings encoder errors", "pyarrow ray"),
    "adapters.mlx_vlm": Room("adapters.modalities embeddings errors", "mlx"),
    "comparison.deviation": Room("errors", "numpy"),
    "comparison.recording": Room(others="numpy"),
    "comparison.passes": Room(
        "encoding.inputs encoding.outputs encoding.batching spec nn.workspace geometry ops.all_finite ops.use_threads "
        "errors",
        "numpy",
        lazily="adapters.transformers.reference",
    ),
    "comparison.results": Room(
        "comparison.passes comparison.deviation encoding.inputs encoding.batching models", "numpy"
    ),
    "comparison.comparison": Room(
        "comparison.results comparison.recording comparison.passes comparison.deviation encoding.inputs "
        "encoding.outputs encoding.batching spec videos.video models nn.formats io.arrays concurrency.threads errors",
        "numpy",
        lazily="adapters.transformers.reference",
    ),
    "comparison": Room("comparison.comparison comparison.results comparison.deviation"),
    "server.requests": Room("embeddings.rules videos.video io.data_urls errors", "python_multipart starlette"),
    "server.metrics": Room(others="prometheus_client"),
    "server.batcher": Room("server.metrics encoding embeddings geometry errors", "numpy"),
    "server.service": Room(
        "server.batcher server.metrics server.requests encoder encoding embeddings videos io.signatures errors", "numpy"
    ),
    "server": Room(
        "server.service server.metrics server.requests adapters.vllm embeddings io.data_urls errors version",
        "h11 numpy prometheus_client starlette uvicorn",
    ),
    # of ops, what `doctor` reports
    "cli": Room(
        "__init__ server jobs comparison encoder encoding.runner encoding.inputs cache embeddings spec cost sources "
        "videos.video videos.animation videos.decode images.image images.decode processors.video ops.isa ops.isas "
        "ops.openmp ops.formats ops.granted_threads nn.formats io.drafts io.files concurrency.threads "
        "concurrency.malloc errors version",
        "numpy PIL argcomplete",
    ),
    "__main__": Room("cli"),
}


def within(name: str, place: str) -> bool:
    """Whether a dotted name is that of a place or of something in it."""
    return f"{name}.".startswith(f"{place}.")


def room_of(module: str) -> str:
    """The room that a module, or a name in one, belongs to; empty where there is none."""
    return max((room for room in ROOMS if within(module, room)), key=len, default="")
