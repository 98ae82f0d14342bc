"""Whole graphs of models for every batch: run by test_compile.py, in a process without the hook that checks shapes."""

from dataclasses import replace
from typing import Any

import torch
from test_residual import CONFIGS, WIDTH, randomised

from gladient.nn import InContextRegressor, LayerConfig, ResidualModel


def check(model: Any, batches: tuple[int, ...], **options: Any) -> None:
    """Rows of 16 tokens, of which several make one row of a product, and last batches that are not whole."""
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, **options)
    for batch in batches:
        x = 0.3 * torch.randn(batch, 16, WIDTH, generator=torch.Generator().manual_seed(batch))
        found, wanted = compiled(x), model(x)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        gradients = [torch.autograd.grad(y.sum(), [*model.parameters()]) for y in (found, wanted)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * (1 + other.abs().max().item()))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), wanted, rtol=1e-4, atol=1e-5)


def regressor(config: LayerConfig) -> Any:
    return randomised(InContextRegressor(WIDTH, replace(config, norm=False, output_gate=False))).float()


if __name__ == "__main__":
    for name in ("mamba2", "gla", "one delta head"):
        check(regressor(CONFIGS[name]), (4, 16, 1), backend="eager")
    deep = ResidualModel(WIDTH, [CONFIGS["gated_deltanet"], CONFIGS["rwkv6"]])
    check(randomised(deep).float(), (4, 3), backend="eager")
    print("same")
