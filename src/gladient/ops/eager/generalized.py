"""The generalised delta rule: beside its own write, a token moves what the state holds for one key along another."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from gladient.ops.call import Call
from gladient.ops.eager.chunked import chunk_decays, fold
from gladient.ops.eager.correcting import Rule, outputs
from gladient.ops.eager.parallel import from_state, scores, weighted_sums
from gladient.ops.eager.recurrent import each_token
from gladient.ops.gates import Gates, decayed, earlier, exclusive_suffix_sum, to_heads, weighted_keys
from gladient.ops.sequences import accumulation, from_states

__all__ = ["RULE", "chunks", "last_query", "recurrent", "run"]


def run(call: Call, form: str, recompute: bool) -> tuple[Tensor, Tensor | None]:
    """Outputs in v's dtype, and the final state or None."""
    given = (call.k, call.v, call.a, call.b)
    return outputs(RULE, call, form, recompute, tuple(accumulation(to_heads(x, call.heads)) for x in given))  # type: ignore[arg-type]


def recurrent(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    a: Float[Tensor, "B T H K"],
    b: Float[Tensor, "B T H K"],
    gates: Gates,
    *,
    scale: float,
    initial_state: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    r"""$S_t = D_t S_{t-1} + b_t (S_{t-1}^\top a_t)^\top + k_t v_t^\top$, $o_t = \mathrm{scale}\; S_t^\top q_t$.

    >>> one, half = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1), 0.5).log()
    >>> o, state = recurrent(one, one, one, -one / 4, one, Gates(g=half), scale=1.0, initial_state=4 * one)
    >>> o.item(), state.item()
    (2.0, 2.0)
    """

    def step(S: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_gate: Tensor | None = None) -> Any:
        u = from_states(a, S)
        S = S if log_gate is None else decayed(S, log_gate)
        S = S + b[..., None] * u[..., None, :] + k[..., None] * v[..., None, :]
        return S, scale * from_states(q, S)

    S, o = each_token(step, initial_state, (q, k, v, a, b, gates.to_heads(q.shape[2]).combined()))
    return (v[:, :0] if o is None else o), S


def chunks(
    size: int, S: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor | None, gk: Tensor | None
) -> tuple[Tensor, Tensor]:
    r"""The same in chunks of `size` tokens, whose $u_t = S_{t-1}^\top a_t$ solve one triangular system.

    $(I - A_{ab})\, U = A_{ak} V + (\Gamma \odot a) S_0$ with $A_{ab}[i, j] = a_i^\top (\Gamma_{j \to i-1} \odot b_j)$
    for j < i, and Γ the products of gates up to the token before; then b and U are keys and values beside k and V.
    Every Γ is the exponential of a sum of its own: the state is read before its decay, so that no gate divides.

    Source: derived.

    >>> one, half = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1), 0.5).log()
    >>> o, state = chunks(1, 4 * one, one, one, one, -one / 4, one, half, None)
    >>> o.item(), state.item()
    (2.0, 2.0)
    """
    B, n = q.shape[0], q.shape[1] // size
    q, k, v, a, b = (fold(x, size) for x in (q, k, v, a, b))
    gates = Gates(g, gk).each(lambda gate: fold(gate, size))
    after = gates.each(lambda gate: exclusive_suffix_sum(gate).exp())
    # products of the gates of the tokens before each one, its own left out: 1 for the first
    before = gates.each(lambda gate: _later(gate.cumsum(1)).exp())
    sooner = earlier(a)  # a token's a reads after the token before it, as a query sent in there would
    by_b, by_k = (_later(scores(sooner, x, gates).transpose(1, 2)).transpose(1, 2) for x in (b, k))
    right = torch.cat([weighted_sums(by_k, v), weighted_keys(a, before)], -1).transpose(1, 2)
    solved = torch.linalg.solve_triangular(-by_b, right, upper=False, unitriangular=True)
    free, bound = (x.unflatten(0, (B, n)).unbind(1) for x in solved.split([v.shape[3], k.shape[3]], -1))
    late_b, late_k = (weighted_keys(x, after).permute(0, 2, 3, 1).unflatten(0, (B, n)) for x in (b, k))
    written = (late_k @ v.transpose(1, 2).unflatten(0, (B, n))).unbind(1)
    states, values = [], []
    decays = chunk_decays(gates, B, n)
    for free_n, bound_n, late_n, written_n, decay_n in zip(free, bound, late_b.unbind(1), written, decays, strict=True):
        states.append(S)
        values.append(free_n + bound_n @ S)
        S = decay_n * S + late_n @ values[-1] + written_n
    u, at_start = (torch.stack(x, 1).flatten(0, 1) for x in (values, states))
    o = weighted_sums(scores(q, b, gates), u.transpose(1, 2)) + weighted_sums(scores(q, k, gates), v)
    o = o + from_state(q, gates, at_start)
    return o.unflatten(0, (B, n)).flatten(1, 2), S


def last_query(
    q: Float[Tensor, "B 1 H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    a: Float[Tensor, "B T H K"],
    b: Float[Tensor, "B T H K"],
    gates: Gates,
    *,
    scale: float,
) -> tuple[Float[Tensor, "B 1 H V"], Float[Tensor, "B 1 H K"]]:
    r"""One query's output from a state of zeros, and what reads the state before: the query is led back through tokens.

    $o = \sum_t (y_t^\top k_t)\, v_t + S_0^\top y_0$ with $y_T = \mathrm{scale}\, q$ and
    $y_{t-1} = D_t y_t + a_t\, (b_t^\top y_t)$.

    >>> one, half = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1), 0.5).log()
    >>> o, y = last_query(one, one, one, -one / 4, one, Gates(g=half), scale=1.0)
    >>> o.item(), y.item()
    (1.0, 0.25)
    """
    log_gates = gates.to_heads(q.shape[2]).combined()

    def step(y: Tensor, k: Tensor, a: Tensor, b: Tensor, log_gate: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weight = (y * k).sum(-1, keepdim=True)
        moved = a * (y * b).sum(-1, keepdim=True)
        return moved + (y if log_gate is None else log_gate.exp() * y), weight

    gate_steps = None if log_gates is None else log_gates[..., 0]
    y, weights = each_token(step, scale * q[:, 0], (k, a, b, gate_steps), reverse=True)
    o = ((v[..., :1] if weights is None else weights) * v).sum(1)
    return o[:, None], y[:, None]


def _later(x: Float[Tensor, "B T *rest"]) -> Float[Tensor, "B T *rest"]:
    """y_t = x_{t-1}, and 0 at the start."""
    return pad(x, (*[0] * (2 * x.ndim - 4), 1, 0))[:, :-1]


RULE = Rule(recurrent, chunks, last_query)
