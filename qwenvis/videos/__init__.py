"""Videos to patches: open, decode, resize, cut."""
