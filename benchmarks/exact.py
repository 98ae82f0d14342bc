"""The theory's formulas in exact fractions and plain loops: a witness that shares no code with the package.

A setting is each task's examples n, the correlations R and r, the eigenvalues s of Σ, and σ²; floats are fractions.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

__all__ = ["Exact"]

Weights = Sequence[Fraction]


@dataclass(frozen=True)
class Exact:
    """A setting in exact numbers."""

    n: list[Fraction]
    R: list[list[Fraction]]
    r: list[Fraction]
    s: dict[Fraction, int]
    sigma2: Fraction

    @classmethod
    def of(cls, n: list[int], R: list[Any], r: list[Any], s: list[Any] | dict[Any, int], sigma2: float) -> "Exact":
        """From floats; `s` is a list of eigenvalues, or eigenvalue: multiplicity."""
        counted = s if isinstance(s, dict) else {one: s.count(one) for one in s}
        return cls(
            [Fraction(x) for x in n],
            [[Fraction(x) for x in row] for row in R],
            [Fraction(x) for x in r],
            {Fraction(x): times for x, times in counted.items()},
            Fraction(sigma2),
        )

    @property
    def M(self) -> Fraction:
        """Risk of predicting 0."""
        return self.sigma2 + sum((x * times for x, times in self.s.items()), Fraction())

    def risk(self, omega: Weights) -> Fraction:
        """Risk of one weight per task, with the best P: arXiv 2504.04308, section 4."""
        sums = [n * w for n, w in zip(self.n, omega, strict=True)]
        return self.risk_of_sums(sums, sum((n * w * w for n, w in zip(self.n, omega, strict=True)), Fraction()))

    def risk_of_sums(self, sums: Weights, energy: Fraction) -> Fraction:
        """The same of each task's sum of weights and the total of all squared weights."""
        if energy == 0:
            return self.M
        signal = sum(x * r for x, r in zip(sums, self.r, strict=True))
        pairs = sum(x * y * rho for x, row in zip(sums, self.R, strict=True) for y, rho in zip(sums, row, strict=True))
        gain = sum(times * s * s / (s * (pairs + energy) + self.M * energy) for s, times in self.s.items())
        return self.M - signal * signal * gain

    def linear_attention(self) -> Fraction:
        """All weights 1."""
        return self.risk([Fraction(1)] * len(self.n))

    def key_gate(self) -> Fraction:
        """M - Σ_j s_j² r̃ᵀ (s_j (R̃ + I) + M I)⁻¹ r̃; with Σ ∝ I also the WPGD optimum."""
        risk = self.M
        for s, times in self.s.items():
            x = self._solve(s, s + self.M)
            risk -= times * s * s * sum(n * r * y for n, r, y in zip(self.n, self.r, x, strict=True))
        return risk

    def optimum(self, points: int = 12) -> Fraction:
        """Lowest risk found of the weights (c R + I)⁻¹ r, among which the optimum is; no optimum is above it."""
        low, high = (float(pick(x for x in self.s if x > 0) / self.M) for pick in (min, max))
        low = max(low, 1e-18 * high)

        def at(share: float) -> Fraction:
            e = Fraction(share)
            return self.risk([Fraction(float(x)) for x in self._scaled(self._solve(e / (e + 1), Fraction(1)))])

        grid = [low * (high / low) ** (i / max(points - 1, 1)) for i in range(points if high > low else 1)]
        risks = [at(e) for e in grid]
        best = min(range(len(grid)), key=risks.__getitem__)
        left, right = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        for _ in range(12 if right > left else 0):
            a, b = left * (right / left) ** 0.4, left * (right / left) ** 0.6
            risks += [at(a), at(b)]
            left, right = (left, b) if risks[-2] < risks[-1] else (a, right)
        return min(risks)

    def cone(self) -> Iterator[Fraction]:
        """Risks of weights that do not fall from task to task, on a coarse grid of their ratios."""
        steps = [0.0, 1e-9, 1e-6, 1e-3, 0.03, 0.2, 0.5, 0.8, 1.0]
        for ratios in product(steps, repeat=min(len(self.n) - 1, 2)):
            weights = [Fraction(1)]
            for ratio in ratios:
                weights.insert(0, weights[0] * Fraction(ratio))
            yield self.risk([Fraction(0)] * (len(self.n) - len(weights)) + weights)

    def decay(self, rate: float) -> Fraction:
        """One gate exp(-rate) on every token; delimiters and the query count as steps."""
        sums: list[Fraction] = []
        energy, steps = Fraction(0), Fraction(0)
        for n in reversed(self.n):
            sums.insert(0, Fraction(math.exp(-rate * float(steps)) * _geometric(rate, float(n))))
            energy += Fraction(math.exp(-2 * rate * float(steps)) * _geometric(2 * rate, float(n)))
            steps += n + 1
        return self.risk_of_sums(sums, energy)

    def decays(self, points: int = 40) -> Iterator[Fraction]:
        """Risks of rates over all scales, none at all included."""
        most = float(sum(self.n))
        yield self.decay(0.0)
        for i in range(points):
            yield self.decay(1e-3 / most * (700.0 * 1e3 * most) ** (i / (points - 1)))

    def _solve(self, c: Fraction, ridge: Fraction) -> list[Fraction]:
        """(c n nᵀ ∘ R + ridge diag(n))⁻¹ (n ∘ r) by elimination."""
        K = len(self.n)
        rows = [
            [c * self.n[k] * self.n[j] * self.R[k][j] + (ridge * self.n[k] if k == j else 0) for j in range(K)]
            + [self.n[k] * self.r[k]]
            for k in range(K)
        ]
        for k in range(K):
            for i in range(k + 1, K):
                factor = rows[i][k] / rows[k][k]
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
        x = [Fraction(0)] * K
        for k in reversed(range(K)):
            x[k] = (rows[k][K] - sum(rows[k][j] * x[j] for j in range(k + 1, K))) / rows[k][k]
        return x

    @staticmethod
    def _scaled(x: list[Fraction]) -> list[Fraction]:
        largest = max(map(abs, x))
        return [y / largest for y in x] if largest else x


def _geometric(rate: float, n: float) -> float:
    """Sum of exp(-i rate) over i < n."""
    return n if rate == 0.0 else math.expm1(-n * rate) / math.expm1(-rate)
