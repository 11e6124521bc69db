"""The inputs of a job: listed without decoding, and read ahead of the encoder."""
