"""The order of the tasks that suits a scalar gate best."""

from dataclasses import dataclass

import numpy as np

from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.weights import best_nonnegative
from gladient.prompts import MultitaskSetting

__all__ = ["Order", "best_order"]


@dataclass(frozen=True)
class Order:
    """The order of the tasks in the prompt that suits a scalar gate best.

    Attributes:
        order: tasks (from 0) in prompt order.
        risk: risk of the scalar gate in that order.
        lower_bound: no order has a smaller risk: proved, up to rounding.
    """

    order: tuple[int, ...]
    risk: float
    lower_bound: float


def best_order(setting: MultitaskSetting | Reduced) -> Order:
    r"""The order of the tasks that minimises the scalar-gate risk: exact for any number of tasks.

    A scalar gate asks for $0 \le \omega_1 \le \dots \le \omega_K$. Any weights ≥ 0 fulfil it once the tasks are sorted
    by them, so the best over all K! orders is the best over ω ≥ 0, and its order sorts the tasks by weight. Ties keep
    the order of the setting.

    Source: derived.

    >>> best = best_order(MultitaskSetting.isotropic(n=[25, 25, 25], r=[0.6, -0.1, 0.3], d=10))
    >>> print(best.order, f"{best.risk:.6f}")
    (1, 2, 0) 6.875000
    """
    reduced = reduce(setting)
    omega, bound = best_nonnegative(reduced)
    order = tuple(np.argsort(omega, kind="stable").tolist())
    return Order(order, reduced.risk(reduced.moments(omega)), bound)
