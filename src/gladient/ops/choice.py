"""What would run, and why, before anything does."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gladient.ops import eager
from gladient.ops.call import Backend, prepare
from gladient.ops.check import warn_layout
from gladient.ops.dispatch import BACKENDS, first_willing

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """What runs: a form, a backend, and why."""

    form: str
    backend: str
    reason: str


def choose(q: Tensor, k: Tensor, v: Tensor, *, backend: Backend = "auto", **options: Any) -> Choice:
    """The form and backend that these arguments get, and why: a delta rule's if `beta`, or a and b, are among them.

    >>> import torch
    >>> q = torch.ones(1, 1, 1, 4)
    >>> choose(q, q, q).form
    'step'
    """
    call = prepare(q, k, v, **options)
    warn_layout(call.k, call.heads)
    name = first_willing(call, backend)
    why = ["asked for" if call.chosen else f"{q.shape[1]} queries for {k.shape[1]} tokens"]
    if backend == name:
        why.append("backend asked for")
    else:
        passed = list(BACKENDS)[: list(BACKENDS).index(name)]
        why += [f"not {other}: {BACKENDS[other].why_not(call)}" for other in passed]
    form = eager.form(call) if name == "eager" else call.form
    return Choice(form, name, "; ".join(why))
