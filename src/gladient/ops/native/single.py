"""What stands around a state for one token, into the caches of transformers' layers; without gradients."""

import torch
from torch import Tensor

from gladient.ops.native.library import call

__all__ = ["convolution_step", "selective_step"]


def convolution_step(x: Tensor, last: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """The causal convolution of one token x [B, C, 1], which joins those before it, [B, C, at least taps - 1]."""
    B, channels, kept = last.shape
    o = torch.empty_like(x, memory_format=torch.contiguous_format)
    _run("convolution_step", o, last, x=x, weight=weight, bias=bias, last=last, B=B, channels=channels,
         taps=weight.shape[1], kept=kept, silu=int(silu))  # fmt: skip
    return o


def selective_step(
    state: Tensor,
    x: Tensor,
    *,
    sizes: tuple[int, int, int, int],
    groups: int,
    shared: bool,
    softplus: bool,
    **given: Tensor | None,
) -> Tensor:
    """Mamba's outputs of one token, like x, and its state after it, in place.

    Args:
        state: [N, H, P, K], however its sizes are written, as all others.
        x: [N, H, P].
        sizes: N, H, P, K.
        groups: of B and C.
        shared: whether the channels of a head have one step and one rate.
        softplus: whether steps are softplus(dt + bias), or dt + bias.
        given: A, rates [H] with dt [N, H], bias and D [H] if shared, else [H, P, K] with dt [N, H, P], bias and D [H,
            P]; B and C, [N, groups, K]; z, [N, H, P].
    """
    N, H, P, K = sizes
    o, held = torch.empty_like(x, memory_format=torch.contiguous_format), state.contiguous()
    _run("selective", o, held, **given, x=x, state=held, N=N, H=H, P=P, K=K, groups=groups,
         shared=int(shared), softplus=int(softplus))  # fmt: skip
    if held is not state:
        state.copy_(held)
    return o


def _run(kernel: str, o: Tensor, changed: Tensor, **given: Tensor | int | None) -> None:
    held, fields = [], {"threads": torch.get_num_threads(), "o": o.data_ptr()}
    for name, x in given.items():
        if isinstance(x, Tensor):
            held.append(x if x.is_contiguous() else x.contiguous())  # which live until the kernel has run
            fields[name] = held[-1].data_ptr()
        elif x is not None:
            fields[name] = x
    call(kernel, o.dtype, **fields)
    torch.autograd.graph.increment_version(changed)  # so that a backward pass that saved it raises
