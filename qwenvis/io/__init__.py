"""Files, file objects and values from outside, read with care."""
