"""Errors that are put into the tokens of a comparison, which then has to find them."""

from qwenvis.comparison import comparison
from qwenvis.comparison.passes import encode


def perturb(monkeypatch, change):
    """Let ``change(tokens)`` change the tokens of bfloat16, in place, before they are compared, from here on."""

    def changed(spec, threads, plan, visit):
        def visit_changed(micro_batch, stage, array):
            if stage.kind == "tokens" and spec.dtype == "bfloat16":
                change(array)
            visit(micro_batch, stage, array)

        encode(spec, threads, plan, visit_changed)

    monkeypatch.setattr(comparison, "encode", changed)
