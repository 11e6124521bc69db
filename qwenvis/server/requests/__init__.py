"""What clients send: bodies, read within limits, and the images, videos and options in them."""
