"""What gating buys: against linear attention, against the order constraints, beside rotations and the delta rule."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.delta.floors import filter_floor
from gladient.landscape.delta.slopes import delta_slope, step_slope
from gladient.landscape.gates.fixed_rotation import fixed_rotation
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.rungs import cone_slope, linear_attention, optimum, scalar_gate
from gladient.prompts import MultitaskSetting

__all__ = ["Advantage", "advantage"]

# Relative size below which a gain or a slope is rounding. Risks are right to about 1e-13; no simulation sees 1e-9.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Advantage:
    """What gates gain over linear attention.

    Attributes:
        gain: risk of linear attention minus the risk of the best weights.
        strict: whether any gate is strictly better.
        margin: how far linear attention is from being stationary: the sine of the angle between r and (c R + I) 1,
            where c belongs to its own preconditioner. Positive: gating is strictly better. For Σ = I this is the
            paper's condition "r is not proportional to (R + (d + σ² + 1) I) 1".
        tasks: each task's part in that angle, [K], squares summing to margin²; positive: the task deserves more weight
            (in the direction of r) than linear attention gives it.
        scalar_attains: whether a scalar gate already reaches the best weights.
        scalar_gap: risk of the scalar gate minus the risk of the best weights: what an angle per token gains.
        binding: the tasks k (from 0) whose order constraint ω_k ≥ ω_{k-1} (ω_0 ≥ 0 for the first) holds with equality
            and costs the scalar gate something.
        delta_slope: derivative of the risk, at the best weights ω*, in the size ε of delta-rule steps ε ω*; below 0 the
            delta rule with a step per task is strictly better than every value gate. None where that is not known:
            Σ not ∝ I, features that are not Gaussian, or ω* with both signs.
        step_slope: derivative of the delta rule's risk at a constant step of 0; below 0 a small step is better than
            linear attention, above 0 worse. None for Σ not ∝ I, or features that are not Gaussian.
        reduced: the setting.
    """

    gain: float
    strict: bool
    margin: float
    tasks: Float[Array, " K"]
    scalar_attains: bool
    scalar_gap: float
    binding: tuple[int, ...]
    delta_slope: float | None
    step_slope: float | None
    reduced: Reduced = field(repr=False)

    @cached_property
    def fixed_rotation_gap(self) -> float:
        """Risk of the best fixed rotation minus the risk of the best weights: what an angle per token gains on it."""
        return fixed_rotation(self.reduced).risk - optimum(self.reduced).risk

    @cached_property
    def floor_gap(self) -> float | None:
        """Risk of the best weights minus `filter_floor`: the most that erasing gains. None if x is not Gaussian."""
        return None if self.reduced.F is not None else optimum(self.reduced).risk - filter_floor(self.reduced).risk

    @property
    def delta_strict(self) -> bool:
        """Whether the delta rule with a step per task is proved to be strictly better than every value gate."""
        return self.delta_slope is not None and self.delta_slope < 0.0

    def numbers(self) -> dict[str, Any]:
        """All of it but the setting, for JSON."""
        shown = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "reduced"}
        gaps = {"fixed_rotation_gap": self.fixed_rotation_gap, "floor_gap": self.floor_gap}
        return {**shown, "tasks": self.tasks.tolist(), **gaps}


def advantage(setting: MultitaskSetting | Reduced) -> Advantage:
    """Whether and why gating beats linear attention, and whether a scalar gate is enough.

    Source: arXiv 2504.04308, section 5, for Σ = I; derived for general Σ, the binding constraints and the delta rule.

    >>> found = advantage(MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10))
    >>> print(f"{found.gain:.4f} {found.margin:.4f}", found.tasks.round(4), found.scalar_attains, found.binding)
    1.2500 0.5145 [ 0.3638 -0.3638] False (1,)
    """
    reduced = reduce(setting)
    none, scalar, best = linear_attention(reduced), scalar_gate(reduced), optimum(reduced)
    tasks = _misalignment(reduced)
    margin = float(np.linalg.norm(tasks))
    gain, gap = none.risk - best.risk, scalar.risk - best.risk
    closed = np.diff(scalar.omega, prepend=0.0) <= 0
    return Advantage(
        gain=gain,
        # Near equality the gain is the margin's square, so the margin shows what the gain's rounding hides.
        strict=margin > _ROUNDING or gain > _ROUNDING * reduced.M,
        margin=margin,
        tasks=tasks,
        scalar_attains=gap <= _ROUNDING * best.risk,
        scalar_gap=gap,
        binding=tuple(
            np.flatnonzero(closed & (cone_slope(reduced, scalar.omega, scalar.moments) > _ROUNDING)).tolist()
        ),
        delta_slope=delta_slope(reduced),
        step_slope=step_slope(reduced),
        reduced=reduced,
    )


def _misalignment(reduced: Reduced) -> Float[Array, " K"]:
    """What is left of √n r after its projection on √n (c R + I) 1, relative to its size and signed by its direction."""
    ones, r = np.ones_like(reduced.n), np.sqrt(reduced.n) * reduced.r_unit
    size = np.linalg.norm(r)
    if size == 0.0:
        return np.zeros_like(r)
    t = reduced.moments(ones).t
    A, B = reduced.secant(t, t)
    # Linear attention is stationary if its weights 1 are proportional to (c R + I)⁻¹ r for the c of its own
    # preconditioner, hence if (c R + I) 1 is to r; in this form nothing is inverted.
    v = (reduced.n + (B / A) * (reduced.pairs @ ones)) / np.sqrt(reduced.n)
    left = r - v * (v @ r) / (v @ v)
    return np.asarray(left * (np.sign(v @ r) or 1.0) / size)
