"""The short causal convolution before a scan, with its activation, and with packed sequences kept apart."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient._optional import require
from gladient.integrations.sequences import borders, wide
from gladient.ops import native
from gladient.ops.native.convolution import TAPS, plain_convolution

__all__ = ["INSTALL", "convolution", "convolution_step"]

_SILU = ("silu", "swish")
INSTALL = "pip install 'gladient[lens]'"


@outside_autocast
def convolution(
    x: Float[Tensor, "B C T"],
    weight: Float[Tensor, "C taps"],
    bias: Float[Tensor, " C"] | None = None,
    activation: str | None = None,
    seq_idx: Int[Tensor, "B T"] | None = None,
    **_: Any,
) -> Float[Tensor, "B C T"]:
    r"""`causal_conv1d_fn` of causal_conv1d: $y_t = \mathrm{act}(b + \sum_j w_j\, x_{t - j})$, with $w_0$ the last tap.

    Layers give x as a view of [B, T, C], which a library's convolution copies twice: here channels stay innermost.

    >>> x = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> convolution(x, torch.tensor([[10.0, 1.0]])).tolist(), convolution(
    ...     x, torch.tensor([[10.0, 1.0]]), seq_idx=torch.tensor([[0, 1, 1]])
    ... ).tolist()
    ([[[1.0, 12.0, 23.0]]], [[[1.0, 2.0, 23.0]]])
    """
    rows, silu = wide(x.mT), activation in _SILU
    weight, bias = weight.to(rows.dtype), None if bias is None else bias.to(rows.dtype)
    ends = None if seq_idx is None else borders(seq_idx).tolist()
    if weight.shape[1] in TAPS and native.serves(rows, weight, bias):
        y = native.convolution(rows, weight, bias, ends, silu)
    else:
        (y,) = plain_convolution(rows, weight, bias, ends, silu)
    return _acted(y, None if silu else activation).mT.to(x.dtype)


@outside_autocast
def convolution_step(
    x: Float[Tensor, "B C T"],
    last: Float[Tensor, "B C kept"],
    weight: Float[Tensor, "C taps"],
    bias: Float[Tensor, " C"] | None = None,
    activation: str | None = None,
) -> Float[Tensor, "B C T"]:
    """`causal_conv1d_update` of causal_conv1d: the tokens go on from the last ones, which they join.

    >>> last = torch.tensor([[[1.0, 2.0]]])
    >>> convolution_step(torch.tensor([[[3.0]]]), last, torch.tensor([[10.0, 1.0]])).tolist(), last.tolist()
    ([[[23.0]]], [[[2.0, 3.0]]])
    """
    silu, given = activation in _SILU, (x, last, weight, bias)
    one = x.shape[2] == 1 and last.shape[2] >= weight.shape[1] - 1 and last.is_contiguous()
    if one and native.serves(*given) and native.unwatched(*given):
        return _acted(native.convolution_step(*given, silu), None if silu else activation)
    whole = torch.cat([last, x], 2).to(weight.dtype)
    last.copy_(whole[:, :, -last.shape[2] :])
    y = functional.conv1d(whole, weight[:, None], bias, groups=x.shape[1])[:, :, -x.shape[2] :]
    return _acted(y, activation).to(x.dtype)


def _acted(y: Tensor, activation: str | None) -> Tensor:
    if activation is None:
        return y
    if activation in _SILU:
        return functional.silu(y)
    activations = require("transformers.activations", needed_for=f"activation={activation!r}", install=INSTALL)
    acted: Tensor = activations.ACT2FN[activation](y)
    return acted
