"""Small language models with and without gates: how they start, are changed, trained and kept."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from gladient.experiments.figures.worth.text import corpus
from gladient.experiments.models.words import WordModel
from gladient.experiments.work import OnStep
from gladient.lens import fix_gates, intervene, scale_erase
from gladient.nn import presets
from gladient.nn.gate import TokenGate
from gladient.training import TrainingConfig, train

__all__ = ["KINDS", "VARIANTS", "Variant", "WordSizes", "losses", "trained"]

KINDS = {"mamba2": presets.mamba2, "gla": presets.gla, "gated_deltanet": presets.gated_deltanet}
"""The families, one gate a head, one a key channel, and one a head with the delta rule."""
VARIANTS = ("gates", "fixed", "none", "no_erase")
"""Gates as usual, learned decays that are the same at every token, no gates, and no erasing."""
_LONGEST = 300.0  # tokens that a gate remembers at the start, beyond a text of 128; the shortest remembers 1
_CLOSED = -20.0  # the least logit of a gate at the start: below, float32 rounds its gradient to nothing
_TOGETHER = 32  # texts that are read at once


@dataclass(frozen=True)
class WordSizes:
    """Sizes of the models and of their texts.

    Args:
        words: the vocabulary.
        length: words in a text.
        width: channels.
        layers: how many.
        heads: in each.
    """

    words: int = 2048
    length: int = 128
    width: int = 192
    layers: int = 4
    heads: int = 6


class Variant(nn.Module):
    """A model of words that is trained with gates, or under the change that takes something away.

    The changes are those of the lens, so that what is taken away from a trained model, and what another one is trained
    without, are the same. Mamba-2's step stays in its write.

    Args:
        kind: one of `KINDS`.
        variant: one of `VARIANTS`.
        sizes: sizes of the model.
        seed: the random seed of its weights.
    """

    def __init__(self, kind: str, variant: str, sizes: WordSizes, *, seed: int) -> None:
        super().__init__()
        preset, self.variant, self.sizes, self.seed = KINDS[kind](sizes.width, heads=sizes.heads), variant, sizes, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = WordModel(sizes.words, sizes.width, [preset] * sizes.layers, seed=seed)
        channels = sizes.width // sizes.heads if preset.gate == "key" else 1
        lengths = torch.logspace(0, torch.tensor(_LONGEST).log10().item(), sizes.heads * channels)
        rates = 1 / lengths.view(channels, sizes.heads).T.squeeze(1)  # every head has short and long channels
        self.rates = nn.ParameterList(rates.log() for _ in range(sizes.layers * (variant == "fixed")))
        with torch.no_grad():
            for layer in self.model.stack.layers:
                gates = torch.exp(-rates.double() / preset.rate)
                bias = cast(TokenGate, layer.attention.gate).bias
                cast(Tensor, bias).copy_((gates / (1 - gates)).log().clamp_min(_CLOSED).flatten())

    def forward(self, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T W"]:
        """Logits of the next word, under the change."""
        with self._change():
            logits: Tensor = self.model(input_ids)
        return logits

    def _change(self) -> AbstractContextManager[None]:
        """The block in which the model computes as its variant."""
        if self.variant == "fixed":
            return intervene(self.model, fix_gates({layer: -log.exp() for layer, log in enumerate(self.rates)}))
        changes = {"none": fix_gates(0.0), "no_erase": scale_erase(0.0)}
        return intervene(self.model, changes[self.variant]) if self.variant in changes else nullcontext()


def trained(
    model: Variant, training: TrainingConfig, *, checkpoint: Path, run: Mapping[str, Any], on_step: OnStep
) -> None:
    """Train a model in place, on texts that its seed draws from the corpus; see `training.train`."""
    words, fresh = corpus(model.sizes.words).train, torch.Generator().manual_seed(model.seed)
    length = model.sizes.length

    def loss(model: nn.Module) -> Float[Tensor, " 1"]:
        starts = torch.randint(len(words) - length, (training.batch_size, 1), generator=fresh)
        return losses(model, words[starts + torch.arange(length + 1)]).mean()[None]

    train(model, loss, training, generators=[fresh], checkpoint=checkpoint, run=run, on_step=on_step)


def losses(model: nn.Module, texts: Int[Tensor, "N T"]) -> Float[Tensor, " N"]:
    """Nats per word of each text."""
    found = []
    for part in texts.split(_TOGETHER):
        logits = model(part[:, :-1])
        found.append(functional.cross_entropy(logits.mT, part[:, 1:], reduction="none").mean(1))
    return torch.cat(found)
