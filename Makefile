# The verbs of the project, for use inside of a virtual environment. CI calls the same ones.
.DEFAULT_GOAL := help
.PHONY: build test test-slow lint check-tiles bench clean help

build: ## compile, and install into this environment in place, with what the tests need
	pip install -e ".[test]"

test: ## run the tests
	pytest

test-slow: ## run the full-size towers and the long runs
	pytest -m slow

lint: ## check style, format and types
	ruff check .
	ruff format --check .
	mypy

check-tiles: ## fail if the compiler keeps a tile's sums on the stack
	python tools/check_tiles.py

bench: ## measure the peak of this machine, and products, attention and the encoder against it
	python -m benchmarks.peak
	python -m benchmarks.ops
	python -m benchmarks.encoder

clean: ## remove what build, test and lint left behind
	rm -rf build dist qwenvis.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f qwenvis/ops/*.c qwenvis/ops/*.so
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile
