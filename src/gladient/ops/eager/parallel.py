"""All pairs of tokens at once: attention with the token weights that the gates induce. Quadratic in T."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from gladient.ops.gates import Gates, pairwise_sum, running_weights, to_heads, weighted_keys, writes

__all__ = ["parallel", "within", "from_state", "scores", "weighted_sums"]


def parallel(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T Hk K"],
    v: Float[Tensor, "B T Hv V"],
    gates: Gates,
    *,
    scale: float,
    initial_state: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    r"""$o_t = \sum_{i \le t} (\Gamma_{i \to t} \odot k_i v_i^\top)^\top q_t$, $\Gamma_{i \to t} = G_{i+1} \cdots G_t$.

    Families none, scalar, key, value and their products; work O(T²) times K or V. This is the matrix of token
    weights that "gating is weighting" speaks of.

    >>> ones, half = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1), 0.5).log()
    >>> o, state = parallel(ones, ones, ones, Gates(g=half), scale=1.0, initial_state=torch.ones(1, 1, 1, 1))
    >>> o.flatten().tolist(), state.item()
    ([1.5, 1.75, 1.875], 1.875)
    """
    H = q.shape[2]
    q, k, v, gates = scale * q, to_heads(k, H), to_heads(v, H), gates.to_heads(H)
    o = within(q, k, v, gates) + from_state(q, gates, initial_state)
    return o, gates.decay() * initial_state + writes(k, v, gates)


def within(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T H K"], v: Float[Tensor, "B T H V"], gates: Gates
) -> Float[Tensor, "B T H V"]:
    """What the tokens give to one another's outputs."""
    if q.shape[1] == 0:
        return v
    if gates.gv is None:
        return weighted_sums(scores(q, k, gates), v)
    by_token = scores(q, k, gates).permute(0, 2, 3, 1)[..., None]
    pairs = enumerate(running_weights(gates.gv))
    return torch.stack([(by_token[:, t, : t + 1] * v[:, : t + 1] * weights).sum(1) for t, weights in pairs], 1)


def scores(q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T H K"], gates: Gates) -> Float[Tensor, "B H T T"]:
    """What query t takes of token i, gates per value channel apart; 0 for i > t."""
    if gates.gk is None:
        found = torch.einsum("bthk,bihk->bhti", q, k)
    else:
        pairs = enumerate(running_weights(gates.gk))
        rows = [(q[:, t, None] * k[:, : t + 1] * weights).sum(-1) for t, weights in pairs]
        found = torch.stack([pad(row, (0, 0, 0, len(rows) - 1 - t)) for t, row in enumerate(rows)], 1)
        found = found.permute(0, 3, 1, 2)
    return (found if gates.g is None else found * pairwise_sum(gates.g).exp().permute(0, 3, 1, 2)).tril()


def weighted_sums(scores: Float[Tensor, "B H T T"], v: Float[Tensor, "B T H V"]) -> Float[Tensor, "B T H V"]:
    """Σ_i scores_ti v_i. A value that is not finite spoils its token and later ones, never earlier ones by 0 · inf."""
    spoilt = (v - v).cumsum(1)  # 0, and NaN from such a value on
    return torch.einsum("bhti,bihv->bthv", scores, v.nan_to_num(0.0, 0.0, 0.0)) + spoilt


def from_state(q: Float[Tensor, "B T H K"], gates: Gates, state: Float[Tensor, "B H K V"]) -> Float[Tensor, "B T H V"]:
    """What the state before the first token gives to every output."""
    until = gates.each(lambda gate: gate.cumsum(1).exp())
    o = torch.einsum("bthk,bhkv->bthv", weighted_keys(q, until), state)
    return o if until.gv is None else o * until.gv
