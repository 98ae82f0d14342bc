"""Gates and steps from tokens."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient.nn.config import LayerConfig, Link
from gladient.nn.stack import member_normal, project
from gladient.ops.sequences import accumulation

__all__ = ["TokenGate", "TokenStep"]

_LINKS: dict[Link, Callable[[Tensor], Tensor]] = {
    "sigmoid": functional.logsigmoid,
    "exp": lambda logits: -torch.exp(-logits),  # the sign makes a large logit an open gate, as with the sigmoid
}
# Logit of an open gate at the start: 0.9975, whose product over 50 tokens is 0.88. A larger one hides less, but the
# slope of the sigmoid, g (1 - g), falls with 1 - g, and with it the gradient that would close the gate again.
_OPEN = 6.0
# Standard deviation of the other weights: small beside `_OPEN`, so that a gate starts open whatever its token holds.
_SPREAD = 0.02


class TokenGate(nn.Module):
    r"""Gates of a token, $g_t = \mathrm{sigmoid}(W_g^\top z_t + b_g)$, as log gates.

    With `link="exp"`, $g_t = \exp(-\exp(-W_g^\top z_t - b_g))$, RWKV-6's.

    Gates start open: a gate that is near 1 lets every earlier token reach the query, so the layer begins as linear
    attention and learns where to forget. Closed gates hide the examples before them and with them the gradient that
    would open them again. What opens them is the bias or, without one, the columns that hold contextual features.

    Half precision has too few digits near a gate of 1: log gates are float32 there, sums over tokens included.

    Args:
        width: numbers in a token, D.
        config: the layer, of which the gates' link, bias and start count here.
        channels: gates per token, C: all heads' together.
        seeds: one seed for each member of the stack; its length is the number of members E.

    Source: arXiv 2504.04308, section 5 (no bias there); the open start is ours.

    >>> gate = TokenGate(3, LayerConfig(open_columns=(2,)), channels=1, seeds=[0])
    >>> log_g = gate(torch.tensor([[[[0.0, 0.0, 1.0]]]]))
    >>> tuple(log_g.shape), round(log_g.exp().item(), 3)
    ((1, 1, 1, 1, 1), 0.998)
    """

    def __init__(self, width: int, config: LayerConfig, *, channels: int, seeds: Sequence[int]) -> None:
        super().__init__()
        self.link = config.link
        weight = _SPREAD * member_normal(seeds, (width, channels), stream="gate")
        weight[:, list(config.open_columns)] += _OPEN
        # Delimiters' gates differ from channel to channel, so that the channels' weights differ from the start.
        weight[:, list(config.delimiter_columns)] += _OPEN * torch.linspace(1, 0, channels)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.full((len(seeds), channels), _OPEN)) if config.gate_bias else None

    @outside_autocast
    def forward(self, tokens: Float[Tensor, "G B T D"]) -> Float[Tensor, "G B T P C"]:
        """Log gates, ≤ 0, of each token for each of the P members that read it."""
        logits = project(accumulation(tokens), self.weight)
        if self.bias is not None:
            logits = logits + self.bias.view(len(tokens), 1, 1, *logits.shape[3:])
        return _LINKS[self.link](logits)


class TokenStep(nn.Module):
    r"""The delta rule's step sizes of a token, $\mathrm{sigmoid}(W_b^\top z_t + b_b)$, which start near one half.

    Args:
        width: numbers in a token, D.
        heads: steps per token, H.
        seeds: one seed for each member of the stack; its length is the number of members E.

    >>> step = TokenStep(3, 2, seeds=[0])
    >>> tuple(step(torch.zeros(1, 4, 7, 3)).shape)
    (1, 4, 7, 1, 2)
    """

    def __init__(self, width: int, heads: int, *, seeds: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(_SPREAD * member_normal(seeds, (width, heads), stream="step"))
        self.bias = nn.Parameter(torch.zeros(len(seeds), heads))

    @outside_autocast
    def forward(self, tokens: Float[Tensor, "G B T D"]) -> Float[Tensor, "G B T P H"]:
        """Steps in (0, 1) of each token for each of the P members that read it."""
        logits = project(accumulation(tokens), self.weight)
        return torch.sigmoid(logits + self.bias.view(len(tokens), 1, 1, *logits.shape[3:]))
