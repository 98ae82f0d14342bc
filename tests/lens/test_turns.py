"""Rotation: signed weights by their definition, writes of several ranks, and what a recurrence refuses."""

from dataclasses import replace
from math import cos, hypot
from typing import Any

import pytest
import torch
from recurrences import make, truth
from torch import Tensor

from gladient.lens import Record, Recurrence, weights
from gladient.lens.exact import compute_exact
from gladient.ops import mamba3

TURNS = ["adjacent", "halves"]


def assert_same(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def paired(turns: str, kind: str = "plain") -> Recurrence:
    """Key gates that the channels of a pair share."""
    x = make(T=40, gates="key", kind=kind, turns=turns, initial=True, every=3)
    assert x.log_gates is not None
    each = x.log_gates[..., :2]
    return replace(x, log_gates=each.repeat_interleave(2, 3) if turns == "adjacent" else each.repeat(1, 1, 1, 2))


def pair_of(turns: str, p: int) -> list[int]:
    return [2 * p, 2 * p + 1] if turns == "adjacent" else [p, p + 2]


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("kind", ["plain", "own", "delta", "erase undecayed"])
@pytest.mark.parametrize("gates", ["scalar", "key"])
def test_signed_weights_are_their_definition(turns: str, kind: str, gates: str) -> None:
    x = paired(turns, kind) if gates == "key" else make(T=9, kind=kind, turns=turns)
    assert x.phase is not None
    found, decays, record = weights.signed_weights(x), truth(x).weights, Record("mixer", 0, "by hand", 0, x)
    for row, t in list(enumerate(x.positions.tolist()))[::2]:
        for i in range(x.tokens):
            signed = most = 0.0
            for p in range(2):
                pair = pair_of(turns, p)
                angle = (x.phase[1, t, 2, p] - x.phase[1, i, 2, p]).item() if p < x.phase.shape[3] else 0.0
                each = decays[1, 2, row, i, pair[0]].item() * cos(angle)
                assert record.signed_weights(2, t, channel=pair[1])[1, 0, 0, i].item() == pytest.approx(each, abs=1e-12)
                size = hypot(*x.q[1, row, 2, pair].tolist()) * hypot(*x.k[1, i, 2, pair].tolist())
                signed, most = signed + size * each, most + size
            assert found[1, 2, row, i].item() == pytest.approx(signed / most, abs=1e-12)


@pytest.mark.parametrize("turns", TURNS)
def test_what_turns_is_rebuilt_exactly(turns: str) -> None:
    for x in (paired(turns), paired(turns, "delta"), make(kind="own", turns=turns, initial=True, extras=True)):
        wanted, exact = truth(x), compute_exact(x)
        assert_same(weights.implicit_attention(x), wanted.attention)
        assert_same(weights.rebuild(x), wanted.output)
        assert_same(exact.output, wanted.output)
        assert (exact.size >= exact.output.abs()).all()
        assert x.turned.turned.phase is None


def test_one_angle_for_all_pairs_is_the_decay_times_its_cosine() -> None:
    x = make(T=9, turns="adjacent", K=2)
    assert x.phase is not None
    phase = x.phase[..., 0].movedim(1, 2)
    turn = (phase[:, :, :, None] - phase[:, :, None]).cos()
    assert_same(weights.signed_weights(x), weights.gate_weights(x) * turn)
    still = replace(x, phase=torch.zeros_like(x.phase))
    assert_same(weights.signed_weights(still), weights.gate_weights(x))
    assert_same(weights.implicit_attention(still), weights.implicit_attention(replace(x, phase=None)))


def test_a_step_of_what_turns_predicts_its_output() -> None:
    record = Record("mixer", 0, "by hand", 0, make(kind="own", turns="halves"))
    view = record.wpgd_view(1, 5)
    assert view.omega is not None
    assert_same(view.omega * (view.keys @ view.query), view.attention)
    assert_same(view.prediction, record.rebuild(1, 5)[0, 0, 0])


def test_queries_and_keys_of_zero_have_no_signed_weight() -> None:
    x = make(turns="adjacent")
    found = weights.signed_weights(replace(x, k=x.k * (torch.arange(x.tokens) > 1)[:, None, None]))
    assert found.isfinite().all()
    assert not found[..., :2].any()


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_ranks_are_written_together(ranks: int) -> None:
    """Against Mamba-3's operator, whose ranks read all of their step."""
    B, T, H, K, V, P = 2, 6, 2, 4, 3, 2
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k, v = normal(B, T, H, ranks, K), normal(B, T, H, ranks, K), normal(B, T, H, ranks, V)
    g, mix, angles = -normal(B, T, H).exp(), normal(B, T, H).sigmoid(), normal(B, T, H, P)
    o, _ = mamba3(q, k, v, g, torch.ones(B, T, H).double(), mix, angles)
    written = mix + torch.cat([1 - mix[:, 1:], 0 * mix[:, :1]], 1)
    phase, gates = angles.cumsum(1).repeat_interleave(ranks, 1), torch.zeros(B, T * ranks, H).double()
    gates[:, ::ranks] = g
    for rank in range(ranks):
        x = Recurrence(
            q=q[:, :, :, rank],
            k=k.movedim(3, 2).flatten(1, 2),
            v=(written[..., None, None] * v).movedim(3, 2).flatten(1, 2),
            output=o[:, :, :, rank],
            positions=torch.arange(ranks - 1, T * ranks, ranks),
            log_gates=gates,
            phase=phase,
            own=(mix / written).repeat_interleave(ranks, 1),
            ranks=ranks,
        )
        assert_same(weights.rebuild(x), x.output)
        assert_same(compute_exact(x).output, x.output)
        record = Record("mixer", 0, "by hand", 0, x)
        assert record.reconstruction_error.passed
        mass = record.gate_weights(0, ranks - 1)[0, 0, 0]
        assert_same(mass, (mix / written)[0, 0, 0] * (torch.arange(T * ranks) < ranks))


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("plain", {"pairs": "odd"}, "pairs is 'odd'; it must be one of adjacent, halves"),
        ("delta", {"erase_read": "never"}, "erase_read is 'never'"),
        ("plain", {"phase": torch.zeros(2, 7, 3, 3)}, "P of K / 2 pairs"),
        ("delta", {"own": torch.ones(2, 7, 3)}, "own and ranks go with plain"),
        ("unread", {"own": torch.ones(2, 7, 3)}, "own and ranks go with plain"),
        ("mlstm", {"ranks": 2}, "own and ranks go with plain"),
    ],
)
def test_recurrences_that_cannot_be(kind: str, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(make(kind=kind), **wrong)


def test_layers_that_do_not_turn_have_no_signed_weights() -> None:
    with pytest.raises(ValueError, match=r"mixer does not rotate: .* ask for gate_weights"):
        Record("mixer", 0, "by hand", 0, make()).signed_weights()
