"""Images to patches: decode, convert to RGB, resize, cut."""
