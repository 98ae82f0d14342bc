"""A layer and its prediction head: in-context regression."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gladient.nn.config import LayerConfig
from gladient.nn.layer import GatedLinearAttention

__all__ = ["InContextRegressor"]


class InContextRegressor(nn.Module):
    r"""Predicts the query's label from a prompt: $\hat y = h^\top o_T$ of one `GatedLinearAttention` layer.

    With scalar gates this is one step of weighted preconditioned gradient descent on the prompt's examples, with the
    products of gates as the weights (Theorem 1 of arXiv 2504.04308). The read-out h starts at 0, all else at random:
    the first predictions are 0, and the first steps give h its sign before the gates learn from it.

    Args:
        width: numbers in a token, D.
        config: the layer; see `GatedLinearAttention`, also for the shapes of tokens.
        seeds: one seed for each member of the stack.

    >>> from gladient.prompts import MultitaskSetting, PromptSampler
    >>> sampler = PromptSampler([MultitaskSetting.isotropic(n=[3, 2], r=[0.2, 0.8], d=4)])
    >>> prompts = sampler.draw(16, [torch.Generator().manual_seed(0)])
    >>> model = InContextRegressor(sampler.layout.width, LayerConfig(gate="scalar", scale=1 / 5))
    >>> tuple(model(prompts.tokens).shape)
    (1, 16)
    """

    def __init__(self, width: int, config: LayerConfig = LayerConfig(), *, seeds: Sequence[int] = (0,)) -> None:
        super().__init__()
        self.layer = GatedLinearAttention(width, config, seeds=seeds)
        self.readout = nn.Parameter(torch.zeros(len(seeds), self.layer.W_v.shape[2]))

    def forward(self, tokens: Float[Tensor, "*G B T D"]) -> Float[Tensor, "E B"]:
        """Predictions of every member for the prompts of its group."""
        return self.layer.read_last(tokens, self.readout)

    def gate_parameters(self) -> list[nn.Parameter]:
        """The parameters of the gates, which training may move faster than the rest."""
        return self.layer.gate_parameters()
