"""Interventions: a layer hands on what its changed recurrence computes, and everything after it follows."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gladient.lens.answer import Answer, answer
from gladient.lens.attaching import attached, ran_elsewhere
from gladient.lens.records import Record
from gladient.lens.recurrence import Recurrence, Selection, resolve
from gladient.seams import SeamError

__all__ = ["Change", "intervene"]

Change = Callable[[Record], Recurrence]
"""From the record of a call to the recurrence that it is to compute; `record.recurrence` itself for no change."""

_FIXED = ("q", "k", "v")  # whose sizes are those of the outputs and of the state


@contextmanager
def intervene(model: nn.Module, change: Change, *, layers: Selection = None, heads: Selection = None) -> Iterator[None]:
    r"""While the `with` lasts, the model's gated layers hand on what their changed recurrences compute.

    So do prefill, calls that continue a cache, single tokens of `generate`, and what a backward pass runs again: run
    that pass inside the block, too. States and caches are those of the changed recurrence; gradients pass through the
    change. Layers compute in the arithmetic that they have, float32 for half precision.

    Interventions inside of one another are done in the order in which they were entered. A capture that is entered
    afterwards sees the changed recurrence, and proves it; one that was entered before sees the model's own. Only the
    thread that opened the block is changed. Nothing stays behind, whatever is raised.

    Args:
        model: a model with gated layers; see `supported`.
        change: from the record of a call to another recurrence, of the same sizes, such as `scale_gates(2.0)` returns;
            the same object for no change, which keeps every bit. The record is on the graph, has all heads and all
            positions of the call, and counts calls from 0. Positions are those of the call, not of a text whose
            beginning lies in a cache.
        layers: numbers of the layers to change: one, some, or None for all.
        heads: the heads that take what the change makes: one, some, or None for all. Others keep their bits.

    Raises:
        ValueError: if the model has no gated layer, a layer or head does not exist, or the change returns another
            number of tokens, heads or channels, or gates above 1.
        TypeError: if it returns no recurrence.
        SeamError: if a layer ran past the place where it is changed, or the model did not run at all, as where it is
            compiled.

    Warns:
        UserWarning: if the model drops out at random, so that no two passes compare; or ran in other threads only.

    >>> from gladient.lens import scale_gates
    >>> from gladient.ops import gated_linear_attention
    >>> class Sums(nn.Module):
    ...     def forward(self, x, g):
    ...         return gated_linear_attention(x, x, x, g=g)[0]
    >>> model, x, half = Sums(), torch.ones(1, 3, 1, 1), torch.full((1, 3, 1), 0.5).log()
    >>> with intervene(model, scale_gates(0.0)):  # gates of 1
    ...     model(x, half).flatten().tolist()
    [1.0, 2.0, 3.0]
    >>> model(x, half).flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    _check_model(model)

    def hear(record: Record) -> Answer | None:
        given = record.recurrence
        made = change(record)
        if made is given:
            return None
        _check(record, made)
        return answer(given, made, None if heads is None else resolve(heads, given.heads, "head"))

    with attached(model, layers, hear, replace=True) as sites:
        yield
        if not any(site.calls or site.elsewhere for site in sites):
            raise SeamError(
                f"no gated layer of {type(model).__name__} ran inside the block, so that nothing was changed; run the "
                "model there, and not one that is compiled"
            )
    ran_elsewhere(sites, "changed")


def _check_model(model: nn.Module) -> None:
    for name, part in model.named_modules():
        if getattr(part, "_compiled_call_impl", None) is not None or hasattr(part, "_orig_mod"):
            raise SeamError(
                f"{name or type(part).__name__} is compiled, and would run past the change; change the model that was "
                "given to torch.compile, and run that"
            )
    drops = [part.p for part in model.modules() if isinstance(part, nn.modules.dropout._DropoutNd) and part.training]
    if any(drops):
        warnings.warn(
            f"the model is in training mode and drops out {max(drops):.0%} at random, beside what is changed; call "
            "model.eval() to compare",
            stacklevel=4,
        )


def _check(record: Record, made: object) -> None:
    given, where = record.recurrence, f"layer {record.layer} ({record.module})"
    if not isinstance(made, Recurrence):
        raise TypeError(f"{where}: the change returned {type(made).__name__}; it returns a Recurrence")
    sizes = [(name, tuple(getattr(x, name).shape)) for name in _FIXED for x in (given, made)]
    wrong = next(((name, a, b) for (name, a), (_, b) in zip(sizes[::2], sizes[1::2], strict=True) if a != b), None)
    if wrong:
        name, before, after = wrong
        raise ValueError(f"{where}: the change made {name} of shape {after}; the layer has {before}, which must stay")
    if (made.log_gates is not given.log_gates or made.rate is not given.rate) and not bool((_largest(made) <= 0).all()):
        raise ValueError(
            f"{where}: the change made log gates of up to {_largest(made).max():.4g}; gates lie in [0, 1]: their logs "
            "are at most 0, and not NaN"
        )


def _largest(x: Recurrence) -> Tensor:
    """Of the log gates of each head, NaN if one is; from the least and the largest factors, without their products."""
    if x.log_gates is None:
        return torch.zeros(1)
    gates = x.log_gates.detach().flatten(0, 1)
    least, most = gates.amin(0), gates.amax(0)
    if x.rate is None:
        return most
    rate = x.rate.detach()
    least, most = (each[:, None] if rate.ndim > each.ndim else each for each in (least, most))
    rate = rate[:, None] if least.ndim > rate.ndim else rate
    return torch.maximum(least * rate, most * rate)
