"""The delta rule: gated linear attention whose values are corrected by what the state predicts for their keys."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops.call import Call
from gladient.ops.eager.chunked import chunk_decays, fold
from gladient.ops.eager.correcting import Rule, outputs
from gladient.ops.eager.parallel import from_state, scores, weighted_sums
from gladient.ops.eager.recurrent import each_token
from gladient.ops.gates import Gates, decayed, exclusive_suffix_sum, to_heads, weighted_keys
from gladient.ops.sequences import accumulation, from_states, strengthened

__all__ = ["RULE", "chunks", "last_query", "recurrent", "run"]


def run(call: Call, form: str, recompute: bool) -> tuple[Tensor, Tensor | None]:
    """Outputs in v's dtype, and the final state or None."""
    w, m = strengthened(call.v, call.beta, call.heads), strengthened(*call.erasing(), call.heads)  # type: ignore[arg-type]
    return outputs(RULE, call, form, recompute, (accumulation(to_heads(call.k, call.heads)), w, m))


def recurrent(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    w: Float[Tensor, "B T H V"],
    m: Float[Tensor, "B T H K"],
    gates: Gates,
    *,
    scale: float,
    initial_state: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    r"""$S_t = S' + k_t (w_t - S'^\top m_t)^\top$ with $S' = D_t S_{t-1}$, $o_t = \mathrm{scale}\; S_t^\top q_t$.

    >>> one, half = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1), 0.5).log()
    >>> o, state = recurrent(one, one, one, one, Gates(g=half), scale=1.0, initial_state=3 * one)
    >>> o.item(), state.item()
    (1.0, 1.0)
    """

    def step(S: Tensor, q: Tensor, k: Tensor, w: Tensor, m: Tensor, log_gate: Tensor | None = None) -> Any:
        if log_gate is not None:
            S = decayed(S, log_gate)
        u = w - from_states(m, S)
        S = S + k[..., None] * u[..., None, :]
        return S, scale * from_states(q, S)

    S, o = each_token(step, initial_state, (q, k, w, m, gates.to_heads(q.shape[2]).combined()))
    return (w[:, :0] if o is None else o), S


def chunks(
    size: int, S: Tensor, q: Tensor, k: Tensor, w: Tensor, m: Tensor, g: Tensor | None, gk: Tensor | None
) -> tuple[Tensor, Tensor]:
    r"""The same in chunks of `size` tokens, whose corrected values u solve a triangular system (the WY representation).

    $(I + A)\, U = W - (\Gamma \odot M) S_0$ with $A_{ij} = m_i^\top (\Gamma_{j \to i} \odot k_j)$ for j < i, and Γ the
    products of gates; with U for values the rest is gated linear attention.
    Source: Yang et al., arXiv 2406.06484 and 2412.06464.

    >>> one, half = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1), 0.5).log()
    >>> o, state = chunks(1, 3 * one, one, one, one, one, half, None)
    >>> o.item(), state.item()
    (1.0, 1.0)
    """
    B, n = q.shape[0], q.shape[1] // size
    q, k, w, m = (fold(x, size) for x in (q, k, w, m))
    gates = Gates(g, gk).each(lambda gate: fold(gate, size))
    until = gates.each(lambda gate: gate.cumsum(1).exp())
    after = gates.each(lambda gate: exclusive_suffix_sum(gate).exp())
    # U = (I + A)⁻¹ W - (I + A)⁻¹ (Γ ⊙ M) S₀. The state S₀ before a chunk is known only after the chunks before it, so
    # both parts are solved for all chunks at once and the loop is left with products. The diagonal of the scores, m_i
    # and its own k_i, takes no part: `unitriangular` puts ones there.
    right = torch.cat([w, weighted_keys(m, until)], -1).transpose(1, 2)
    solved = torch.linalg.solve_triangular(scores(m, k, gates), right, upper=False, unitriangular=True)
    free, bound = (x.unflatten(0, (B, n)).unbind(1) for x in solved.split([w.shape[3], k.shape[3]], -1))
    late = weighted_keys(k, after).permute(0, 2, 3, 1).unflatten(0, (B, n)).unbind(1)
    states, values = [], []
    for free_n, bound_n, late_n, decay_n in zip(free, bound, late, chunk_decays(gates, B, n), strict=True):
        states.append(S)
        values.append(free_n - bound_n @ S)
        S = decay_n * S + late_n @ values[-1]
    u, before = (torch.stack(x, 1).flatten(0, 1) for x in (values, states))
    o = weighted_sums(scores(q, k, gates), u.transpose(1, 2)) + from_state(q, gates, before)
    return o.unflatten(0, (B, n)).flatten(1, 2), S


def last_query(
    q: Float[Tensor, "B 1 H K"],
    k: Float[Tensor, "B T H K"],
    w: Float[Tensor, "B T H V"],
    m: Float[Tensor, "B T H K"],
    gates: Gates,
    *,
    scale: float,
) -> tuple[Float[Tensor, "B 1 H V"], Float[Tensor, "B 1 H K"]]:
    r"""One query's output from a state of zeros, and what reads the state before: the query is led back through tokens.

    $o = \sum_t (a_t^\top k_t)\, w_t + S_0^\top a_0$ with $a_T = \mathrm{scale}\, q$ and
    $a_{t-1} = D_t (a_t - m_t\, a_t^\top k_t)$.

    >>> one, half = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1), 0.5).log()
    >>> o, a = last_query(one, one, one, one / 2, Gates(g=half), scale=1.0)
    >>> o.item(), a.item()
    (1.0, 0.25)
    """
    log_gates = gates.to_heads(q.shape[2]).combined()

    def step(a: Tensor, k: Tensor, m: Tensor, log_gate: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weight = (a * k).sum(-1, keepdim=True)
        a = a - m * weight
        return (a if log_gate is None else log_gate.exp() * a), weight

    gate_steps = None if log_gates is None else log_gates[..., 0]
    a, weights = each_token(step, scale * q[:, 0], (k, m, gate_steps), reverse=True)
    o = ((w[..., :1] if weights is None else weights) * w).sum(1)
    return o[:, None], a[:, None]


RULE = Rule(recurrent, chunks, last_query)
"""The forms, of q, k, values times their strength, and keys to erase by times theirs."""
