"""The gain of gating over the plane of two tasks' correlations with the query's, around one setting."""

from dataclasses import dataclass

import numpy as np

from gladient._types import Array, Float
from gladient.landscape import optimum_batch
from gladient.prompts import MultitaskSetting

__all__ = ["Gains", "gains"]

_SAME = 1e-9  # relative size of what counts as rounding


@dataclass(frozen=True, eq=False)
class Gains:
    """The gain of the best gates over linear attention where two correlations vary and the others stay.

    Attributes:
        tasks: the two tasks, from 0: along, and up.
        at: values of each correlation, [S].
        gain: 1 - risk of the optimum / risk of linear attention, rows by the second task, [S, S]; NaN where the
            correlations cannot occur together.
        margin: at least 0 where a scalar gate attains the optimum, [S, S].
    """

    tasks: tuple[int, int]
    at: Float[Array, " S"]
    gain: Float[Array, "S S"]
    margin: Float[Array, "S S"]


def gains(setting: MultitaskSetting, tasks: tuple[int, int] = (0, 1), points: int = 81) -> Gains:
    """The plane through a setting; its point at the setting's own correlations is the setting.

    >>> found = gains(MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10), points=21)
    >>> row, column = np.isclose(found.at, 0.2).argmax(), np.isclose(found.at, 0.8).argmax()
    >>> print(f"{found.gain[row, column]:.4f} {np.isnan(found.gain).sum()}")
    0.1915 124
    """
    at = np.linspace(-1.0, 1.0, points)
    r = np.repeat(setting.r[None], points * points, axis=0)
    r[:, tasks] = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)
    spectrum, times = np.unique(np.linalg.eigvalsh(setting.Sigma).clip(0.0), return_counts=True)
    found = optimum_batch(setting.n, setting.R, r, spectrum, setting.sigma2, times)
    linear = np.where(found.linear_attention > 0.0, found.linear_attention, 1.0)
    gain = 1.0 - found.risk / linear
    gain = np.where(np.abs(gain) < _SAME, 0.0, gain)
    return Gains(tasks, at, gain.reshape(points, points), found.scalar_margin.reshape(points, points))
