"""Ray carries the tensors of Ray Data LLM to the next operator as they are."""

import pytest
import ray

from adapters.test_ray import ENCODER, PICTURES, SOURCE, equal
from qwenvis.adapters.ray import Encode


@pytest.mark.filterwarnings("ignore")  # those of Ray
def test_tensors_arrive():
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        rows = ray.data.from_items([{"image": [each] * count} for count, each in enumerate(PICTURES)])
        encoded = rows.map_batches(
            Encode, fn_constructor_args=(str(SOURCE),), compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1
        )
        found = encoded.map(lambda row: {"data": row["multimodal_data"], "uuids": row["multimodal_uuids"]}).take_all()
    finally:
        ray.shutdown()
    found = sorted(found, key=lambda row: 0 if row["data"] is None else len(row["uuids"]["image"]))
    columns = {"multimodal_data": [row["data"] for row in found], "multimodal_uuids": [row["uuids"] for row in found]}
    assert columns["multimodal_data"][0] is None
    for count in range(1, 4):
        equal(columns, count, ENCODER.encode([PICTURES[count]] * count))
