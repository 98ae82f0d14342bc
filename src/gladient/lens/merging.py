"""One recurrence of all heads, where some take what a change made and the others stay."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from gladient.lens.recurrence import HEAD_DIMS, Recurrence

__all__ = ["merged"]

_SHARED = ("read", "erase_read", "pairs", "ranks", "normalise", "eps")
_ABSENT = {"rate": 1.0, "own": 1.0, "beta": 1.0, "output_gate": 1.0}  # what a missing field stands for; 0 elsewhere


def merged(given: Recurrence, made: Recurrence, heads: Sequence[int] | None) -> Recurrence:
    """`made` for these heads, `given` for the others; fields that are the same object stay as they are.

    Raises:
        ValueError: if the heads would read, normalise or pair channels in different ways.

    >>> one = torch.ones(1, 1, 2, 1)
    >>> x = Recurrence(one, one, one, one, torch.arange(1))
    >>> merged(x, replace(x, v=3 * one), [1]).v.flatten().tolist()
    [1.0, 3.0]
    """
    if heads is None:
        return made
    apart = [name for name in _SHARED if getattr(given, name) != getattr(made, name)]
    if apart or (given.beta is None) != (made.beta is None):
        field = (*apart, "beta")[0]
        raise ValueError(f"the change made another {field} for some heads; leave {field} as it is, or heads out")
    given, made = _alike(given, made)
    chosen = torch.tensor(list(heads), device=given.k.device)
    changed: dict[str, Any] = {}
    for name in (field.name for field in fields(Recurrence)):
        before, after = getattr(given, name), getattr(made, name)
        if before is not after and name not in (*_SHARED, "positions", "output", "products"):
            before, after = _filled(name, before, after), _filled(name, after, before)
            dim = HEAD_DIMS.get(name, 2)
            changed[name] = before.index_copy(dim, chosen, after.index_select(dim, chosen).to(before.dtype))
    return replace(given, **changed)


def _filled(name: str, x: Tensor | None, other: Tensor | None) -> Tensor:
    """The field, or what it stands for where it is missing, in the other's shape."""
    if x is None:
        assert other is not None
        return torch.full_like(other, _ABSENT.get(name, 0.0), requires_grad=False)
    return x


def _alike(given: Recurrence, made: Recurrence) -> tuple[Recurrence, Recurrence]:
    """Both with gates of one shape, and with keys to erase by if one has them."""
    gates, rates = (
        {each.ndim for x in (given, made) if (each := getattr(x, name)) is not None} for name in ("log_gates", "rate")
    )
    if len(gates) > 1 or len(rates) > 1:
        given, made = (replace(x, log_gates=_by_channel(x), rate=None) for x in (given, made))
    if any(x.erase_query is not None or x.erase_key is not None for x in (given, made)):
        given, made = (replace(x, erase_query=x.erasing[0], erase_key=x.erasing[1]) for x in (given, made))
    return given, made


def _by_channel(x: Recurrence) -> Tensor | None:
    gates = x.log_decay_in(x.k.dtype)
    return gates if gates is None or gates.ndim == 4 else gates[..., None].expand(x.k.shape)
