"""What the installed vLLM takes, as JSON, by which the default suite checks the adapter without vLLM.

    python -m engines.vllm.contract > tests/adapters/vllm/contract.json

- ``families``: for each family, what a prompt must have and may have of an image and of a video, and what a request
  must have whose tokens are in the encoder cache; null where vLLM takes no tokens with grids.
- ``part``: the names in a content part.
- ``npy``: arrays as base64, which vLLM has read.
- ``transfer``: what an encode worker reports of two images of which one comes twice, and of a video with times.
- ``cache``: the place of a file in the directory of the encoder cache, and the file, which vLLM has written.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import torch
import vllm
from transformers import BatchFeature
from vllm.distributed.ec_transfer.ec_connector.example_connector import ECExampleConnector
from vllm.distributed.ec_transfer.ec_connector.utils import collect_ec_item_metadata
from vllm.model_executor.models.registry import ModelRegistry
from vllm.multimodal.media.image import ImageEmbeddingMediaIO
from vllm.multimodal.media.video import VideoEmbeddingMediaIO
from vllm.multimodal.parse import DictEmbeddingItems
from vllm.renderers import chat_utils

from oracle.full_families import FULL_FAMILIES

ITEM = {"embeds": torch.zeros(6, 8), "grid_thw": torch.tensor([[1, 4, 6]])}
TIMES = {"timestamps": [[0.5]], "second_per_grid_ts": torch.ones(1)}
TRANSFER = ([1, 4, 6], [1, 2, 4], [2, 4, 4])  # grids
NPY = (np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(6, dtype=np.float16).reshape(2, 3), np.array([1, 4, 6]))


def contract() -> dict[str, Any]:
    """Return the contract."""
    return {
        "vllm": vllm.__version__,
        "families": {family: family_fields(case.model) for family, case in FULL_FAMILIES.items()},
        "part": {name: part_names(name) for name in ("image", "video")},
        "npy": {f"{array.dtype}": npy(array) for array in NPY},
        "transfer": transfer(),
        "cache": cache(),
    }


def family_fields(model: str) -> dict[str, Any] | None:
    """Return the fields of images and of videos of a model."""
    entry = ModelRegistry.models.get(model) or ModelRegistry.models.get(model.replace("Thinker", ""))
    if entry is None:
        return None
    parts = entry.load_model_cls()._processor_factory
    info = facts_of(parts.info)
    processor = object.__new__(parts.processor)
    processor.info = info
    found = {name: modality_fields(name, info.get_data_parser(), processor) for name in ("image", "video")}
    return {name: fields for name, fields in found.items() if fields} or None


def facts_of(kind: type) -> Any:
    """Return a processing info that knows nothing of a model but the merge size."""
    config = SimpleNamespace(spatial_merge_size=2, vision_config=SimpleNamespace(spatial_merge_size=2))
    changes = {
        "__init__": lambda self: None,
        "get_hf_config": lambda self: config,
        "get_feature_extractor": lambda self, **options: SimpleNamespace(sampling_rate=16000),
        "_get_expected_hidden_size": lambda self: None,
        "get_target_channels": lambda self: None,
        "allow_missing_mm_embeddings": False,
    }
    return type(kind.__name__, (kind,), changes)()


def modality_fields(name: str, parser: Any, processor: Any) -> dict[str, str] | None:
    """Return the fields of an image or of a video, if vLLM takes its tokens with its grid."""
    data = {f"{name}_{field}": value for field, value in ITEM.items()} | (TIMES if name == "video" else {})
    try:
        (items,) = parser.parse_mm_data({name: data}).values()
    except Exception:
        return None
    if not isinstance(items, DictEmbeddingItems):
        return None
    read = processor._get_mm_fields_config(BatchFeature({}), {})
    return {
        "required": " ".join(sorted(items.required_fields)),
        "read": " ".join(sorted(field for field in data if field in read)),
        "cached": " ".join(sorted(parser.placeholder_metadata_fields(name))),
    }


def part_names(name: str) -> str:
    """Return the names in a content part of tokens."""
    return " ".join(sorted(get_type_hints(getattr(chat_utils, f"ChatCompletionContentPart{name.title()}EmbedsParam"))))


def npy(array: np.ndarray) -> dict[str, Any]:
    """Return an array, and the base64 of its file, from which vLLM reads it."""
    file = io.BytesIO()
    np.save(file, array)
    text = base64.b64encode(file.getvalue()).decode()
    for reader in (ImageEmbeddingMediaIO(), VideoEmbeddingMediaIO()):
        read = reader.load_base64("", text)
        assert read.numpy().dtype == array.dtype
        assert np.array_equal(read.numpy(), array)
    return {"array": array.tolist(), "base64": text}


def transfer() -> dict[str, Any]:
    """Return the ``ec_transfer_params`` of a worker, made of the fields that vLLM's processor has of each item."""
    image, other = ({"image_grid_thw": torch.tensor(grid), "pixel_values": torch.zeros(1)} for grid in TRANSFER[:2])
    video = {"video_grid_thw": torch.tensor(TRANSFER[2]), "timestamps": [0.5, 1.5]}
    given = [("image", "a", image), ("image", "b", other), ("image", "a", image), ("video", "c", video)]
    features = [
        SimpleNamespace(modality=modality, identifier=name, data=SimpleNamespace(get_data=lambda data=data: data))
        for modality, name, data in given
    ]
    fields = {"image": {"image_grid_thw"}, "video": {"video_grid_thw", "timestamps"}}
    return collect_ec_item_metadata(features, SimpleNamespace(fields_for=fields.get))


def cache() -> dict[str, Any]:
    """Return the place and the bytes of the file that the connector writes for an item of the identifier "key"."""
    with tempfile.TemporaryDirectory() as place:
        connector = object.__new__(ECExampleConnector)
        connector._storage_path, connector._is_producer = place, True
        connector.save_caches({"key": torch.from_numpy(NPY[0])}, "key")
        (file,) = (path for path in Path(place).rglob("*") if path.is_file())
        assert connector.has_cache_item("key")
        return {"place": file.relative_to(place).as_posix(), "base64": base64.b64encode(file.read_bytes()).decode()}


if __name__ == "__main__":
    stdout, sys.stdout = sys.stdout, sys.stderr
    found = contract()
    json.dump(found, stdout, indent=2)
    stdout.write("\n")
