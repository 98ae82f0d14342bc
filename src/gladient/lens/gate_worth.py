"""What each gate of a language model is worth: by how many nats per token its loss rises without it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gladient._optional import require
from gladient.lens.gate_passes import Pass, check_texts, fit_decays, kinds_of, passes_of, read_losses
from gladient.lens.recurrence import Selection

__all__ = ["HeadWorth", "Rise", "Worth", "worth", "worth_of"]


@dataclass(frozen=True)
class Rise:
    """How much the loss rises, in nats per token, paired over texts.

    Attributes:
        mean: over texts.
        error: its standard error.

    >>> print(Rise(0.25, 0.01))
    +0.2500 ± 0.0100
    """

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.error:.4f}"


@dataclass(frozen=True)
class HeadWorth:
    """What the gate of a head is worth.

    Attributes:
        layer: the layer's number; None for all heads of all layers together.
        head: the head.
        no_gate: the rise with gates of 1.
        fixed: the rise with a fixed decay, fitted on other texts.
        no_erase: the rise without the delta rule's erasing; None for layers that erase nothing.
        ablated: the rise without the head.
        alone: the fall, from all gates fixed, where this head alone has its own.
    """

    layer: int | None
    head: int | None
    no_gate: Rise
    fixed: Rise
    no_erase: Rise | None
    ablated: Rise
    alone: Rise | None


@dataclass(frozen=True)
class Worth:
    """What the gates of a model are worth; printed, a table.

    Attributes:
        loss: the loss of the unchanged model, in nats per token.
        texts: how many there were.
        together: all heads of all layers.
        heads: each for itself.
        decays: the log gates that were fitted, by layer, [H] or [H, K].
    """

    loss: float
    texts: int
    together: HeadWorth
    heads: tuple[HeadWorth, ...]
    decays: dict[int, Tensor]

    def __str__(self) -> str:
        names = [field.name for field in fields(HeadWorth)][2:]
        lines = [f"loss {self.loss:.4f} nats per token, over {self.texts} texts; rises:"]
        lines += ["layer  head" + "".join(f"{name:>19}" for name in names)]
        for row in (self.together, *self.heads):
            where = "all heads  " if row.layer is None else f"{row.layer:>5}  {row.head:>4}"
            lines.append(where + "".join(f"{getattr(row, name) or '-'!s:>19}" for name in names))
        return "\n".join(lines)

    def to_pandas(self) -> Any:
        """A table with a row for each head, the first for all; errors in columns of their own.

        Raises:
            ImportError: if pandas is absent.
        """
        pandas = require("pandas", needed_for="a table of what gates are worth", install="pip install pandas")
        return pandas.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """The same rows as dictionaries."""
        return [_flat(row) for row in (self.together, *self.heads)]


def _flat(row: HeadWorth) -> dict[str, Any]:
    found: dict[str, Any] = {"layer": row.layer, "head": row.head}
    for name in [field.name for field in fields(HeadWorth)][2:]:
        rise = getattr(row, name)
        found |= {name: rise and rise.mean, f"{name}_error": rise and rise.error}
    return found


def worth(
    model: nn.Module,
    texts: Sequence[Tensor],
    *,
    calibrate: Sequence[Tensor],
    layers: Selection = None,
    heads: Selection = None,
    steps: int = 60,
    seed: int = 0,
    batch: int = 16,
    on_pass: Callable[[int, int], None] = lambda done, of: None,
) -> Worth:
    r"""By how much the loss rises when gates, erasing or heads are taken away, head by head and all together.

    The difference is paired: the same texts, with and without; its standard error is that of the mean over texts.

    Three things to mind. A model without any gate is off the distribution that it was trained for: its rise can be
    larger than that of the head's ablation, and says little of what gating buys. Effects do not add up: heads stand in
    for one another. And a fixed decay that is the mean of the gates flatters these: here it is fitted to `calibrate`.

    Args:
        model: a causal language model in eval mode, called as `model(input_ids=…)`, that returns logits [B, T, words].
        texts: tokens of the texts that are judged, [T] each, at least two texts of at least two tokens.
        calibrate: other texts, on which fixed decays are fitted, all layers together, by Adam.
        layers: numbers of the layers to judge: one, some, or None for all. Decays are fitted in all.
        heads: heads of these layers, likewise.
        steps: steps of the fit.
        seed: the random seed that picks texts for the fit.
        batch: texts of one length that are read together.
        on_pass: told after each pass over the texts how many are done, of how many.

    Raises:
        ValueError: if there are too few texts, one has too few tokens or is in both lists, the model has no gated layer
            or is in training mode and drops out at random.

    >>> import torch
    >>> from gladient.nn import ResidualModel, presets
    >>> class Words(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.words, self.stack = nn.Embedding(5, 8), ResidualModel(8, [presets.mamba2(8, heads=2)])
    ...     def forward(self, input_ids):
    ...         return self.stack.hidden(self.words(input_ids)[None])[-1][0] @ self.words.weight.T
    >>> _ = torch.manual_seed(0)
    >>> found = worth(Words().eval(), [*torch.randint(5, (4, 9))], calibrate=[*torch.randint(5, (4, 9))], steps=2)
    >>> [(row.layer, row.head) for row in found.heads]
    [(0, 0), (0, 1)]
    """
    check_texts(model, texts, calibrate)
    kinds = kinds_of(model, calibrate[0])
    every = passes_of(model, kinds, layers, heads)
    decays, found = fit_decays(model, calibrate, steps=steps, seed=seed, batch=batch), {}
    for done, one in enumerate(every, start=1):
        found[one] = read_losses(model, texts, one, kinds, decays, batch)
        on_pass(done, len(every))
    return worth_of(found, decays)


def worth_of(found: Mapping[Pass, Float[Tensor, " N"]], decays: dict[int, Tensor]) -> Worth:
    """The table of the losses of each text in each pass."""
    base, low = found[Pass("unchanged")], found[Pass("fixed")]

    def row(layer: int | None, head: int | None) -> HeadWorth:
        rises = {one.change: _rise(each, base) for one, each in found.items() if (one.layer, one.head) == (layer, head)}
        alone = found.get(Pass("alone", layer, head))
        return HeadWorth(
            layer=layer,
            head=head,
            no_gate=rises["no_gate"],
            fixed=rises["fixed"],
            no_erase=rises.get("no_erase"),
            ablated=rises["ablated"],
            alone=None if alone is None else _rise(low, alone),
        )

    heads = dict.fromkeys((one.layer, one.head) for one in found if one.layer is not None)
    return Worth(base.mean().item(), len(base), row(None, None), tuple(row(*each) for each in heads), decays)


def _rise(changed: Tensor, base: Tensor) -> Rise:
    each = (changed - base).double()
    return Rise(each.mean().item(), each.std().item() / len(each) ** 0.5)
