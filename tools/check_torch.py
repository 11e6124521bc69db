"""Fail if PyTorch in the same process hangs, ends the process, or changes a bit of a token.

A wheel contains its own OpenMP runtime, so the process has two thread pools. The pools work in turns, and then at the
same time, in both orders of the imports.

    python tools/check_torch.py
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable

import golden

SECONDS = 300  # seconds for one order, before it counts as hung
ROUNDS = 8
ALONE, BEFORE, AFTER = ORDERS = ("alone", "torch first", "qwenvis first")


def digest() -> str:
    """Hash the tokens of every golden tower, on two threads."""
    made = [golden.tokens(name, dtype, 2).tobytes() for name in golden.TOWERS for dtype in golden.TOLERANCE]
    return hashlib.sha256(b"".join(made)).hexdigest()


def product() -> float:
    """Compute a product and its gradient with PyTorch on two threads."""
    import torch

    torch.set_num_threads(2)
    x = torch.ones(384, 384, requires_grad=True)
    (x @ x).sum().backward()
    return float(x.grad.sum())


def repeated(work: Callable[[], object], seen: set[object]) -> None:
    """Repeat a call; return its results."""
    seen.update(work() for _ in range(ROUNDS))


def together(order: str) -> str:
    """Compute the digest while PyTorch works; the results of both must be the same each time."""
    if order == BEFORE:
        product()
    tokens: set[object] = {digest()}
    if order == ALONE:
        return str(tokens.pop())
    products: set[object] = {product()}
    for _ in range(ROUNDS):  # in turns
        products.add(product())
        tokens.add(digest())
    workers = [threading.Thread(target=repeated, args=each) for each in ((digest, tokens), (product, products))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if len(tokens) != 1 or len(products) != 1:
        sys.exit(f"{order}: {len(tokens)} different tokens, {len(products)} different products")
    return str(tokens.pop())


def main(arguments: list[str]) -> int:
    """Run every order of imports in a process of its own; return 1 if an order fails or changes bits."""
    if arguments:
        print(together(arguments[0]))
        return 0
    digests = []
    for order in ORDERS:
        command = [sys.executable, __file__, order]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=True)
        digests.append(done.stdout.strip())
        print(f"{order:<14}{digests[-1]}", flush=True)
    return int(len(set(digests)) != 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
