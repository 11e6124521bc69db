"""The time to the first token of a transformers model on an image, with an attached encoder and without.

python -m benchmarks.first_token --preset qwen2-vl-2b --side 448

The model has the sizes of a preset, and random weights. ``transformers`` is the model alone, ``attached`` a copy of the
model that shares its weights, after `qwenvis.adapters.transformers.attach`. They alternate in one process. A run is
``generate`` with ``max_new_tokens=1`` on an image that has been preprocessed, with 32 tokens of text; ``tower`` is its
time within the tower. The ratio is that of the medians, attached over transformers.
"""

from __future__ import annotations

import argparse
import copy
import time
from statistics import median
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.initialization import no_init_weights

from benchmarks.timing import alternate, header, write
from qwenvis.adapters.transformers import attach
from qwenvis.concurrency import threads
from qwenvis.sources.presets import PRESETS

IDS = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}
FIRST_WORD, WORDS = 5, 32  # ids of text, and tokens of text beside the image


def random_model(preset: str, dtype: torch.dtype) -> Any:
    """Build a model with the sizes of a preset, whose weights are small random numbers."""
    config = AutoConfig.for_model(**PRESETS[preset].config, **IDS, tie_word_embeddings=True)
    with no_init_weights():
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model


def image_inputs(model: Any, side: int) -> dict[str, torch.Tensor]:
    """Return the arguments of ``generate`` for one square image and a short text."""
    tower = model.config.vision_config
    rows = side // tower.patch_size
    columns = tower.in_channels * tower.temporal_patch_size * tower.patch_size**2
    text = torch.arange(FIRST_WORD, FIRST_WORD + WORDS)
    image = torch.full(((rows // tower.spatial_merge_size) ** 2,), IDS["image_token_id"])
    start, end = (torch.tensor([IDS[f"vision_{name}_token_id"]]) for name in ("start", "end"))
    input_ids = torch.cat([start, image, end, text])[None]
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": (input_ids == IDS["image_token_id"]).int(),
        "image_grid_thw": torch.tensor([[1, rows, rows]]),
        "pixel_values": torch.randn(rows**2, columns // tower.temporal_patch_size, generator=torch.Generator())
        .view(rows**2, tower.in_channels, 1, -1)
        .expand(-1, -1, tower.temporal_patch_size, -1)
        .reshape(rows**2, columns),
    }


def timed(tower: Any) -> list[float]:
    """Return a list to which each forward pass of a tower appends its seconds."""
    begun, seconds = [], []
    tower.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
    tower.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - begun.pop()))
    return seconds


def measure(model: Any, side: int, rounds: int, count: int) -> list[dict[str, object]]:
    """Measure a model alone, and with an encoder attached to a copy that shares its weights."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    models = {"transformers": model, "attached": attach(copy.deepcopy(model, shared))}
    given = image_inputs(model, side)
    towers = {name: timed(each.model.visual) for name, each in models.items()}
    contenders = {
        name: lambda each=each: each.generate(**given, max_new_tokens=1, do_sample=False)
        for name, each in models.items()
    }
    runs = alternate(contenders, range(rounds), count, dict.fromkeys(models))
    return [
        {"model": name, "seconds": run.seconds, "tower": towers[name][1:]}
        for name, run in runs.items()  # [0] warms up
    ]


def main() -> None:
    """Print two lines and a ratio for each dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="qwen2-vl-2b")
    parser.add_argument("--side", type=int, default=448, help="side of the square image, in pixels")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=threads.resolve())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    print(header(arguments.threads))
    print(f"{'dtype':10s}{'model':>14s}{'seconds':>10s}{'tower':>10s}{'ratio':>8s}")
    rows = []
    for dtype in arguments.dtype:
        found = measure(
            random_model(arguments.preset, getattr(torch, dtype)), arguments.side, arguments.rounds, arguments.threads
        )
        alone = median(found[0]["seconds"])
        for row in found:
            seconds = median(row["seconds"])
            tower = median(row["tower"])
            print(f"{dtype:10s}{row['model']:>14s}{seconds:10.3f}{tower:10.3f}{seconds / alone:8.3f}", flush=True)
            rows.append({"preset": arguments.preset, "side": arguments.side, "dtype": dtype, **row})
    write(arguments.json, rows)


if __name__ == "__main__":
    main()
