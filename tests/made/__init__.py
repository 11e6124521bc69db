"""What the tests feed to the package, made here: arrays, images, videos, checkpoints, encoders of tiny presets."""
