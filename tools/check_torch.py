"""Fails if PyTorch in the same process hangs, ends it, or changes a bit of a token.

A wheel carries an OpenMP runtime of its own, so two pools of threads are in the process. They take turns, and then work
at the same time, in both orders of the imports.

    python tools/check_torch.py
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable

import golden

SECONDS = 300  # of one order, before it counts as hung
ROUNDS = 8
ALONE, BEFORE, AFTER = ORDERS = ("alone", "torch first", "qwenvis first")


def digest() -> str:
    """The bits of the tokens of every golden tower, on two threads."""
    made = [golden.tokens(name, dtype, 2).tobytes() for name in golden.TOWERS for dtype in golden.TOLERANCE]
    return hashlib.sha256(b"".join(made)).hexdigest()


def product() -> float:
    """A product of PyTorch on two threads, and its gradient."""
    import torch

    torch.set_num_threads(2)
    x = torch.ones(384, 384, requires_grad=True)
    (x @ x).sum().backward()
    return float(x.grad.sum())


def repeated(work: Callable[[], object], seen: set[object]) -> None:
    """Collect what a piece of work returns each time."""
    seen.update(work() for _ in range(ROUNDS))


def together(order: str) -> str:
    """The digest, made while PyTorch works; it must be the same each time, and so must PyTorch's result."""
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
    """Every order in a process of its own; 1 if one fails or has other bits."""
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
