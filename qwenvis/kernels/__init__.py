"""C sources of the kernels; `kernels.h` is the contract."""
