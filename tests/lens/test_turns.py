"""Rotation: signed weights by their definition, writes of several ranks, and the calls of our operators that turn."""

from dataclasses import replace
from math import cos, hypot
from typing import Any

import pytest
import torch
from recurrences import make, truth
from torch import Tensor, nn
from torch.nn import functional

from gladient import lens
from gladient.lens import Record, Recurrence, weights
from gladient.lens.exact import compute_exact
from gladient.nn import InContextRegressor, LayerConfig
from gladient.ops import (
    cumulative_angles,
    gated_delta_rule,
    gated_linear_attention,
    generalized_delta_rule,
    mamba3,
    rotate,
)

B, T, H, K, V = 2, 9, 4, 4, 2
TURNS = ["adjacent", "halves"]


def assert_same(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def paired(turns: str, kind: str = "plain") -> Recurrence:
    """Key gates that the channels of a pair share."""
    x = make(T=16, gates="key", kind=kind, turns=turns, initial=True, every=3)
    assert x.log_gates is not None
    each = x.log_gates[..., :2]
    return replace(x, log_gates=each.repeat_interleave(2, 3) if turns == "adjacent" else each.repeat(1, 1, 1, 2))


def pair_of(turns: str, p: int) -> list[int]:
    return [2 * p, 2 * p + 1] if turns == "adjacent" else [p, p + 2]


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("kind", ["own", "delta"])
@pytest.mark.parametrize("gates", ["scalar", "key"])
def test_signed_weights_are_their_definition(turns: str, kind: str, gates: str) -> None:
    x = paired(turns, kind) if gates == "key" else make(T=9, kind=kind, turns=turns)
    assert x.phase is not None
    found, decays, record = weights.signed_weights(x), truth(x).weights, Record("mixer", 0, "by hand", 0, x)
    pairs = [pair_of(turns, p) for p in range(2)]
    each = [record.signed_weights(2, channel=pair[1])[1, 0] for pair in pairs]
    for row, t in enumerate(x.positions.tolist()):
        for i in range(x.tokens):
            signed = most = 0.0
            for p, pair in enumerate(pairs):
                angle = (x.phase[1, t, 2, p] - x.phase[1, i, 2, p]).item() if p < x.phase.shape[3] else 0.0
                weight = decays[1, 2, row, i, pair[0]].item() * cos(angle)
                assert each[p][row, i].item() == pytest.approx(weight, abs=1e-12)
                size = hypot(*x.q[1, row, 2, pair].tolist()) * hypot(*x.k[1, i, 2, pair].tolist())
                signed, most = signed + size * weight, most + size
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


def test_on_the_theorys_keys_signed_weights_are_its_weights() -> None:
    """Keys and queries along the first channel of each pair, one angle: one step of descent weighted by decay · cos."""
    x = make(T=9, turns="halves", K=2)
    first = torch.tensor([1.0, 0.0]).double()
    x = replace(x, q=first * x.q, k=first * x.k)
    signed, plain = weights.signed_weights(x), weights.similarity(replace(x, phase=None))
    assert_same(weights.implicit_attention(x), signed * plain)


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


class _Rotating(nn.Module):
    """Turns what it reads and writes by, and calls the operator that goes with it."""

    def forward(self, angles: Tensor, turned: tuple[str, ...] = ("q", "k"), last: bool = False, **given: Any) -> Tensor:
        given |= {name: rotate(given[name], angles, "halves") for name in turned}
        given |= {"q": given["q"][:, -1:]} if last else {}
        operator: Any = gated_delta_rule if "beta" in given else gated_linear_attention
        operator = generalized_delta_rule if "a" in given else operator
        return operator(**given)[0]


def turning(*names: str) -> dict[str, Any]:
    """Operands by name, and angles that all heads share, in float64."""
    generator = torch.Generator().manual_seed(0)
    channels = {"g": (), "beta": (), "v": (V,), "gv": (V,)}
    given = {
        name: torch.randn(B, T, H, *channels.get(name, (K,)), generator=generator).double()
        for name in ("q", "k", "v", *names)
    }
    given |= {name: functional.logsigmoid(given[name]) for name in ("g", "gk", "gv") if name in names}
    given |= {name: given[name].sigmoid() for name in ("beta",) if name in names}
    return given | {"angles": torch.randn(B, T, 1, 1, generator=generator).double()}


@pytest.mark.parametrize(
    "names", [("g",), ("gv",), ("beta", "g"), ("beta", "erase_keys"), ("g", "a", "b")], ids=" ".join
)
def test_rotations_before_an_operator_are_read(names: tuple[str, ...]) -> None:
    given, model = turning(*names), _Rotating()
    given["turned"] = ("q", "k", *(name for name in names if name in ("erase_keys", "a", "b")))
    with lens.capture(model) as trace:
        model(**given)
    (record,) = trace.records
    assert record.recurrence.phase is not None
    phase = cumulative_angles(given["angles"]).expand(-1, -1, record.heads, -1)
    torch.testing.assert_close(record.recurrence.phase, phase)
    assert record.reconstruction_error.passed
    late = replace(record.recurrence, phase=phase.roll(1, 1))
    assert not replace(record, recurrence=late).reconstruction_error.passed


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("g",), {"turned": ("k",)}),
        (("g",), {"last": True}),
        (("g", "a", "b"), {"turned": ("q", "k", "a")}),
        (("gk",), {}),
    ],
)
def test_rotations_that_are_not_the_states_are_read_as_keys(names: tuple[str, ...], options: dict[str, Any]) -> None:
    """One of two turned, gates that do not commute with a turn: right, and without a sign."""
    given, model = turning(*names), _Rotating()
    with lens.capture(model) as trace:
        model(**given, **options)
    (record,) = trace.records
    assert record.recurrence.phase is None
    assert record.reconstruction_error.passed


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("write", ["plain", "delta"])
def test_own_layers_that_turn_are_read(write: Any, last: bool) -> None:
    config = LayerConfig(gate="scalar", write=write, rotation="token", key_dim=4, value_dim=V, scale=0.25)
    model, tokens = InContextRegressor(5, config).double(), torch.randn(B, T, 5, dtype=torch.float64)
    torch.nn.init.normal_(model.readout)
    with lens.capture(model) as trace:
        model(tokens) if last else model.layer(tokens)
    (record,) = trace.records
    assert record.architecture == "gladient"
    assert record.recurrence.phase is not None
    assert record.shape[1] == (1 if last else T)
    assert record.reconstruction_error.passed


