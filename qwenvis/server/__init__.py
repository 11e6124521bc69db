"""The service: ``qwenvis serve`` answers images and videos with their tokens, over HTTP. Needs the extra ``serve``."""
