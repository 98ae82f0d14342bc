"""The recurrence itself, one step after the other: the reference form, and decoding, which is one step of it."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops.gates import Gates, decayed, to_heads
from gladient.ops.sequences import from_states

__all__ = ["each_token", "recurrent"]


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

    def step(S: Tensor, q: Tensor, k: Tensor, v: Tensor, log_gate: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if log_gate is not None:
            S = decayed(S, log_gate)
        S = S + k[..., None] * v[..., None, :]
        return S, scale * from_states(q, S)

    S, o = each_token(step, initial_state, (q, k, v, log_gates))
    return (v[:, :0] if o is None else o), S


def each_token(
    step: Callable[..., tuple[Tensor, Tensor]], carried: Tensor, inputs: Sequence[Tensor | None], reverse: bool = False
) -> tuple[Tensor, Float[Tensor, "B T *rest"] | None]:
    """What `step` carries over all tokens of the inputs [B, T, …] that are there, and its outputs, None without tokens.

    >>> each_token(lambda S, x: (S + x, 2 * S), torch.zeros(1), [torch.tensor([[1.0, 2.0, 3.0]])])
    (tensor([6.]), tensor([[0., 2., 6.]]))
    """
    present = [x for x in inputs if x is not None]
    if isinstance(present[0].shape[1], torch.SymInt):  # an exported program for any length has its loop inside
        from torch._higher_order_ops.scan import scan  # a slow import that nothing else needs

        by_token = [x.movedim(1, 0) for x in present]
        carried, found = scan(lambda S, x: step(S, *x), carried.contiguous(), by_token, reverse=reverse)
        return carried, found.movedim(0, 1)
    outputs, order = [], slice(None, None, -1 if reverse else 1)
    by_token = list(zip(*(x.unbind(1) for x in present), strict=True))[order]  # views' gradients are T long each
    for token in by_token:
        carried, o = step(carried, *token)
        outputs.append(o)
    return carried, torch.stack(outputs[order], 1) if outputs else None
