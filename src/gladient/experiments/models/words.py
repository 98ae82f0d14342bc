"""A small language model whose layers are this package's own."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from gladient.nn import LayerConfig, ResidualModel

__all__ = ["WordModel"]


class WordModel(nn.Module):
    """Layers on sums of a word's and the three preceding words' embeddings, in place of short convolutions.

    Embeddings are read, too: a word's logit is the product of its embedding and the last layer's normalised token.

    Args:
        words: size of the vocabulary.
        width: channels of the model.
        layers: one config for each layer.
        seed: the random seed of the layers' weights; embeddings are drawn from PyTorch's own generator.

    >>> from gladient.nn import presets
    >>> WordModel(37, 8, [presets.gla(8, heads=2)])(torch.tensor([[0, 1, 2]])).shape
    torch.Size([1, 3, 37])
    """

    def __init__(self, words: int, width: int, layers: Sequence[LayerConfig], *, seed: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.mix = nn.Parameter(torch.randn(4, width) / 2)
        self.stack = ResidualModel(width, layers, seeds=[seed])

    def forward(self, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T W"]:
        """Logits of the next word."""
        words = functional.pad(self.embedding(input_ids), (0, 0, 3, 0)).unfold(1, 4, 1)  # [B, T, D, 4], own word last
        z = self.stack.hidden(torch.einsum("btdj,jd->btd", words, self.mix.flip(0))[None])[-1][0]
        return functional.linear(functional.rms_norm(z, z.shape[-1:]) / z.shape[-1] ** 0.5, self.embedding.weight)
