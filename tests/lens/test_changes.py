"""Ready-made changes in float64, against weights edited by hand: plain loops whose values are impulses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from recurrences import DELTA, make, truth
from torch import Tensor

from gladient import lens
from gladient.lens import Change, Record, Recurrence, Trace
from gladient.lens.merging import merged
from gladient.lens.token_changes import compute

KINDS = ["plain", "bonus", "own", "write", "sum", "mlstm", "rwkv", *DELTA]
PLAIN = ["plain", "bonus", "unread", "own", "write"]
SOURCES, TARGETS = [1, 3, 4], [2, 4, 6]


def record_of(x: Recurrence) -> Record:
    return Record("mixer", 0, "by hand", 0, x)


def changed(x: Recurrence, change: Change) -> Tensor:
    return compute(change, record_of(x))


def by_hand(x: Recurrence, attention: Tensor) -> Tensor:
    """The output of these weights, and of the carry, skip and output gate that the recurrence has."""
    o = torch.einsum("bhqt,bthv->bqhv", attention, x.v) + truth(x).carry
    o = o if x.skip is None else o + x.skip
    return o if x.output_gate is None else o * x.output_gate


def assert_same(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turns", ["none", "halves"])
def test_knocked_out_weights_are_zero(kind: str, turns: str) -> None:
    if turns != "none" and kind in ("bonus", "rwkv"):
        return  # channels of a bonus do not turn
    x = make(kind=kind, extras=True, turns=turns)
    attention = truth(x).attention
    every, some = attention.clone(), attention.clone()
    every[..., SOURCES] = 0
    some[:, :, torch.tensor(TARGETS)[:, None], torch.tensor(SOURCES)] = 0
    assert_same(changed(x, lens.knock_out(SOURCES)), by_hand(x, every))
    assert_same(changed(x, lens.knock_out(SOURCES, TARGETS)), by_hand(x, some))
    assert not torch.allclose(some, attention)


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_keeps_what_is_near(kind: str) -> None:
    x = make(kind=kind, extras=True, every=2)
    age = x.positions[:, None] - torch.arange(x.tokens)
    assert_same(changed(x, lens.keep_window(3)), by_hand(x, truth(x).attention * (age < 3)))
    assert_same(changed(x, lens.keep_window(x.tokens)), truth(x).output)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bonus"])
def test_dropped_tokens_are_those_of_a_text_without_them(kind: str) -> None:
    """Their gates stay: each is multiplied into the next token's, unless something is read in between."""
    x = make(kind=kind, T=6, gates="key" if kind in ("plain", "delta", "erase") else "scalar")
    kept, dropped = [0, 1, 3, 5], [2, 4]
    assert x.log_gates is not None
    gates = x.log_gates.clone()
    if x.read == "before" or x.erase_read == "before":
        gates[:, dropped] = 0
        x = replace(x, log_gates=gates)
    else:
        gates[:, [3, 5]] += gates[:, dropped]
    names = ("k", "v", "q", "output", "log_write", "beta", "erase_query", "erase_key", "own")
    parts: dict[str, Any] = {name: value[:, kept] for name in names if (value := getattr(x, name)) is not None}
    without = replace(x, **parts, log_gates=gates[:, kept], positions=torch.arange(4))
    found = changed(x, lens.drop_tokens(dropped))
    assert_same(found[:, kept], truth(without).output)
    assert found.isfinite().all()


@pytest.mark.parametrize("gates", ["scalar", "key", "rate", "channel rate"])
@pytest.mark.parametrize("kind", ["plain", "write", "sum", "delta", "erase undecayed"])
def test_gates_are_powers_constants_and_mixtures(gates: str, kind: str) -> None:
    x = make(kind=kind, gates=gates, initial=True)
    own = x.log_decay
    assert own is not None
    H, K = x.heads, x.k.shape[3]
    factor, fixed = torch.rand(H).double(), -torch.rand(H, K).double()
    wide = own if own.ndim == 4 else own[..., None].expand(x.k.shape)

    def of(log_gates: Tensor) -> Tensor:
        return truth(replace(x, log_gates=log_gates, rate=None)).output

    assert_same(changed(x, lens.scale_gates(2.0)), of(2 * own))
    assert_same(changed(x, lens.scale_gates(factor)), of(wide * factor[:, None]))
    assert_same(changed(x, lens.fix_gates({0: fixed})), of(fixed.expand_as(wide)))
    assert_same(changed(x, lens.fix_gates(0.0)), of(torch.zeros_like(own)))
    mixed = lens.mix_gates({0: fixed}, {0: factor})
    assert_same(changed(x, mixed), of(fixed + factor[:, None] * (wide - fixed)))
    other = make(kind=kind, gates=gates, seed=1)
    assert other.log_decay is not None
    assert_same(changed(x, lens.patch_gates(Trace([record_of(other)]))), of(other.log_decay))


def test_a_gate_of_zero_stays_zero_and_takes_no_gradient_with_it() -> None:
    x, factor = make(extremes=True, T=30), torch.zeros((), dtype=torch.float64, requires_grad=True)
    assert x.log_gates is not None
    assert torch.isneginf(x.log_gates).any()
    closed = torch.where(torch.isneginf(x.log_gates), -torch.inf, 0.0)
    for change in (lens.scale_gates(factor), lens.mix_gates(0.0, factor)):
        found = changed(x, change)
        assert_same(found.detach(), truth(replace(x, log_gates=closed)).output)
        (slope,) = torch.autograd.grad(found.sum(), factor)
        assert slope.isfinite()


