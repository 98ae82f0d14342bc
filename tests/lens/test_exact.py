"""The exact recurrence against its definition, the bound of rounding against what rounding does."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from recurrences import DELTA, make, recurrences, truth

from gladient.lens import Record, Recurrence, weights
from gladient.lens.exact import compute_exact
from gladient.ops import gated_linear_attention

KINDS = ["plain", "bonus", "unread", "own", "write", "sum", "mlstm", "rwkv", *DELTA]
GATES = ["none", "scalar", "key", "rate", "channel rate"]


def assert_exact(x: Recurrence) -> None:
    """It is the definition's to a few roundings, and so is what the lens rebuilds."""
    doubled, wanted = x.double(), truth(x).output
    found = compute_exact(doubled)
    allowed = 2 * found.rounding(torch.float64) + 1e-300
    assert ((found.output - wanted).abs() <= allowed).all()
    assert ((found.output - weights.rebuild(doubled)).abs() <= allowed).all()
    assert (found.size >= found.output.abs()).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gates", GATES)
def test_it_is_the_recurrence(kind: str, gates: str) -> None:
    assert_exact(make(gates=gates, kind=kind, initial=True, extras=True))


@given(recurrences())
@settings(max_examples=80, deadline=None)
def test_shapes_and_extreme_gates(x: Recurrence) -> None:
    assert_exact(x)


def test_large_input_gates_do_not_overflow() -> None:
    for kind in ("sum", "mlstm", "rwkv"):
        x = make(kind=kind)
        assert x.log_write is not None
        moved = replace(x, log_write=x.log_write + 1000)
        found = compute_exact(moved)
        torch.testing.assert_close(found.output, weights.rebuild(moved), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["sum", "mlstm", "rwkv"])
def test_normalisers_are_those_of_the_weights(kind: str) -> None:
    x = make(kind=kind, initial=True)
    wanted = weights._attend(x)[1].movedim(1, 2)
    torch.testing.assert_close(compute_exact(x).normaliser, wanted, rtol=1e-10, atol=1e-12)


def _computed(x: Recurrence, chunk: int) -> Recurrence:
    """With the output that float32 makes in chunks of so many tokens, from differences of running sums."""
    assert x.log_gates is not None
    sums = x.log_gates.unflatten(1, (-1, chunk)).cumsum(2).flatten(1, 2)
    states, outputs = torch.zeros(*x.k.shape[::2], x.k.shape[3], x.v.shape[3]), []
    for start in range(0, x.tokens, chunk):
        q, k, v, s = (each[:, start : start + chunk] for each in (x.q, x.k, x.v, sums))
        weights = (s[:, :, None] - s[:, None]).exp().masked_fill(~torch.ones(chunk, chunk).tril().bool()[..., None], 0)
        own = torch.einsum("bthk,bihk,btih,bihv->bthv", q, k, weights, v)
        outputs.append(own + torch.einsum("bthk,bth,bhkv->bthv", q, s.exp(), states))
        left = torch.einsum("bihk,bih,bihv->bhkv", k, (s[:, -1:] - s).exp(), v)
        states = states * s[:, -1].exp()[..., None, None] + left
    return replace(x, output=torch.cat(outputs, 1))


@pytest.mark.parametrize(("chunk", "least"), [(64, 5e-7), (256, 3e-6)])
def test_what_chunks_of_a_model_round_away_is_the_models(chunk: int, least: float) -> None:
    """Gates that close fast make sums of their logs whose differences lose digits: no fault of the operands."""
    x = make(B=1, T=512, H=2, K=16, V=8, dtype=torch.float32)
    closing = torch.tensor([-0.1, -3.0]).repeat(256)[None, :, None].expand(-1, -1, 2) * torch.tensor([1.0, 5.0])
    x = replace(x, log_gates=(closing - torch.rand(1, 512, 2, generator=torch.Generator().manual_seed(0))).contiguous())
    found = Record("mixer", 0, "by hand", 0, _computed(x, chunk)).reconstruction_error
    assert least < found.error < found.tolerance < 5e-3
    assert found.lens < 1e-14
    late = replace(_computed(x, chunk), v=x.v.roll(1, 1))
    assert not Record("mixer", 0, "by hand", 0, late).reconstruction_error.passed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e-7, 1e-9])
def test_outputs_that_underflow_are_within_half_a_step(dtype: torch.dtype, size: float) -> None:
    x = make(T=40, dtype=torch.float32)
    x = replace(x, v=size * x.v)
    assert x.log_gates is not None
    exact = gated_linear_attention(x.q, x.k, x.v, g=x.log_gates)[0]
    found = Record("mixer", 0, "by hand", 0, replace(x, output=exact.to(dtype))).reconstruction_error
    assert found.passed
    info = torch.finfo(dtype)
    off = exact + 20 * exact.abs().clamp_min(info.tiny) * info.eps
    assert not Record("mixer", 0, "by hand", 0, replace(x, output=off.to(dtype))).reconstruction_error.passed


def test_a_float64_model_is_judged_by_what_it_computes_in() -> None:
    x = make(T=40)
    single = {name: getattr(x, name).float() for name in ("q", "k", "v", "log_gates")}
    exact = compute_exact(x).output
    computed = gated_linear_attention(single["q"], single["k"], single["v"], g=single["log_gates"])[0].double()
    in_single = replace(x, **single, output=computed)
    assert Record("mixer", 0, "by hand", 0, in_single).reconstruction_error.passed
    assert Record("mixer", 0, "by hand", 0, replace(x, output=exact)).reconstruction_error.passed
    assert not Record("mixer", 0, "by hand", 0, replace(x, output=computed)).reconstruction_error.passed
