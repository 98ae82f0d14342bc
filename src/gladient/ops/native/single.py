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
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    bias: Tensor | None,
    softplus: bool,
) -> Tensor:
    """Mamba's outputs of one token, [B, H, P], and its state [B, H, P, K] after it, in place.

    B and C are [B, groups, K]. With rates A [H], dt is [B, H], and bias and D [H]; with rates [H, P, K], dt is [B, H, P],
    and bias and D [H, P].
    """
    n, H, P, K = state.shape
    o, held = torch.empty_like(x, memory_format=torch.contiguous_format), state.contiguous()
    _run("selective", o, state, x=x, dt=dt, bias=bias, A=A, B=B, C=C, D=D, z=z, state=held, N=n, H=H, P=P, K=K,
         groups=B.shape[1], shared=int(A.ndim == 1), softplus=int(softplus))  # fmt: skip
    if held is not state:
        state.copy_(held)
    return o


def _run(kernel: str, o: Tensor, changed: Tensor, **given: Tensor | int | None) -> None:
    tensors = {name: x.contiguous() for name, x in given.items() if isinstance(x, Tensor)}
    sizes = {name: x for name, x in given.items() if isinstance(x, int)}
    addresses = {name: x.data_ptr() for name, x in tensors.items()}
    call(kernel, o.dtype, threads=torch.get_num_threads(), o=o.data_ptr(), **sizes, **addresses)
    torch.autograd.graph.increment_version(changed)  # so that a backward pass that saved it raises
