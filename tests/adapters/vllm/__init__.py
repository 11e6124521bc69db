"""What vLLM gets, without vLLM: tests/engines/vllm runs it."""
