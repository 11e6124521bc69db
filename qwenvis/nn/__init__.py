"""The parts of a tower: layers, blocks, mergers, and the scratch arrays of a forward pass."""
