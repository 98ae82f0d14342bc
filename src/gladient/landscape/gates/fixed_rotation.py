"""A state that every token turns by the same angle, and decays alike: RetNet's and RoPE's rotation."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gladient._types import Array, Float
from gladient.landscape.gates.decay import fixed_decay
from gladient.landscape.gates.reduced import Moments, Reduced, reduce
from gladient.landscape.gates.result import Certificate, few
from gladient.landscape.gates.weights import best_free
from gladient.prompts import MultitaskSetting

__all__ = ["FixedRotation", "fixed_rotation"]

# The grid, per factor e. Tasks of equal length resonate with angles that are 1/K apart, and N single examples with
# angles that are 1/N apart. On 119 random settings a much finer scan ends lower in five, by at most 3e-4 of M.
_RATES, _ANGLES, _PER_TASK, _PER_TOKEN, _MOST_TOKENS = 1.0, 6.0, 3.0, 0.25, 100.0
_LEAST_RATE, _LEAST_ANGLE = 0.05, 0.01  # times all tokens: below, a weight is a line in the distance, to 1e-4 of it
_MOST_RATE = 30.0  # e^-30: the last example alone
_MOST = 6e7  # products of one grid with many tasks, 0.2 s; the angles then stand farther apart
_ENTRIES = 500_000  # numbers held at once in an intermediate array: 4 MB
_STARTS = 6  # lowest points of the grid, some way apart, that are refined; with 4 two of those settings ended higher
_SIDE, _ROUNDS, _FINER = 7, 18, 2.5  # points of a side of the refined grid, so much finer each round: 1e-7 in the end
_TANGENTS = 4  # rounds towards the best mix where directions differ: each is at least as good as the one before
# Sines are left out where their squares are a smaller share than the first (angles near π, or one example that is all),
# or where they are the cosines' multiple but for the second: both are differences, of which 10 digits stay.
_NOTHING, _ALIKE = 1e-6, 1e-5


@dataclass(frozen=True, eq=False)
class FixedRotation:
    r"""An example m tokens before the query weighs $\gamma^m \cos(\theta m + \psi)$, up to the scale that P takes.

    Attributes:
        risk: expected squared error of the query's prediction.
        gamma: what every token leaves of the state.
        theta: the angle by which every token turns each pair of channels, from 0 to π.
        phase: ψ, the fixed angle between queries and keys.
        omega: each task's mean weight, the largest in size 1, [K].
        certificate: `lower_bound` is that of all weights (`optimum`); the angle and the decay are scanned, no proof.
        reduced: the setting.
        moments: what the risk knows of the weights.
    """

    risk: float
    gamma: float
    theta: float
    phase: float
    omega: Float[Array, " K"]
    certificate: Certificate
    reduced: Reduced = field(repr=False)
    moments: Moments = field(repr=False)

    @cached_property
    def P(self) -> Float[Array, "d d"]:
        r"""The best preconditioner for the weights $\gamma^{m-2} \cos(\theta m + \psi)$, [d, d]."""
        return self.reduced.P(self.moments)

    @property
    def weights(self) -> Float[Array, " K"]:
        """Mean weight of one example of each task, [K]: omega."""
        return self.omega

    @property
    def text(self) -> str:
        """The mean weights, the decay and the angle."""
        return f"{few(self.omega)}  (γ = {self.gamma:.6g}, θ = {self.theta:.4g}; means)"

    def numbers(self) -> dict[str, Any]:
        """risk, gamma, theta, phase, omega and the certificate, for JSON."""
        turn = {"gamma": self.gamma, "theta": self.theta, "phase": self.phase}
        return {"risk": self.risk, **turn, "omega": self.omega.tolist(), "certificate": asdict(self.certificate)}


def fixed_rotation(setting: MultitaskSetting | Reduced) -> FixedRotation:
    r"""Best decay and rotation that are the same on every token (RetNet, RoPE).

    With 2 d channels, keys (x_j, 0) and queries at any angle to them, all pairs turn by one θ. An example m tokens
    before the query weighs $w(m) = \gamma^m (\alpha \cos\theta m + \beta \sin\theta m)$; delimiters and the query's own
    token count as steps. For given (γ, θ) the best mix is the solution of two equations; (γ, θ) are scanned, and the
    lowest points of the grid refined: the risk is exact, an upper bound of the best, and at most `fixed_decay`. No data
    dependence is needed, but the best angle belongs to one length of prompt.

    Source: derived.

    >>> best = fixed_rotation(MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10))
    >>> print(f"{best.risk:.4f} {best.gamma:.3f} {best.theta:.3f}")
    6.8673 1.000 0.047
    """
    reduced = reduce(setting)
    rates, angles = (part.ravel() for part in np.meshgrid(*_grid(reduced), indexing="ij"))
    risks = _Mixes.of(reduced, rates, angles).risks
    order = np.argsort(risks, kind="stable")
    at = np.stack((rates[order], angles[order]))
    low, rate, angle = _refined(reduced, *_apart(at))
    decay, (_, bound) = fixed_decay(reduced), best_free(reduced)
    if decay.risk <= low:
        gamma, omega = float(decay.gamma or 0.0), decay.omega / np.abs(decay.omega).max()
        return FixedRotation(decay.risk, gamma, 0.0, 0.0, omega, Certificate(lower_bound=bound), reduced, decay.moments)
    best = _Mixes.of(reduced, np.array([rate]), np.array([angle]))
    return best.result(rate, angle, Certificate(lower_bound=bound))


def _grid(reduced: Reduced) -> tuple[Array, Array]:
    """Rates -log γ and angles, at all scales from the whole prompt to one token."""
    K, tokens = len(reduced.n), float(np.sum(reduced.n + 1.0))
    rates = _scale(_LEAST_RATE / tokens, _MOST_RATE, _RATES)
    density = _ANGLES + _PER_TASK * K + _PER_TOKEN * min(tokens, _MOST_TOKENS)
    most = _MOST / (len(rates) * K * K * np.log(np.pi * tokens / _LEAST_ANGLE))
    return np.append(0.0, rates), _scale(_LEAST_ANGLE / tokens, np.pi, min(density, max(most, _ANGLES)))


def _scale(low: float, high: float, density: float) -> Array:
    return np.geomspace(low, high, int(np.ceil(density * np.log(high / low))) + 1)


def _apart(at: Float[Array, "2 G"]) -> tuple[Array, Array]:
    """The first points, each some way from those before it: neighbours lead to the same minimum."""
    found: list[Array] = []
    for point in at.T:
        if all(abs(point[1] / other[1] - 1.0) > 0.2 for other in found):
            found.append(point)
            if len(found) == _STARTS:
                break
    return np.array([point[0] for point in found]), np.array([point[1] for point in found])


def _refined(reduced: Reduced, rate: Array, angle: Array) -> tuple[float, float, float]:
    """The lowest risk near any of these points, its rate and its angle: grids around each, ever finer."""
    tokens = float(np.sum(reduced.n + 1.0))
    moves = np.linspace(-1.0, 1.0, _SIDE)
    across, along = (part.ravel() for part in np.meshgrid(moves, moves, indexing="ij"))
    # a neighbour of the grid is at most this far: half a factor e in the rate, a tenth in the angle
    wide, turn = np.maximum(rate, _LEAST_RATE / tokens), 0.2 * angle
    for _ in range(_ROUNDS):
        rates = np.maximum(rate[:, None] + wide[:, None] * across, 0.0)
        angles = np.clip(angle[:, None] + turn[:, None] * along, _LEAST_ANGLE / tokens, np.pi)
        risks = _Mixes.of(reduced, rates.ravel(), angles.ravel()).risks.reshape(rates.shape)
        best = risks.argmin(axis=1)[:, None]
        rate, angle = (np.take_along_axis(part, best, axis=1)[:, 0] for part in (rates, angles))
        # at a border of its grid the lowest point may lie farther on: then the grid follows, and stays as wide
        wide = np.where(np.abs(across[best[:, 0]]) == 1.0, wide, wide / _FINER)
        turn = np.where(np.abs(along[best[:, 0]]) == 1.0, turn, turn / _FINER)
    i = int(risks.min(axis=1).argmin())
    return float(risks[i].min()), float(rate[i]), float(angle[i])


@dataclass(frozen=True)
class _Mixes:
    """The best mixes of cosine and sine for G rates and angles, with their moments."""

    reduced: Reduced
    mix: Float[Array, "G 2"]
    sums: Float[Array, "G K"]  # of the weights of each task
    signal: Float[Array, " G"]
    excess: Float[Array, " G"]
    energy: Float[Array, " G"]
    risks: Float[Array, " G"]

    @classmethod
    def of(cls, reduced: Reduced, rates: Float[Array, " G"], angles: Float[Array, " G"]) -> "_Mixes":
        """Best mixes, in parts that fit into memory."""
        rows = max(1, _ENTRIES // len(reduced.n))
        parts = [_mixed(reduced, rates[at : at + rows], angles[at : at + rows]) for at in range(0, len(rates), rows)]
        return cls(reduced, *(np.concatenate(column) for column in zip(*parts, strict=True)))

    def result(self, rate: float, angle: float, certificate: Certificate) -> FixedRotation:
        """The first of them, the amplitude of its weights made 1."""
        size = float(np.hypot(*self.mix[0]))
        # α cos θ(m - 2) + β sin θ(m - 2): the last example of the last task is two tokens before the query's output
        phase = float(np.angle(np.exp(-1j * (np.arctan2(self.mix[0, 1], self.mix[0, 0]) + 2.0 * angle))))
        moments = Moments(
            float(self.signal[0]) / size, float(self.excess[0]) / size**2, float(self.energy[0]) / size**2
        )
        omega = self.sums[0] / self.reduced.n
        gamma = float(np.exp(-rate))
        # no lower than all weights by the rounding of the sines
        risk = max(float(self.risks[0]), certificate.lower_bound or 0.0)
        omega = omega / (np.abs(omega).max() or 1.0)
        return FixedRotation(risk, gamma, angle, phase, omega, certificate, self.reduced, moments)


def _mixed(reduced: Reduced, rates: Array, angles: Array) -> tuple[Array, ...]:
    """Mix, sums, signal, excess, energy and risk of each rate and angle."""
    n = reduced.n
    steps = np.cumsum((n + 1.0)[::-1])[::-1] - (n + 1.0)  # tokens between a task's last example and the last task's
    log_z = -rates + 1j * angles
    sums = _powers(log_z, steps, n)
    squares = _powers(2.0 * log_z, steps, n).sum(axis=1)
    sizes = _powers(-2.0 * rates + 0j, steps, n).real.sum(axis=1)
    # products of cosines and sines, each from the sums of z² and |z|²; then both in units of their sizes
    cosine, sine, both = (sizes + squares.real) / 2.0, (sizes - squares.real) / 2.0, squares.imag / 2.0
    cosines = cosine > _NOTHING * sizes
    sines = (sine > _NOTHING * sizes) & (~cosines | (both**2 < (1.0 - _ALIKE) * cosine * sine))
    unit = [
        np.where(kept, 1.0 / np.sqrt(np.where(kept, x, 1.0)), 0.0) for kept, x in ((cosines, cosine), (sines, sine))
    ]
    C, S, both = sums.real * unit[0][:, None], sums.imag * unit[1][:, None], both * unit[0] * unit[1]
    left = C @ reduced.unexplained, S @ reduced.unexplained
    cc, cs, ss = ((one * other).sum(axis=1) for one, other in ((left[0], C), (left[0], S), (left[1], S)))
    p, q = C @ reduced.r, S @ reduced.r
    h, place = np.unique(reduced.h, return_inverse=True)
    share, c = np.bincount(place, reduced.power), np.full(len(rates), float(reduced.h.mean()))
    for _ in range(1 if len(h) == 1 else _TANGENTS):
        # x / (A + B t), a tangent of 1/φ, is largest for (N + c E)⁻¹ b with c = B/A; N and E: of energy and excess
        x, off, y = 1.0 + c * cc, both + c * cs, 1.0 + c * ss
        alpha, beta = y * p - off * q, x * q - off * p
        size = np.hypot(alpha, beta)
        alpha, beta = alpha / np.where(size > 0.0, size, 1.0), beta / np.where(size > 0.0, size, 1.0)
        signal = alpha * p + beta * q
        excess = (alpha * alpha * cc + 2.0 * alpha * beta * cs + beta * beta * ss).clip(0.0)
        energy = alpha * alpha + 2.0 * alpha * beta * both + beta * beta
        t = (excess + signal**2) / np.where(energy > 0.0, energy, 1.0)
        v = share / (1.0 + np.multiply.outer(t, h)) ** 2
        c = (v @ h) / v.sum(axis=1)
    risks = np.where(energy > 0.0, reduced.risks(signal, excess, np.where(energy > 0.0, energy, 1.0)), reduced.M)
    mix = np.stack((alpha * unit[0], beta * unit[1]), axis=1)
    return mix, mix[:, :1] * sums.real + mix[:, 1:] * sums.imag, signal, excess, energy, risks


def _powers(log_z: NDArray[Any], steps: Array, n: Array) -> NDArray[np.complex128]:
    r"""$\sum_{i<n} z^{\text{steps} + i}$ of each task, [G, K]."""
    log_z = log_z[:, None]
    one = np.abs(np.expm1(log_z)) < 1e-300  # z = 1
    # (1 - zⁿ) / (1 - z), both by expm1: near 1 the differences lose all digits
    safe = np.where(one, -1.0 + 0j, log_z)
    ratio = np.where(one, n + 0j, np.expm1(n * safe) / np.expm1(safe))
    return np.asarray(np.exp(steps * log_z) * ratio)
