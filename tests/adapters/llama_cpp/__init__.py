"""The adapter to llama.cpp: positions, and the logits of llama.cpp itself, where xllamacpp is installed."""
