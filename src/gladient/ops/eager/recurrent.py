"""The recurrence itself, one step after the other: the reference form, and decoding, which is one step of it."""

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops._sequences import from_states
from gladient.ops.gates import Gates, decayed, to_heads

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

    Convention: the write is not gated at its own step. Plain autograd, so that derivatives of any order exist; it
    keeps all T states for them.

    >>> ones = torch.ones(1, 3, 1, 1)
    >>> o, state = recurrent(ones, ones, ones, Gates(), scale=1.0, initial_state=torch.zeros(1, 1, 1, 1))
    >>> o.flatten().tolist(), state.item()
    ([1.0, 2.0, 3.0], 3.0)
    """
    H = q.shape[2]
    k, v, log_gates = to_heads(k, H), to_heads(v, H), gates.to_heads(H).combined()
    S, outputs = initial_state, []
    gate_steps = [None] * q.shape[1] if log_gates is None else log_gates.unbind(1)  # views' gradients are T long each
    for q_t, k_t, v_t, log_gate in zip(q.unbind(1), k.unbind(1), v.unbind(1), gate_steps, strict=True):
        if log_gate is not None:
            S = decayed(S, log_gate)
        S = S + k_t[..., None] * v_t[..., None, :]
        outputs.append(scale * from_states(q_t, S))
    return (torch.stack(outputs, 1) if outputs else v[:, :0]), S
