"""The short causal convolution before a scan, tap by tap, with packed sequences kept apart."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient._optional import require
from gladient.integrations.sequences import wide

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
    rows = wide(x.mT)
    y = _sums(rows, weight.to(rows.dtype), None if bias is None else bias.to(rows.dtype), seq_idx)
    if activation in ("silu", "swish"):
        y = functional.silu(y)
    elif activation is not None:
        activations = require("transformers.activations", needed_for=f"activation={activation!r}", install=INSTALL)
        y = activations.ACT2FN[activation](y)
    return y.mT.to(x.dtype)


def _sums(
    x: Float[Tensor, "B T C"], weight: Float[Tensor, "C taps"], bias: Tensor | None, seq_idx: Tensor | None
) -> Float[Tensor, "B T C"]:
    T, taps = x.shape[1], weight.shape[1]
    padded = functional.pad(x, (0, 0, taps - 1, 0))
    y = x * weight[:, -1] if bias is None else torch.addcmul(bias, x, weight[:, -1])
    for lag in range(1, min(taps, T)):
        earlier = padded[:, taps - 1 - lag :][:, :T]
        if seq_idx is not None:
            same = functional.pad(seq_idx[:, lag:] == seq_idx[:, :-lag], (lag, 0))
            earlier = earlier.where(same[..., None], 0)  # not times 0, which keeps NaN
        y = y.addcmul_(earlier, weight[:, -1 - lag])
    return y
