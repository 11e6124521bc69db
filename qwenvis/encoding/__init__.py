"""One call of `Encoder.encode`: inputs, batches, the passage through the tower, outputs."""
