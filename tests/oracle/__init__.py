"""What is right: the towers in float64, transformers' own classes, and how far a result may be from them."""
