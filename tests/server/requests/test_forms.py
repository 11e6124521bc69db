"""Forms are taken apart into the parts that they were made of, whatever these hold."""

import string

from hypothesis import given
from hypothesis import strategies as st

from processes.served import form
from qwenvis.server.requests.forms import form_parts

NAMES = st.text(string.ascii_letters, min_size=1, max_size=10)
CONTENT = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"b", b"\r\n--b", b"\r\n--", b"x" * 50])).map(b"".join)


@given(st.lists(st.tuples(NAMES, NAMES, CONTENT), min_size=1, max_size=5))
def test_parts(parts):
    """Content may look like a boundary, and be cut anywhere."""
    body, _ = form(parts, "boundary")
    found = form_parts(bytearray(body), "boundary", 5)
    assert [(part.name, part.is_file, bytes(part.content)) for part in found] == [
        (name, True, content) for name, _, content in parts
    ]