@pytest.mark.parametrize("kind", DELTA)
def test_less_erasing_up_to_a_plain_write(kind: str) -> None:
    x = make(kind=kind, initial=True)
    assert x.beta is not None
    plain = make(kind="unread" if x.read == "before" else "plain", initial=True)
    plain = replace(x, k=x.beta[..., None] * x.k, beta=None, erase_query=None, erase_key=None, erase_read="after")
    assert_same(changed(x, lens.scale_erase(0.0)), truth(plain).output)
    half = replace(x, erase_query=x.erasing[0] / 2)
    assert_same(changed(x, lens.scale_erase(0.5)), truth(half).output)
    assert_same(changed(x, lens.scale_erase(1.0)), truth(x).output)


@pytest.mark.parametrize("kind", [kind for kind in PLAIN if kind != "own"])
def test_weights_by_hand(kind: str) -> None:
    x = make(kind=kind, extras=True)
    seen = truth(x).weights[..., 0] != 0
    similarity = torch.einsum("bqhk,bthk->bhqt", x.q, x.k)
    if x.bonus is not None:
        own = torch.einsum("bqhk,hk,bqhk->bhq", x.q, x.bonus, x.k)
        similarity = torch.where(torch.eye(x.tokens).bool(), own[..., None], similarity)
    for shape in [(7,), (7, 7), (3, 7, 7)]:
        omega = torch.randn(shape).double()
        assert_same(changed(x, lens.set_weights(omega)), by_hand(x, seen * omega * similarity))


@pytest.mark.parametrize("kind", KINDS)
def test_an_ablated_recurrence_leaves_skip_and_output_gate(kind: str) -> None:
    x = make(kind=kind, initial=True, extras=True)
    assert x.skip is not None
    assert x.output_gate is not None
    assert_same(changed(x, lens.ablate()), x.skip * x.output_gate)


@pytest.mark.parametrize("shared", [False, True])
def test_gates_of_rates_and_steps_are_not_multiplied_out(shared: bool) -> None:
    """As in Mamba: a head for each channel, one query and key for all, a rate for each channel and state."""
    x = make(kind="plain", gates="channel rate", V=1, H=5, initial=True)
    x = replace(x, q=x.q[:, :, :1].expand_as(x.q), k=x.k[:, :, :1].expand_as(x.k)) if shared else x
    made = lens.scale_gates(0.5)(record_of(x))
    assert made.log_gates is x.log_gates
    assert_same(changed(x, lens.scale_gates(0.5)), truth(made).output)
    whole = replace(x, initial_state=None)
    dropped = lens.drop_tokens([1])(record_of(whole))
    assert (dropped.k.stride(2) == 0) == shared
    assert_same(changed(whole, lens.drop_tokens([1])), truth(dropped).output)


@pytest.mark.parametrize("kind", ["plain", "delta", "sum", "rwkv"])
@pytest.mark.parametrize("gates", ["none", "scalar", "key", "rate", "channel rate"])
def test_some_heads_of_a_change_beside_the_others_of_the_model(kind: str, gates: str) -> None:
    x, heads = make(kind=kind, gates=gates, extras=kind == "plain"), [0, 2]
    changes = [lens.fix_gates(-0.5), lens.knock_out([1], [4])]
    changes += [lens.scale_erase(0.5)] if x.beta is not None else []
    for change in changes:
        made = change(record_of(x))
        both = truth(merged(x, made, heads)).output
        assert_same(both[:, :, heads], truth(made).output[:, :, heads])
        assert_same(both[:, :, 1], truth(x).output[:, :, 1])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lens.knock_out([7]), {}, "there is no token 7; there are 7, 0 to 6"),
        (lens.knock_out([0], [9]), {}, "there is no token 9"),
        (lens.drop_tokens(0), {"initial": True}, r"layer 0 \(mixer\) continues a cache"),
        (lens.keep_window(2), {"initial": True}, "run the whole text in one call, or change the first call alone"),
        (lens.scale_gates(2.0), {"gates": "none"}, "has no gates to change; leave it out: layers="),
        (lens.patch_gates(Trace()), {}, "layer 0 has no record of call 0"),
        (lens.patch_gates(Trace([record_of(make(T=5))])), {}, "are of 2 rows of 5 tokens .* has 2 rows of 7 tokens"),
        (lens.fix_gates({3: -1.0}), {}, r"log_gate has layers \[3\] and none for layer 0"),
        (lens.fix_gates(torch.zeros(2)), {}, r"log_gate has shape \[2\]; it is a number, \[3\] or \[3, 4\]"),
        (lens.scale_gates(torch.zeros(3, 4)), {}, r"factor has shape \[3, 4\]; it is a number, \[3\]"),
        (lens.scale_erase(0.0), {}, "follows no delta rule: it erases nothing"),
        (lens.set_weights(torch.zeros(7)), {"kind": "sum"}, "normalises or erases"),
        (lens.set_weights(torch.zeros(5)), {}, r"omega has shape \(5,\)"),
    ],
)
def test_what_cannot_be_changed_so_is_refused(change: Change, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(make(**options), change)


def test_a_window_has_a_width_and_no_gradient() -> None:
    with pytest.raises(ValueError, match="a width of 0; 1 is"):
        lens.keep_window(0)
    x = make()
    x.v.requires_grad_()
    with pytest.raises(ValueError, match="keep_window has no gradient"):
        changed(x, lens.keep_window(2))
    with torch.no_grad():
        changed(x, lens.keep_window(2))
