"""A gate that turns the state between tasks: which weights it can make, with how many channels."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.gates.key import key_gate
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.result import Certificate, few
from gladient.landscape.gates.rungs import optimum, scalar_gate
from gladient.prompts import MultitaskSetting

__all__ = ["RotatingGate", "rotating_gate"]

_ALL_SIGNS = 8  # tasks up to which every pattern of signs is tried: 128
_EQUAL = 1e-9  # relative difference of risks that is rounding


@dataclass(frozen=True, eq=False)
class RotatingGate:
    """The best that a scalar gate with a rotation can do.

    Attributes:
        risk: expected squared error of the query's prediction.
        omega: weight of one example of each task, the largest 1, [K]; with an angle per pair along each direction of Σ,
            [K, d], as `key_gate` has it. For an upper bound, those of the directions with two channels, or of all
            directions.
        turns: the angle by which each task's delimiter turns the state, [K] or [K, d]; all gates are 1. The last turn
            may be a fixed angle between queries and keys in its place. None where the weights are a limit or a bound.
        channels: key channels of the head.
        attained: whether finite weights have this risk; if not, they come as near to it as one likes, and grow.
        kind: "optimum": no weights are better, `optimum` or `key_gate` proves it. "upper bound": what d to 2 d - 1
            channels are known to reach.
        certificate: that of `optimum` or `key_gate`; for an upper bound, `lower_bound` is the optimum's.
    """

    risk: float
    omega: Array
    turns: Array | None
    channels: int
    attained: bool
    kind: Literal["optimum", "upper bound"]
    certificate: Certificate

    @property
    def weights(self) -> Float[Array, " K"] | None:
        """Weight of one example of each task, [K]: omega; None with an angle per pair."""
        return self.omega if self.omega.ndim == 1 else None

    @property
    def text(self) -> str:
        """The weights, and the turns that make them."""
        shown = few(self.omega) if self.omega.ndim == 1 else "one for each direction"
        if self.turns is None or self.turns.ndim == 2:
            return shown if self.attained else f"{shown}  (a limit)"
        return f"{shown}  (turns {few(self.turns)})"

    def numbers(self) -> dict[str, Any]:
        """All of it, for JSON."""
        turns = None if self.turns is None else self.turns.tolist()
        return {**asdict(self), "omega": self.omega.tolist(), "turns": turns}


def rotating_gate(
    setting: MultitaskSetting | Reduced, *, angles: str = "token", channels: int | None = None
) -> RotatingGate:
    r"""Best scalar gate whose delimiters also turn the state: weights of any order and any sign.

    With keys (x_j, 0) and queries ((P x)_j, 0) in 2 d channels, task k weighs $\Gamma_k \cos \Phi_k$, where $\Phi_k$ is
    the sum of the turns after it and $\Gamma_k$ the product of the gates: with all gates 1 and
    $\cos\Phi_k = \omega_k / \max |\omega|$ any ω. So one angle per token reaches the WPGD optimum, and an angle per
    pair of channels `key_gate`, the least of all layers that do not erase.

    | channels | angles | the best | |
    |---|---|---|---|
    | 2 d or more | per token | `optimum` | attained |
    | 2 d or more | per pair | `key_gate` | attained |
    | d + 1 or more | per pair, two tasks, Σ ∝ I | `optimum` | a limit that no finite weights attain |
    | d or more | Σ ∝ I | no more than with two channels for some directions, one for others | an upper bound |

    A direction with two channels has any weights, one with one channel those whose sizes do not fall from task to task.

    Args:
        setting: the data.
        angles: "token": one for all pairs of channels; "pair": each pair, and a last channel alone, has its own.
        channels: key channels of the head, at least d; 2 d if not given.

    Raises:
        ValueError: if angles is neither, there are fewer than d channels, or fewer than 2 d and Σ is not a multiple of
            I.

    Source: derived.

    >>> best = rotating_gate(MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=5))
    >>> print(f"{best.risk:.4f}", best.turns.round(4))
    2.8750 [-1.3181  1.3181]
    >>> fewer = rotating_gate(MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=5), channels=6)
    >>> print(f"{fewer.risk:.4f}", fewer.kind, fewer.attained)
    3.3250 upper bound False
    """
    reduced = reduce(setting)
    d = len(reduced.w) if reduced.Sigma is None else len(reduced.Sigma)
    channels = 2 * d if channels is None else channels
    if angles not in ("token", "pair"):
        raise ValueError(f'angles is {angles!r}; it must be "token" (one for all pairs of channels) or "pair"')
    if channels < d:
        raise ValueError(f"channels is {channels} for {d} features; a head needs at least one channel per feature")
    if channels >= 2 * d:
        return _any_weights(reduced, angles, channels)
    if np.ptp(reduced.h) > 1e-12 * reduced.h.max():  # far above the rounding of eigenvalues
        raise ValueError(f"channels is {channels} < 2 d = {2 * d}; so few have a known risk for Σ ∝ I alone: whiten x")
    return _few_channels(reduced, angles, channels, d)


def _any_weights(reduced: Reduced, angles: str, channels: int) -> RotatingGate:
    found = optimum(reduced) if angles == "token" else key_gate(reduced)
    size = np.abs(found.omega).max(axis=0)
    later = np.arccos(np.clip(found.omega / np.where(size > 0.0, size, 1.0), -1.0, 1.0))
    # Φ_k sums the turns from the k-th delimiter on
    turns = later - np.concatenate((later[1:], np.zeros_like(later[:1])))
    return RotatingGate(found.risk, found.omega, turns, channels, True, "optimum", found.certificate)


def _few_channels(reduced: Reduced, angles: str, channels: int, d: int) -> RotatingGate:
    """From d to 2 d - 1 channels: the better of the known ways to spend them."""
    best = optimum(reduced)
    certificate = Certificate(lower_bound=best.certificate.lower_bound)
    cone, omega = scalar_gate(reduced), best.omega
    if cone.risk <= best.risk + _EQUAL * reduced.M:  # the weights are in order, and nothing has to turn
        return RotatingGate(cone.risk, cone.omega, np.zeros(len(omega)), channels, True, "optimum", cone.certificate)
    if len(reduced.n) == 2 and angles == "pair" and channels > d:
        return RotatingGate(best.risk, omega, None, channels, False, "optimum", best.certificate)
    risk, attained = reduced.M, True
    signed, signs = _best_signs(reduced)
    for free in {channels - d, channels // 2}:
        single = channels - 2 * free
        # Turns by 0 or π give a pair of channels signs; a last channel alone keeps the sizes, without signs.
        paired = single - single % 2
        alone = reduced.risk(reduced.moments(signed.omega))
        mixed = free * best.risk + paired * signed.risk + (single - paired) * min(alone, cone.risk)
        plain = free * best.risk + single * cone.risk
        found = (min(mixed, plain) + (d - free - single) * reduced.M) / d
        if found < risk:
            # one angle for all pairs has to be small where a direction has one channel, and closed gates stay closed
            attained = free == 0 or single == 0 or (angles == "pair" and signed.omega[0] > 0.0 and cone.omega[0] > 0.0)
            risk = found
    omega = signed.omega * signs if channels == d and attained else omega
    return RotatingGate(risk, omega, None, channels, attained, "upper bound", certificate)


def _best_signs(reduced: Reduced) -> tuple[Any, Array]:
    """Best weights whose sizes do not fall, and their signs: the scalar gate of tasks with other signs."""
    # turns by 0 or π alone: an imaginary part carries no signal, and in 13 random settings no other turn was better
    tried = []
    for signs in _patterns(reduced):
        flipped = replace(reduced, R=reduced.R * signs * signs[:, None], r=reduced.r * signs)
        tried.append((scalar_gate(flipped), signs))
    return min(tried, key=lambda one: one[0].risk)


def _patterns(reduced: Reduced) -> Iterator[Array]:
    """All signs of some tasks; of many, none and those of the best weights."""
    K = len(reduced.n)
    if K <= _ALL_SIGNS:
        yield from (np.array((1.0, *rest)) for rest in product((1.0, -1.0), repeat=K - 1))
        return
    yield np.ones(K)
    yield np.where(optimum(reduced).omega < 0.0, -1.0, 1.0)