class _Mamba3(nn.Module):
    def forward(self, state: Any = None, **given: Any) -> Any:
        return mamba3(**given, state=state, output_final_state=True, scale=0.7)


@pytest.mark.parametrize("ranks", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_mamba3_is_read_in_pieces_and_steps(ranks: int, dtype: torch.dtype) -> None:
    generator, model, shape = torch.Generator().manual_seed(0), _Mamba3(), (ranks,) if ranks else ()
    sizes = {"q": (2, *shape, 6), "k": (1, *shape, 6), "v": (H, *shape, V), "g": (H,), "step": (H,), "mix": (H,)}
    sizes["angles"] = (H, 2)
    made = {name: torch.randn(B, T, *size, generator=generator).to(dtype) for name, size in sizes.items()}
    made |= {"g": -made["g"].exp(), "step": made["step"].exp(), "mix": made["mix"].sigmoid()}
    state, outputs = None, []
    with lens.capture(model) as trace:
        for part in ([0, 4], [4, T - 1], [T - 1, T]):
            o, state = model(**{name: x[:, slice(*part)] for name, x in made.items()}, state=state)
            outputs.append(o)
    whole = _Mamba3()(**made)[0]
    torch.testing.assert_close(torch.cat(outputs, 1), whole)
    assert [record.shape for record in trace.records] == [
        (B, n, H * max(ranks, 1), n * max(ranks, 1)) for n in (4, T - 5, 1)
    ]
    for record in trace.records:
        assert record.reconstruction_error.passed
        x = record.recurrence
        assert x.phase is not None
        assert x.initial_state is not None
        assert x.own is not None
        turn = 0.1 * (torch.arange(x.tokens) + 1)[:, None, None]
        broken: dict[str, Any] = {"initial_state": 0.9 * x.initial_state} if record.call else {"own": 0.9 * x.own}
        for each in (broken, {"phase": x.phase + turn}):
            assert not replace(record, recurrence=replace(x, **each)).reconstruction_error.passed
        signed, decay = record.signed_weights(), record.gate_weights()
        assert (signed.abs() <= decay * (1 + 1e-6)).all()
    assert (trace.records[1].signed_weights() < 0).any()
