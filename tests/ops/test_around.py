"""What stands around a scan, as kernels: short convolutions and gated norms beside plain PyTorch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops_cases import BACKENDS
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

from gladient.integrations.convolution import convolution_step
from gladient.ops import native
from gladient.ops.native.convolution import TAPS, plain_convolution
from gladient.ops.native.norm import plain_norm
from tolerances import TOLERANCES

pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")

PACKED = [0, 3, 64, 70, 75, 140]  # two rows of 70 tokens: a border inside a block of the kernel, one at its end
NORMS: dict[str, tuple[bool, bool, int, tuple[Any, ...]]] = {
    "Mamba-2": (True, True, 19, (1e-5, True, "silu", True)),
    "Mamba-2 in groups": (True, True, 7, (1e-5, True, "silu", True)),
    "Qwen3.5": (True, True, 8, (1e-6, True, "silu", False)),
    "Kimi": (True, True, 33, (1e-6, True, "sigmoid", False)),
    "a norm alone": (False, True, 16, (1e-5, True, "none", True)),
    "length 1": (False, False, 5, (1e-6, False, "none", False)),
}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def agree(ours: Callable[..., Tensor], plain: Callable[..., tuple[Tensor]], given: list[Tensor]) -> None:
    leaves = [x.requires_grad_() for x in given]
    found, (right,) = ours(*leaves), plain(*leaves)
    upstream = normal(*right.shape, seed=9)
    torch.testing.assert_close(found, right, **TOLERANCES[torch.float64])
    mine, theirs = grad(found, leaves, upstream), grad(right, leaves, upstream)
    torch.testing.assert_close(mine, theirs, **TOLERANCES[torch.float64])


def norm_case(kind: str, dtype: torch.dtype = torch.float64, T: int = 70) -> tuple[list[Tensor], Callable[..., Any]]:
    """Tensors, of which the gates are part of a wider projection, and what calls a norm with them."""
    gated, weighed, size, options = NORMS[kind]
    width = 3 * size
    given = [normal(2, T, width, dtype=dtype)]
    given += [normal(2, T, width + 9, seed=1, dtype=dtype)[..., 4 : 4 + width]] if gated else []
    given += [normal(width, seed=2, dtype=dtype)] if weighed else []

    def of(norm: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Tensor, *rest: Tensor) -> Any:
            z, w = (rest[0] if gated else None), (rest[-1] if weighed else None)
            return norm(x, z, w, size, *options)

        return run

    return given, of


def convolution_case(taps: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    rows = normal(2, 70, 30, dtype=dtype)[..., 5:24]  # part of a wider projection
    return [rows, normal(19, taps, seed=1, dtype=dtype), normal(19, seed=2, dtype=dtype)]


@pytest.mark.parametrize("borders", [None, PACKED])
@pytest.mark.parametrize("taps", TAPS)
def test_convolutions_and_their_gradients(taps: int, borders: list[int] | None) -> None:
    for silu in (True, False):
        agree(
            lambda x, w, b, silu=silu: native.convolution(x, w, b, borders, silu),
            lambda x, w, b, silu=silu: plain_convolution(x, w, b, borders, silu),
            convolution_case(taps),
        )


@pytest.mark.parametrize("kind", NORMS)
def test_norms_and_their_gradients(kind: str) -> None:
    given, of = norm_case(kind)
    agree(of(native.norm), of(plain_norm), given)


def test_derivatives_of_any_order() -> None:
    given, of = norm_case("Mamba-2 in groups", T=2)
    inputs = tuple(x[:1].clone().requires_grad_() if x.ndim == 3 else x.requires_grad_() for x in given)
    assert gradcheck(of(native.norm), inputs)
    assert gradgradcheck(of(native.norm), inputs)
    x, w, b = convolution_case(3)
    taps = tuple(y.clone().requires_grad_() for y in (x[:1, :5, :3], w[:3], b[:3]))
    assert gradcheck(lambda x, w, b: native.convolution(x, w, b, [0, 2, 5], True), taps)
    assert gradgradcheck(lambda x, w, b: native.convolution(x, w, b, [0, 2, 5], True), taps)


def results(function: Callable[..., Any], given: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    found = function(*leaves)
    found = found[0] if isinstance(found, tuple) else found
    return [found, *grad(found, leaves, normal(*found.shape, seed=9, dtype=found.dtype))]


def test_float32_errs_no_more_than_pytorch() -> None:
    norms = norm_case("Mamba-2", torch.float32, T=300)[1]
    cases = [
        (norms(native.norm), norms(plain_norm), norm_case("Mamba-2", torch.float32, T=300)[0]),
        (
            lambda x, w, b: native.convolution(x, w, b, None, True),
            lambda x, w, b: plain_convolution(x, w, b, None, True),
            convolution_case(4, torch.float32),
        ),
    ]
    for ours, plain, given in cases:
        exact = results(plain, [x.double() for x in given])
        for mine, theirs, right in zip(results(ours, given), results(plain, given), exact, strict=True):
            off = (mine.double() - right).norm() / right.norm()
            assert off <= 1.2 * (theirs.double() - right).norm() / right.norm() + 1e-8


def test_any_number_of_threads_gives_the_same_bits() -> None:
    before, found = torch.get_num_threads(), []
    norm, of = norm_case("Mamba-2", torch.float32, T=300)
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            taps = results(lambda x, w, b: native.convolution(x, w, b, None, True), convolution_case(4, torch.float32))
            found.append([*results(of(native.norm), norm), *taps])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


@pytest.mark.parametrize("kept", [3, 4])
def test_single_tokens_go_on_from_the_last(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = (y[0] if y.ndim == 3 else y for y in convolution_case(4))
    whole = native.convolution(x[None], weight, bias, None, True)
    for watched in (False, True):
        monkeypatch.setattr(native, "unwatched", lambda *_, watched=watched: not watched)
        last = x[:kept].mT[None].clone()
        for t in range(kept, 10):
            found = convolution_step(x[None, [t]].mT.contiguous(), last, weight, bias, "silu")
            torch.testing.assert_close(found[0, :, 0], whole[0, t], **TOLERANCES[torch.float64])
        assert torch.equal(last[0], x[10 - kept : 10].mT)


def test_tracers_follow_them() -> None:
    (x, z, w), _ = norm_case("Mamba-2 in groups", T=2)
    given = [y.detach().clone().requires_grad_() for y in (x, z, w)]
    torch.library.opcheck(torch.ops.gladient.norm.default, (*given, 7, 1e-5, True, "silu", True))
    rows, weight, bias = (y.detach().clone().requires_grad_() for y in convolution_case(3))
    torch.library.opcheck(torch.ops.gladient.convolution.default, (rows, weight, bias, [0, 70, 140], True))
