"""What a layer computes from each token beside queries, keys and values: gates, rates, steps and angles."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient.nn.config import LayerConfig, Link
from gladient.nn.stack import member_normal, project
from gladient.ops.sequences import accumulation

__all__ = ["TokenAngle", "TokenGate", "TokenRate", "TokenStep", "is_formula"]

_LINKS: dict[Link, Callable[[Tensor], Tensor]] = {
    "sigmoid": functional.logsigmoid,
    # the signs make a large logit an open gate, as with the sigmoid
    "exp": lambda logits: -torch.exp(-logits),
    "bounded": lambda logits: -torch.sigmoid(-logits),
}
# Logit of an open gate at the start: 0.9975, whose product over 50 tokens is 0.88. A larger one hides less, but the
# slope of the sigmoid, g (1 - g), falls with 1 - g, and with it the gradient that would close the gate again.
_OPEN = 6.0
# Standard deviation of the other weights: small beside `_OPEN`, so that a gate starts open whatever its token holds.
_SPREAD = 0.02


class TokenGate(nn.Module):
    r"""Gates of a token, $g_t = \mathrm{sigmoid}(W_g^\top z_t + b_g)$, as log gates.

    With `link="exp"`, $g_t = \exp(-\exp(-W_g^\top z_t - b_g))$, RWKV-6's; with `link="bounded"`,
    $g_t = \exp(-\mathrm{sigmoid}(-W_g^\top z_t - b_g))$, RWKV-7's but for its rate $e^{-1/2}$: never below 1/e.

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
        return _LINKS[self.link](_logits(tokens, self.weight, self.bias))


def is_formula(gate: nn.Module | None) -> bool:
    """Whether a call of the gate gives its formula: the module is ours, and no hook changes what it returns."""
    return type(gate) is TokenGate and not (gate._forward_hooks or gate._forward_pre_hooks)


class TokenStep(nn.Module):
    r"""Numbers in (0, 1) of a token, $\mathrm{sigmoid}(W_b^\top z_t + b_b)$, which start near one half.

    The delta rule's step sizes, and what part of a step is a token's own in Mamba-3.

    Args:
        width: numbers in a token, D.
        channels: numbers per token, C: all heads' together.
        seeds: one seed for each member of the stack; its length is the number of members E.
        stream: its name among what is drawn from a seed.

    >>> step = TokenStep(3, 2, seeds=[0])
    >>> tuple(step(torch.zeros(1, 4, 7, 3)).shape)
    (1, 4, 7, 1, 2)
    """

    def __init__(self, width: int, channels: int, *, seeds: Sequence[int], stream: str = "step") -> None:
        super().__init__()
        self.weight = nn.Parameter(_SPREAD * member_normal(seeds, (width, channels), stream=stream))
        self.bias = nn.Parameter(torch.zeros(len(seeds), channels))

    @outside_autocast
    def forward(self, tokens: Float[Tensor, "G B T D"]) -> Float[Tensor, "G B T P C"]:
        """The numbers of each token for each of the P members that read it."""
        return torch.sigmoid(_logits(tokens, self.weight, self.bias))


class TokenRate(nn.Module):
    r"""Rates of a token, $A_t = f(W_A^\top z_t + b_A) \ge 10^{-4}$, of each head, which start near 1.

    f is the softplus or, with `link="heavy_tail"`, 1 + u above 0 and 1/(1 - u) below.

    Args:
        width: numbers in a token, D.
        heads: rates per token, H.
        link: f.
        seeds: one seed for each member of the stack; its length is the number of members E.

    Source: the reference implementation of arXiv 2603.15569, where f was the softplus until June 2026.

    >>> rate = TokenRate(3, 2, "heavy_tail", seeds=[0])
    >>> rate(torch.zeros(1, 1, 1, 3)).flatten().tolist()
    [1.0, 1.0]
    """

    def __init__(self, width: int, heads: int, link: str, *, seeds: Sequence[int]) -> None:
        super().__init__()
        self.link = _RATE_LINKS[link]
        self.weight = nn.Parameter(_SPREAD * member_normal(seeds, (width, heads), stream="rate"))
        start = math.log(math.e - 1) if link == "softplus" else 0.0  # where f is 1
        self.bias = nn.Parameter(torch.full((len(seeds), heads), start))

    @outside_autocast
    def forward(self, tokens: Float[Tensor, "G B T D"]) -> Float[Tensor, "G B T P H"]:
        """Rates of each token for each of the P members that read it."""
        return self.link(_logits(tokens, self.weight, self.bias)).clamp(min=_LEAST_RATE)


class TokenAngle(nn.Module):
    r"""Angles of a token, $\theta_t = \pi \tanh(W_\theta^\top z_t)$, in radians, shared by all heads.

    They start near 0, but for the delimiters', which are drawn apart: at angles of 0 their gradient is 0 too where
    queries equal keys.

    Args:
        width: numbers in a token, D.
        config: the layer, whose delimiter columns count here.
        angles: per token, P.
        seeds: one seed for each member of the stack; its length is the number of members E.

    Source: arXiv 2603.15569; the start is ours.

    >>> angle = TokenAngle(3, LayerConfig(), angles=2, seeds=[0])
    >>> angle(torch.zeros(1, 1, 1, 3)).flatten().tolist()
    [0.0, 0.0]
    """

    def __init__(self, width: int, config: LayerConfig, *, angles: int, seeds: Sequence[int]) -> None:
        super().__init__()
        weight = _SPREAD * member_normal(seeds, (width, angles), stream="angle")
        columns = list(config.delimiter_columns)
        weight[:, columns] = _TURNED * member_normal(seeds, (len(columns), angles), stream="delimiters' angle")
        self.weight = nn.Parameter(weight)

    @outside_autocast
    def forward(self, tokens: Float[Tensor, "G B T D"]) -> Float[Tensor, "G B T P C"]:
        """Angles of each token for each of the P members that read it."""
        return math.pi * torch.tanh(project(accumulation(tokens), self.weight))


_RATE_LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": functional.softplus,
    # `where` would not hide the gradient of 1/(1 - u) at 1. At 0 relu has the slope 0 and clamp 1, together f's.
    "heavy_tail": lambda logits: functional.relu(logits) + 1 / (1 - logits.clamp(max=0)),
}
_LEAST_RATE = 1e-4  # the original's
# Standard deviation of the delimiters' angles, in units of pi at the start: far enough from 0 to tell tasks apart, and
# within a quarter turn, where cosines still say which way to go.
_TURNED = 0.16


def _logits(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = project(accumulation(tokens), weight)
    return logits if bias is None else logits + bias.view(len(tokens), 1, 1, *logits.shape[3:])
