"""The recurrence itself, one step after the other: the reference form."""

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops.gates import Gates, to_heads

__all__ = ["recurrent"]


def recurrent(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T Hk K"],
    v: Float[Tensor, "B T Hv V"],
    gates: Gates,
    *,
    scale: float,
    initial_state: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    r"""$S_t = G_t \odot S_{t-1} + k_t v_t^\top$, $o_t = \mathrm{scale}\; S_t^\top q_t$, step by step.

    Convention: the write is not gated at its own step.

    >>> ones = torch.ones(1, 3, 1, 1)
    >>> o, state = recurrent(ones, ones, ones, Gates(), scale=1.0, initial_state=torch.zeros(1, 1, 1, 1))
    >>> o.flatten().tolist(), state.item()
    ([1.0, 2.0, 3.0], 3.0)
    """
    H = q.shape[2]
    k, v, gates = to_heads(k, H), to_heads(v, H), gates.to_heads(H)
    S, outputs = initial_state, []
    for t in range(q.shape[1]):
        log_gate = gates.log_gate(t)
        kept = S if log_gate is None else log_gate.exp() * S
        S = kept + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], S))
    return (torch.stack(outputs, 1) if outputs else v.new_empty(q.shape[0], 0, H, v.shape[3])), S
