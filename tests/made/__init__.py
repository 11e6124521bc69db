"""The inputs of the tests: arrays, images, videos, checkpoints, encoders of tiny presets."""
