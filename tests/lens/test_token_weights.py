import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from recurrences import DELTA, make, recurrences, truth
from torch import Tensor

from gladient.lens import Recurrence, weights

KINDS = ["plain", "bonus", "unread", "own", "write", "sum", "mlstm", "rwkv", *DELTA]
GATES = ["none", "scalar", "key", "rate", "channel rate"]


def assert_same(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def assert_true(x: Recurrence) -> None:
    """Everything that is read off a recurrence is what its definition says."""
    wanted, doubled = truth(x), x.double()
    assert_same(weights.implicit_attention(doubled), wanted.attention)
    assert_same(weights.gate_weights(doubled), wanted.weights.mean(4))
    assert_same(weights.carry(doubled), wanted.carry)
    assert_same(weights.rebuild(doubled), wanted.output)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gates", GATES)
def test_everything_is_what_the_recurrence_says(kind: str, gates: str) -> None:
    assert_true(make(gates=gates, kind=kind, initial=True, extras=True))


@given(recurrences())
@settings(max_examples=80, deadline=None)
def test_shapes_and_extreme_gates(x: Recurrence) -> None:
    assert_true(x)


def test_a_gate_of_zero_forgets_all_before_it_and_nothing_after() -> None:
    x = make(B=1, H=1, T=4)
    found = weights.gate_weights(replace(x, log_gates=torch.tensor([0.0, 0.0, -torch.inf, 0.0])[None, :, None]))
    assert found[0, 0].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("gates", ["none", "scalar", "rate"])
@pytest.mark.parametrize("kind", ["plain", "bonus", "write"])
def test_attention_is_gates_times_similarity(gates: str, kind: str) -> None:
    x = make(gates=gates, kind=kind).double()
    assert_same(weights.gate_weights(x) * weights.similarity(x), weights.implicit_attention(x))


@pytest.mark.parametrize("kind", ["plain", "bonus", "write"])
def test_attention_is_the_sum_over_channels_where_these_have_gates(kind: str) -> None:
    x = make(gates="key", kind=kind)
    each = (weights.gate_weights(x, channel=c) * weights.similarity(x, channel=c) for c in range(4))
    assert_same(sum(each, torch.zeros(())), weights.implicit_attention(x))


@pytest.mark.parametrize("extremes", [False, True])
def test_every_channel_has_its_own_weights(extremes: bool) -> None:
    x = make(gates="key", extremes=extremes)
    wanted = truth(x).weights
    assert_same(weights.channel_weights(x), wanted)
    for channel in range(4):
        assert_same(weights.gate_weights(x, channel=channel), wanted[..., channel])


@pytest.mark.parametrize("every", [1, 7, 50, 199])
@pytest.mark.parametrize("kind", ["plain", "bonus", "delta", "erase"])
def test_blocks_of_queries_do_not_show(every: int, kind: str) -> None:
    assert_true(make(B=1, H=1, K=2, T=200, gates="key", kind=kind, every=every, extremes=every == 7))


def test_queries_in_any_order() -> None:
    x = make(T=100, gates="key")
    mixed = x.select(None, [70, 3, 99, 4, 5])
    assert_same(weights.implicit_attention(mixed), weights.implicit_attention(x)[:, :, [70, 3, 99, 4, 5]])


@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0, 30.0, 1e4])
def test_weights_after_many_gates_lose_nothing(size: float) -> None:
    T = 5000
    generator = torch.Generator().manual_seed(0)
    gates = -size * torch.rand(T, generator=generator, dtype=torch.float64) ** 8  # a few close, most are open
    x = replace(make(B=1, H=1, K=1, T=T, every=T), log_gates=gates[None, :, None])
    found = weights.gate_weights(x)[0, 0, 0].tolist()
    listed = gates.tolist()
    for i in [*range(0, T - 200, 97), *range(T - 200, T)]:
        wanted = math.exp(math.fsum(listed[i + 1 :]))
        assert found[i] == pytest.approx(wanted, rel=2e-13, abs=1e-300)


@pytest.mark.parametrize("kind", ["sum", "mlstm", "rwkv"])
def test_large_input_gates_do_not_overflow(kind: str) -> None:
    x = make(kind=kind, initial=kind == "rwkv")
    wanted = weights.implicit_attention(x)
    assert x.log_write is not None
    moved = replace(x, log_write=x.log_write + 1000, initial_log_scale=_moved(x.initial_log_scale))
    found = weights.implicit_attention(moved)
    assert found.isfinite().all()
    if kind != "mlstm":  # whose floor e^-m does not move along
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def _moved(scale: Tensor | None) -> Tensor | None:
    return None if scale is None else scale + 1000
