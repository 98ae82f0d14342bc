"""The risk of every direction that the weights of two tasks can take."""

import math
from dataclasses import dataclass

import numpy as np

from gladient._types import Array, Float
from gladient.landscape import profile_risk
from gladient.prompts import MultitaskSetting

__all__ = ["Circle", "around"]


@dataclass(frozen=True, eq=False)
class Circle:
    r"""The risk of all weights of two tasks; only the direction of $u_k = \sqrt{n_k}\, \omega_k$ counts.

    Attributes:
        angles: of u, in degrees from 0 (task 1 alone) over 90 (task 2 alone) to 180, [A].
        risks: with the best preconditioner for each, [A].
        equal: the angle of equal weights.
        n: examples of each task.
    """

    angles: Float[Array, " A"]
    risks: Float[Array, " A"]
    equal: float
    n: Float[Array, " 2"]

    def angle(self, omega: Array) -> float:
        """Where weights lie."""
        return math.degrees(math.atan2(*(np.sqrt(self.n) * omega)[::-1])) % 180.0


def around(setting: MultitaskSetting, points: int = 181) -> Circle:
    """The risk in every direction.

    >>> found = around(MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10))
    >>> print(f"{found.angles[found.risks.argmin()]:g} {found.risks.min():.3f} {found.equal:g}")
    14 5.278 45
    """
    # half a circle: ω and -ω have the same risk, as P takes the sign
    angles, n = np.linspace(0.0, 180.0, points), setting.n.astype(float)
    directions = np.stack((np.cos(np.radians(angles)), np.sin(np.radians(angles)))) / np.sqrt(n)[:, None]
    risks = np.array([profile_risk(omega, setting) for omega in directions.T])
    return Circle(angles, risks, math.degrees(math.atan2(*np.sqrt(n)[::-1])), n)
