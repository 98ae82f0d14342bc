"""Exact risk of any stack, its slopes, and the best read-out for it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gladient._types import Array
from gladient.landscape.depth.radial import Radial, rescaled, solve_form
from gladient.landscape.depth.stack import Heads, Stack
from gladient.landscape.gates.reduced import Reduced
from gladient.prompts import MultitaskSetting

__all__ = ["StackRisk", "best_readout", "stack_risk"]

_COMPLEX = 1e-100  # step along the imaginary axis: nothing is subtracted, so it may be this small
_AT_ONCE = 200  # slopes computed together


@dataclass(frozen=True, eq=False)
class StackRisk:
    """The risk of a stack on a setting.

    Attributes:
        risk: expected squared error of the query's prediction.
        stack: the stack.
        model: the setting, as the recursion knows it.
    """

    risk: float
    stack: Stack = field(repr=False)
    model: Radial = field(repr=False)

    @cached_property
    def gradient(self) -> dict[str, Array]:
        """Slopes of the risk by the name of the stack's field, each of its shape; 0 for skips that cannot be.

        Each is exact to rounding: the risk is a polynomial in every number of a stack, so a step along the imaginary
        axis has no error of differences. Computed when it is asked for, at the cost of one risk for each number.
        """
        found = {name: np.zeros(value.shape) for name, value in self.stack.heads._asdict().items()}
        for name, place, slope in self._slopes():
            found[name][place] = slope
        return found

    def _slopes(self) -> Iterator[tuple[str, tuple[int, ...], float]]:
        heads = self.stack.heads
        H = len(heads.readout)
        places = [
            (name, place)
            for name, value in heads._asdict().items()
            for place in np.ndindex(value.shape)
            if name != "skips" or place[1] < place[0] < H
        ]
        for start in range(0, len(places), _AT_ONCE):
            part = places[start : start + _AT_ONCE]
            for (name, place), share in zip(part, self.model.shares(self._shifted(heads, part)), strict=True):
                yield name, place, float(self.model.risk(share.imag / _COMPLEX) - self.model.offset)

    def _shifted(self, heads: Heads, places: list[tuple[str, tuple[int, ...]]]) -> Heads:
        many = {
            name: np.repeat(value[None].astype(complex), len(places), axis=0) for name, value in heads._asdict().items()
        }
        for i, (name, place) in enumerate(places):
            many[name][(i, *place)] += 1j * _COMPLEX
        return rescaled(Heads(**many), self.model.scale)


def stack_risk(setting: MultitaskSetting | Reduced, stack: Stack) -> StackRisk:
    r"""Exact risk of a causal stack whose keys and queries are x, for Σ ∝ I; the cost does not depend on n.

    Without decay or erasing a block of n examples is a polynomial in n of twice the depth; with them the n-th power of
    a matrix of size H² + H + 1, H heads. $\xi = |x|^2$ enters by depth + 1 nodes, which is exact.

    Where digits end: sums lose about 1e-13 M for 4 layers and rates of order 1/n, more for rates far above the best;
    $L - \sigma^2$ below about 1e-12 M is lost. Sampling fails silently at such rates, since its error has moments of
    order 4 L in x.

    Args:
        setting: the data, Σ ∝ I.
        stack: as `Stack.steps` makes it, or any other.

    Raises:
        ValueError: if Σ is not a multiple of I, the stack has another number of tasks, its matrix would not fit in
            memory, or the risk overflows.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=10)
    >>> found = stack_risk(setting, Stack.steps([0.04, 0.09], gates=[[0.0, 0.0], [0.25, 1.0]]))
    >>> print(f"{found.risk:.6f}", found.gradient["gates"].round(3).tolist())
    7.049395 [[0.76, 0.27], [-0.165, -0.699]]
    """
    model = Radial.of(setting)
    _same_tasks(model, stack)
    with np.errstate(over="ignore", invalid="ignore"):
        risk = float(model.risk(model.shares(rescaled(stack.heads, model.scale))))
    if not np.isfinite(risk):
        raise ValueError(_where(model, stack))
    return StackRisk(risk, stack, model)


def best_readout(setting: MultitaskSetting | Reduced, stack: Stack) -> Stack:
    """The stack with the read-out that has the least risk: one linear solve, and no other read-out is better.

    >>> setting = MultitaskSetting.isotropic(n=[20], r=[1.0], d=10)
    >>> delta = Stack([1.0], [[0.0]], gates=[[1.0]], write=[[1 / 12, 0.0]], erase=1.0)  # the delta rule, β = 1/12
    >>> print(f"{stack_risk(setting, best_readout(setting, delta)).risk:.6f} {10 * (11 / 12) ** 20:.6f}")
    1.754805 1.754805
    """
    model = Radial.of(setting)
    _same_tasks(model, stack)
    readout = solve_form(*model.form(rescaled(stack.heads, model.scale))) / model.scale
    return Stack(**{**stack.heads._asdict(), "readout": readout})


def _same_tasks(model: Radial, stack: Stack) -> None:
    if stack.gates.shape[1] != len(model.n):
        raise ValueError(
            f"the stack has gates for {stack.gates.shape[1]} tasks and the setting {len(model.n)}: give gates [H, K], "
            "or Stack.steps(rates, tasks=K)"
        )


def _where(model: Radial, stack: Stack) -> str:
    """The first task after which the risk is no number, in words."""
    K, rates = len(model.n), {"readout": stack.readout.tolist(), "skips": stack.skips.tolist()}
    heads: Any = stack.heads
    for k in range(1, K + 1):
        short = replace(model, n=model.n[:k], R=np.column_stack((model.R[:k, :k], model.R[:k, K])))
        part = heads._replace(gates=heads.gates[:, :k], write=heads.write[:, [*range(k), K]])
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(short.shares(rescaled(part, model.scale))):
                break
    return (
        f"the risk overflows within task {k}, after up to {model.n[:k].sum():g} examples, with {rates} and "
        f"erase {stack.erase.tolist()}: rates are of order 1/(n + d), and a step β of the delta rule at most 2/(d + 2)"
    )
