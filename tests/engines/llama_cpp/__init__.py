"""What needs llama-cpp-python: `make test-llama-cpp`."""
