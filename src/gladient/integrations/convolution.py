"""The short causal convolution before a scan, with its activation, and with packed sequences kept apart."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient._optional import require
from gladient.integrations.sequences import borders, wide
from gladient.ops import native
from gladient.ops.native.convolution import TAPS, plain_convolution

__all__ = ["INSTALL", "convolution"]

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
    rows, silu = wide(x.mT), activation in ("silu", "swish")
    weight, bias = weight.to(rows.dtype), None if bias is None else bias.to(rows.dtype)
    ends = None if seq_idx is None else borders(seq_idx).tolist()
    if weight.shape[1] in TAPS and native.serves(rows, weight, bias):
        y = native.convolution(rows, weight, bias, ends, silu)
    else:
        (y,) = plain_convolution(rows, weight, bias, ends, silu)
    if activation is not None and not silu:
        activations = require("transformers.activations", needed_for=f"activation={activation!r}", install=INSTALL)
        y = activations.ACT2FN[activation](y)
    return y.mT.to(x.dtype)
