"""The last query of tokens that are their own keys: its kernel beside plain PyTorch."""

import importlib
from typing import Any

import pytest
import torch
from ops_cases import BACKENDS
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks

from gladient.ops import native
from gladient.ops.native.token_query import plain_token_query
from tolerances import TOLERANCES

module: Any = importlib.import_module("gladient.ops.native.token_query")  # the package has a function of this name
pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
SIZES = ("groups", "batch", "T", "width", "heads", "values", "gates")
CASES: dict[str, tuple[int, ...]] = {
    "training": (1, 5, 53, 14, 4, 1, 1),
    "gates of values": (2, 3, 33, 9, 3, 2, 2),
    "a gate for all values": (2, 3, 64, 40, 5, 3, 1),
    "no gates": (1, 2, 40, 17, 2, 3, 0),
    "one token": (1, 3, 1, 1, 1, 1, 1),
    "one number": (1, 2, 100, 1, 1, 1, 1),
}


def tensors(case: str, dtype: torch.dtype = torch.float64, seed: int = 0, spread: float = 1.0) -> list[Any]:
    """Tokens, queries, columns of values and of gates."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)

    G, B, T, D, H, V, C = CASES[case]
    leaves = [normal(G, B, H, D), normal(G, H, V, D), *([normal(G, H, C, D)] if C else [])]
    return [normal(G, B, T, D), *(x.requires_grad_() for x in leaves), *([] if C else [None])]


def results(function: Any, given: list[Any]) -> list[Tensor]:
    """The output, and gradients of all that has one."""
    leaves = [x for x in given if x is not None and x.requires_grad]
    o = function(*given)
    o = o[0] if isinstance(o, tuple) else o
    upstream = torch.randn(o.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(o.dtype)
    return [o.detach(), *grad(o, leaves, upstream)]


def doubled(given: list[Any]) -> list[Any]:
    return [x if x is None else x.detach().double().requires_grad_(x.requires_grad) for x in given]


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(case: str) -> None:
    given = tensors(case)
    right = results(plain_token_query, given)
    torch.testing.assert_close(results(native.token_query, given), right, **TOLERANCES[torch.float64])
    with torch.no_grad():
        torch.testing.assert_close(native.token_query(*given), right[0], **TOLERANCES[torch.float64])


@pytest.mark.parametrize("case", ["training", "gates of values"])
@pytest.mark.parametrize("spread", [0.1, 2.0])
def test_float32_errs_no_more_than_pytorch(case: str, spread: float) -> None:
    given = tensors(case, torch.float32, spread=spread)
    right = results(plain_token_query, doubled(given))
    for mine, theirs, exact in zip(
        results(native.token_query, given), results(plain_token_query, given), right, strict=True
    ):
        off = (mine.double() - exact).norm() / exact.norm()
        assert off <= 1.2 * (theirs.double() - exact).norm() / exact.norm() + 1e-7


def test_gates_near_1_lose_no_digits_over_thousands_of_tokens() -> None:
    """A product of rounded sigmoids, each off by half a unit near 1, would be off by thousands of units."""
    z = torch.ones(1, 1, 20_000, 1)
    one = torch.ones(1, 1, 1, 1)
    given = [z, one / 20_000, one, 14 * one]  # a gate of 1 - 8.3e-7
    right = plain_token_query(*doubled(given))[0]
    torch.testing.assert_close(native.token_query(*given).double(), right, rtol=2e-6, atol=0)


@pytest.mark.parametrize("logit", [-1e30, -300.0, -100.0, 100.0, 1e30])
def test_gates_that_are_0_or_1(logit: float) -> None:
    z = torch.ones(1, 1, 40, 1)
    one = torch.ones(1, 1, 1, 1)
    found = results(native.token_query, [z, one, one, (logit * one).requires_grad_()])
    right = results(plain_token_query, doubled([z, one, one, (logit * one).requires_grad_()]))
    assert found[0].item() == (1 if logit < 0 else 40)
    assert found[1].item() == pytest.approx(right[1].item(), abs=1e-30)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(results(native.token_query, tensors("training", torch.float32)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


def test_what_was_kept_may_come_back_elsewhere() -> None:
    """Hooks may move what is kept for the backward pass, to where a vector could not be read at once."""

    def moved(x: Tensor) -> Tensor:
        place = torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape)
        return place.copy_(x)

    given = tensors("training", torch.float32)
    right = results(native.token_query, given)
    with saved_tensors_hooks(moved, lambda x: x):
        found = results(native.token_query, given)
    assert all(torch.equal(x, y) for x, y in zip(found, right, strict=True))


def test_an_exported_program_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = tensors("gates of values")
    right = results(native.token_query, given)
    monkeypatch.setattr(module, "keeps", lambda: False)
    torch.testing.assert_close(results(native.token_query, given), right, **TOLERANCES[torch.float64])


def test_tokens_have_no_gradient() -> None:
    z, *rest = tensors("no gates")
    with pytest.raises(RuntimeError, match="no gradient of its tokens"):
        native.token_query(z.requires_grad_(), *rest).sum().backward()


def test_derivatives_of_any_order_and_tracers() -> None:
    z, u, a, w = tensors("gates of values")
    z, u, a, w = z[:1, :2, :3, :2], *(x.detach()[:1, :2, ..., :2].clone().requires_grad_() for x in (u, a, w))
    u = u.detach()[:, :, :2].clone().requires_grad_()
    assert gradcheck(lambda *x: native.token_query(z, *x), (u, a, w))
    assert gradgradcheck(lambda *x: native.token_query(z, *x), (u, a, w))
    torch.library.opcheck(torch.ops.gladient.token_query.default, (z, u, a, w, True))
