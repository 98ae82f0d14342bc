"""Random recurrences, and what they are by definition: states carried token by token in float64."""

from cmath import exp as complex_exp
from dataclasses import dataclass
from math import exp
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from gladient.lens import Recurrence

__all__ = ["DELTA", "Truth", "make", "recurrences", "truth"]

DELTA = ("delta", "erase", "delta before", "erase before", "erase undecayed", "erase undecayed before")
EXTREMES = (0.0, -torch.inf, -1e4, -40.0, -1e-9, -1.0)


def make(
    B: int = 2,
    T: int = 7,
    H: int = 3,
    K: int = 4,
    V: int = 2,
    *,
    gates: str = "scalar",
    kind: str = "plain",
    initial: bool = False,
    extremes: bool = False,
    extras: bool = False,
    turns: str = "none",
    every: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Recurrence:
    """A recurrence with nothing at its default; `output` is not its own.

    Args:
        B, T, H, K, V: its sizes.
        gates: none, scalar, key, or those by a rate: rate, channel rate.
        kind: plain, bonus, unread (before the write, without bonus), own (a write's weight for its own query), write,
            sum, mlstm, rwkv, or one of `DELTA`.
        initial: whether it starts from a state.
        extremes: whether gates are drawn from `EXTREMES`.
        extras: whether it has a skip and an output gate.
        turns: none, or which channels turn together; the last pair does not, of more than one.
        every: every how many tokens there is a query, counted from the last.
        seed: seed of all numbers.
        dtype: dtype of all numbers.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=dtype)

    def closing(*shape: int) -> Tensor:
        if not extremes:
            return -uniform(*shape)
        return torch.tensor(EXTREMES, dtype=dtype)[torch.randint(len(EXTREMES), shape, generator=generator)]

    normalised = kind in ("sum", "mlstm", "rwkv")
    positions = torch.arange(T - 1, -1, -every).flip(0)
    q, k = normal(B, len(positions), H, K), normal(B, T, H, K)
    if normalised:
        q, k = q.abs() + 0.1, k.abs() + 0.1
    by_rate = {"rate": (H,), "channel rate": (H, K)}.get(gates)
    log_gates = {"none": None, "scalar": closing(B, T, H), "key": closing(B, T, H, K)}.get(gates, uniform(B, T, H))
    return Recurrence(
        q=q,
        k=torch.nn.functional.normalize(k, dim=3) if "delta" in kind else k,
        v=normal(B, T, H, V),
        output=normal(B, len(positions), H, V),
        positions=positions,
        log_gates=log_gates,
        rate=None if by_rate is None else -uniform(*by_rate),
        log_write=3 * normal(B, T, H) if kind in ("write", "sum", "mlstm", "rwkv") else None,
        beta=2 * uniform(B, T, H) if "delta" in kind or "erase" in kind else None,
        erase_query=normal(B, T, H, K) / K if "erase" in kind else None,
        erase_key=normal(B, T, H, K) / K if "erase" in kind else None,
        erase_read="before" if "undecayed" in kind else "after",
        phase=None if turns == "none" else 6.3 * uniform(B, T, H, max(1, K // 2 - 1)),
        pairs="halves" if turns == "halves" else "adjacent",
        own=uniform(B, T, H) if kind == "own" else None,
        read="before" if kind in ("bonus", "unread", "rwkv") or "before" in kind else "after",
        bonus=uniform(H, K) if kind in ("bonus", "rwkv") else None,
        initial_state=normal(B, H, K, V) if initial else None,
        normalise={"sum": "sum", "rwkv": "sum", "mlstm": "mlstm"}.get(kind, "none"),
        initial_normaliser=uniform(B, H, K) if initial and normalised else None,
        initial_log_scale=normal(B, H) if initial and normalised else None,
        eps=1e-6 if kind == "mlstm" else 0.0,
        skip=normal(B, len(positions), H, V) if extras else None,
        output_gate=normal(B, len(positions), H, V) if extras else None,
    )


@st.composite
def recurrences(draw: st.DrawFn) -> Recurrence:
    bounds = {"B": 2, "T": 9, "H": 2, "K": 4, "V": 2}
    sizes: dict[str, Any] = {name: draw(st.integers(1, most)) for name, most in bounds.items()}
    turns = draw(st.sampled_from(["none", "adjacent", "halves"])) if sizes["K"] % 2 == 0 else "none"
    each = [] if turns != "none" else ["key", "channel rate"]  # channels of a pair share their gates
    by_channel = [] if turns != "none" else ["bonus", "rwkv"]
    return make(
        **sizes,
        gates=draw(st.sampled_from(["none", "scalar", "rate", *each])),
        kind=draw(st.sampled_from(["plain", "unread", "own", "write", "sum", "mlstm", *by_channel, *DELTA])),
        turns=turns,
        initial=draw(st.booleans()),
        extremes=draw(st.booleans()),
        extras=draw(st.booleans()),
        every=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 10**6)),
    )


@dataclass(frozen=True)
class Truth:
    """By definition: gate weights [B, H, Q, T, K], implicit attention [B, H, Q, T], carry and output [B, Q, H, V]."""

    weights: Tensor
    attention: Tensor
    carry: Tensor
    output: Tensor


def truth(x: Recurrence) -> Truth:
    """One head at a time, one token at a time; the values are impulses: token i's is 1 at i and 0 elsewhere."""
    B, Q, H, K = x.q.shape
    T, V = x.tokens, x.v.shape[3]
    weights, attention = torch.zeros(B, H, Q, T, K).double(), torch.zeros(B, H, Q, T).double()
    carry = torch.zeros(B, Q, H, V).double()
    for b in range(B):
        for h in range(H):
            rows = _head(x, b, h)
            for row, t in enumerate(x.positions.tolist()):
                weights[b, h, row], attention[b, h, row], carry[b, row, h] = rows[t]
    output = torch.zeros(B, Q, H, V).double()
    for i in range(T):
        output += attention[:, :, :, i].movedim(1, 2)[..., None] * x.v[:, i, None].double()
    output = output + carry + (0 if x.skip is None else x.skip.double())
    return Truth(weights, attention, carry, output * (1 if x.output_gate is None else x.output_gate.double()))


def _gate(x: Recurrence, b: int, t: int, h: int) -> Tensor:
    K = x.k.shape[3]
    if x.log_gates is None:
        return torch.ones(K).double()
    rate = torch.ones(K).double() if x.rate is None else x.rate[h].double().expand(K)
    return (rate * x.log_gates[b, t, h].double()).exp()


def _turn(x: Recurrence, b: int, t: int, h: int, y: Tensor) -> Tensor:
    """Pairs of channels as complex numbers, each times that of its phase."""
    y, K = y.double().clone(), x.k.shape[3]
    for p, phase in enumerate([] if x.phase is None else x.phase[b, t, h].tolist()):
        i, j = (2 * p, 2 * p + 1) if x.pairs == "adjacent" else (p, p + K // 2)
        z = complex(y[i], y[j]) * complex_exp(1j * phase)
        y[i], y[j] = z.real, z.imag
    return y


def _head(x: Recurrence, b: int, h: int) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """For each position: weights [T, K], attention [T], carry [V]. The state's columns: impulses, carry, normaliser."""
    T, K, V = x.tokens, x.k.shape[3], x.v.shape[3]
    state, decays = torch.zeros(K, T + V + 1).double(), torch.zeros(T, K).double()
    started = x.initial_state is not None or x.initial_normaliser is not None or x.normalise != "sum"
    m = 0.0 if started else -torch.inf
    if x.initial_log_scale is not None:
        m = x.initial_log_scale[b, h].item()
    if x.initial_state is not None:
        state[:, T : T + V] = x.initial_state[b, h].double() * exp(m)
    if x.initial_normaliser is not None:
        state[:, -1] = x.initial_normaliser[b, h].double() * exp(m)
    found = {}
    rows = {t: row for row, t in enumerate(x.positions.tolist())}
    for t in range(T):
        gate, k = _gate(x, b, t, h), _turn(x, b, t, h, x.k[b, t, h])
        write = 0.0 if x.log_write is None else x.log_write[b, t, h].item()
        value = torch.zeros(T + V + 1).double()
        value[t] = value[-1] = 1.0
        before, m_before, decays_before = state, m, decays.clone()
        state, decays = gate[:, None] * state, decays * gate
        if x.beta is None:
            state = state + exp(write) * torch.outer(k, value)
        else:
            beta = x.beta[b, t, h].double()
            reads = beta * k if x.erase_query is None else _turn(x, b, t, h, x.erase_query[b, t, h])
            place = k if x.erase_key is None else _turn(x, b, t, h, x.erase_key[b, t, h])
            erased = torch.outer(place, reads @ (state if x.erase_read == "after" else before))
            state = state + beta * torch.outer(k, value) - erased
        decays[t] = exp(write)
        m = max(m + gate.log().max().item(), write)
        if t not in rows:
            continue
        q = _turn(x, b, t, h, x.q[b, rows[t], h])
        if x.read == "after":
            o, seen, scale = q @ state, decays, m
            if x.own is not None:
                own, seen = x.own[b, t, h].item(), decays.clone()
                o = q @ (gate[:, None] * before) + own * (q @ k) * value
                seen[t] = own
        else:
            u = torch.zeros(K).double() if x.bonus is None else x.bonus[h].double()
            o = q @ before + exp(write) * (q * u * k).sum() * value
            seen, scale = decays_before, max(m_before, write)
            if x.bonus is not None:
                seen[t] = exp(write)
        shrink = 1.0 if x.normalise == "none" or x.log_write is None else exp(-scale)
        total = {
            "none": 1.0,
            "sum": o[-1].item(),
            "mlstm": (max(abs(o[-1].item()) * shrink, shrink) + x.eps) / shrink,
        }[x.normalise]
        found[t] = (seen * shrink, o[:T] / total, o[T : T + V] / total)
    return found
