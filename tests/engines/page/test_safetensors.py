"""The page's reader of safetensors has the numbers that are in the file, in every dtype that a service sends."""

import base64

import numpy as np
import pytest
from safetensors.numpy import load_file

from made.embeddings import DTYPES, made

READ = """async (base64) => {
    const { parse } = await import("./safetensors.js");
    const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
    const { metadata, tensors } = parse(bytes.buffer);
    const plain = [...tensors].map(([name, { dtype, shape, data }]) => [name, { dtype, shape, data: [...data] }]);
    return { metadata, tensors: Object.fromEntries(plain) };
}"""


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_those_of_the_file(visit, tmp_path, dtype):
    path = tmp_path / "tokens.safetensors"
    rows = np.concatenate([np.ldexp(1, np.arange(-24, 16))[: 11 * 5 - 15], np.linspace(-3, 3, 15)]).reshape(11, 5)
    made(embeddings=rows.astype(np.float32)).astype(dtype).save(path)
    found = visit.page.evaluate(READ, base64.b64encode(path.read_bytes()).decode())
    assert found["metadata"]["merge_size"] == "2"
    want = load_file(path)
    assert found["tensors"].keys() == want.keys()
    for name, array in want.items():
        tensor = found["tensors"][name]
        assert tensor["shape"] == list(array.shape)
        assert np.array_equal(np.reshape(tensor["data"], array.shape), array.astype(np.float64))
