"""What transformers' Mamba and Mamba-2 layers call, by this package's kernels: whole sequences and single tokens.

The functions take mamba_ssm's arguments; what they do not use goes to `**_`.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient.integrations.sequences import scan, wide
from gladient.ops import native
from gladient.ops.dispatch import operate
from gladient.ops.formulas import step_sizes

__all__ = ["mamba2_scan", "mamba2_step", "mamba_scan", "mamba_step"]


@outside_autocast
def mamba2_scan(
    x: Float[Tensor, "B T H P"],
    dt: Float[Tensor, "B T H"],
    A: Float[Tensor, " H"],
    B: Float[Tensor, "B T G N"],
    C: Float[Tensor, "B T G N"],
    *,
    D: Float[Tensor, " H"] | None = None,
    dt_bias: Float[Tensor, " H"] | None = None,
    initial_states: Float[Tensor, "B H P N"] | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    seq_idx: Int[Tensor, "B T"] | None = None,
    **_: Any,
) -> Any:
    r"""`mamba_chunk_scan_combined`: $S_t = e^{A \Delta_t} S_{t-1} + \Delta_t x_t B_t^\top$, $y_t = S_t C_t + D x_t$.

    Returns:
        y, [B, T, H, P], in float32 (float64 for float64 inputs), and the last state, [B, H, P, N], if asked for.
    """
    x, B, C = wide(x), wide(B), wide(C)
    dt = step_sizes(wide(dt), dt_bias, dt_softplus).clamp(*dt_limit)
    o, state = scan(
        {"q": C, "k": B, "v": x * dt[..., None], "g": A * dt},
        seq_idx,
        initial_state=None if initial_states is None else wide(initial_states).mT,
        output_final_state=return_final_states,
    )
    if D is not None:
        o = torch.addcmul(o, x, D[:, None].to(x.dtype))
    return (o, state.mT.contiguous()) if state is not None else o  # as a step's kernel takes it


@outside_autocast
def mamba2_step(
    state: Float[Tensor, "B H P N"],
    x: Float[Tensor, "B H P"],
    dt: Float[Tensor, "B H P"],
    A: Float[Tensor, "H P N"],
    B: Float[Tensor, "B G N"],
    C: Float[Tensor, "B G N"],
    D: Float[Tensor, "H P"] | None = None,
    z: Float[Tensor, "B H P"] | None = None,
    dt_bias: Float[Tensor, "H P"] | None = None,
    dt_softplus: bool = False,
    **_: Any,
) -> Float[Tensor, "B H P"]:
    """`selective_state_update` with one step and one rate for each head; the state is overwritten."""
    heads: dict[str, Any] = {"dt": dt[..., 0], "A": A[:, 0, 0], "bias": None if dt_bias is None else dt_bias[:, 0]}
    heads["D"] = None if D is None else D[:, 0]
    options: Any = {"groups": B.shape[1], "shared": True, "softplus": dt_softplus}
    if (o := _at_once(state, state.shape, x, B=B, C=C, z=z, **heads, **options)) is not None:
        return o
    steps = step_sizes(wide(heads["dt"]), heads["bias"], dt_softplus)
    decay = (steps * heads["A"]).exp()
    B, C = (wide(y).repeat_interleave(x.shape[1] // y.shape[1], 1).flatten(0, 1) for y in (B, C))
    o = _advance(state, decay.view(-1, 1, 1), (steps[..., None] * x).flatten(0, 1), B, C)
    return _finished(o.view(x.shape), x, D, z)


@outside_autocast
def mamba_scan(
    x: Float[Tensor, "B V T"],
    dt: Float[Tensor, "B V T"],
    A: Float[Tensor, "V N"],
    B: Float[Tensor, "B N T"],
    C: Float[Tensor, "B N T"],
    D: Float[Tensor, " V"] | None = None,
    z: Float[Tensor, "B V T"] | None = None,
    delta_bias: Float[Tensor, " V"] | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **_: Any,
) -> Any:
    r"""`selective_scan_fn`: $S_t = e^{A \Delta_t} \odot S_{t-1} + \Delta_t x_t B_t^\top$, $y_t = S_t C_t + D x_t$.

    Returns:
        y · silu(z), [B, V, T], in x's dtype, and the last state, [B, V, N], if asked for.
    """
    u, B, C = (wide(y).mT[:, :, None] for y in (x, B, C))
    steps = step_sizes(wide(dt.mT.contiguous()), delta_bias, delta_softplus)[:, :, None]
    o, state = operate(C, B, u * steps, A=A.mT[None].to(u.dtype), dt=steps, output_final_state=return_last_state)
    o = _finished(o[:, :, 0], x.mT, D, None if z is None else z.mT).mT
    return (o, state[:, 0].mT.contiguous()) if state is not None else o


@outside_autocast
def mamba_step(
    state: Float[Tensor, "B V N"],
    x: Float[Tensor, "B V"],
    dt: Float[Tensor, "B V"],
    A: Float[Tensor, "V N"],
    B: Float[Tensor, "B N"],
    C: Float[Tensor, "B N"],
    D: Float[Tensor, " V"] | None = None,
    z: Float[Tensor, "B V"] | None = None,
    dt_bias: Float[Tensor, " V"] | None = None,
    dt_softplus: bool = False,
    **_: Any,
) -> Float[Tensor, "B V"]:
    """`selective_state_update` with a step and rates for each channel; the state is overwritten."""
    options: Any = {"dt": dt, "A": A, "bias": dt_bias, "D": D, "groups": 1, "shared": False, "softplus": dt_softplus}
    if (o := _at_once(state, (len(x), 1, *A.shape), x, B=B, C=C, z=z, **options)) is not None:
        return o
    steps = step_sizes(wide(dt), dt_bias, dt_softplus)
    o = _advance(state, (steps[..., None] * A).exp(), steps * x, wide(B), wide(C))
    return _finished(o, x, D, z)


def _at_once(state: Tensor, sizes: Any, x: Tensor, **given: Any) -> Tensor | None:
    """One token by the kernel, into the state; None where it does not hold the call."""
    tensors = [y for y in given.values() if isinstance(y, Tensor)]
    if not (state.numel() and native.serves(state, x, *tensors) and native.unwatched(state, x, *tensors)):
        return None
    return native.selective_step(state, x, sizes=sizes, **given)


def _advance(
    state: Float[Tensor, "... P N"],
    decay: Float[Tensor, "n ..."],
    write: Float[Tensor, "n P"],
    B: Float[Tensor, "n N"],
    C: Float[Tensor, "n N"],
) -> Float[Tensor, "n P"]:
    """One token: the state after it, in place, and what it reads."""
    old = wide(state).flatten(0, -3)
    new = torch.baddbmm(old * decay, write[:, :, None], B[:, None])
    state.copy_(new.view(state.shape))
    return torch.bmm(new, C[:, :, None])[:, :, 0]


def _finished(o: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """The skip and the gate of the output, in x's dtype."""
    o = o if D is None else torch.addcmul(o, wide(x), D.to(o.dtype))
    return (o if z is None else o * functional.silu(z)).to(x.dtype)
