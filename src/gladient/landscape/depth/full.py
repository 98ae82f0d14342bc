"""Full steps, in which all examples see all: mixed moments of independent Wishart matrices, exact in integers."""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from gladient._types import Array, ArrayLike, Float
from gladient.landscape.depth.radial import Radial
from gladient.landscape.depth.result import require_layers
from gladient.landscape.gates.reduced import Reduced
from gladient.landscape.gates.result import few
from gladient.prompts import MultitaskSetting

__all__ = ["FullSteps", "full_steps"]

Word: TypeAlias = tuple[int, ...]

_MOST = 120  # coefficients: beyond, the moments of their words take minutes


@dataclass(frozen=True, eq=False)
class FullSteps:
    """L full steps, or the best polynomial of their degree.

    Attributes:
        risk: expected squared error of the query's prediction.
        omega: weight of each task in each step, rates included, [L, K]; None for the best polynomial.
        coefficients: of each word in each task's estimate.
    """

    risk: float
    omega: Float[Array, "L K"] | None
    coefficients: dict[tuple[Word, int], float] = field(repr=False)

    @property
    def weights(self) -> None:
        """None: what an example weighs depends on the features of the others."""

    @property
    def text(self) -> str:
        """The weights of each step, or that it is a bound."""
        if self.omega is None:
            return f"best of {len(self.coefficients)} words; no full steps go below"
        return " | ".join(few(row) for row in self.omega)

    def numbers(self) -> dict[str, Any]:
        """The risk and the weights, for JSON."""
        return {"risk": self.risk, "omega": None if self.omega is None else self.omega.tolist()}


def full_steps(setting: MultitaskSetting | Reduced, layers: int, omega: ArrayLike | None = None) -> FullSteps:
    r"""L steps of WPGD whose every example sees all examples, for Σ ∝ I; without weights, the bound of all of them.

    $$b \leftarrow b + \sum_k \omega_{lk}\, X_k^\top (y_k - X_k b)$$

    is $b = \sum_k Q_k X_k^\top y_k$ with polynomials $Q_k$ in the matrices $W_k = X_k^\top X_k$, which do not commute.
    The moments of their words follow from Stein's lemma, in integers, whatever n and d; they and the solve for the best
    $Q_k$ are exact (rational numbers), so no digits are lost however small the risk. For one task steps reach the
    bound; for several it lies below them.

    Args:
        setting: the data, Σ ∝ I.
        layers: L.
        omega: weight of each task in each step, rates included, [L, K]; the best polynomial of degree L if not given.

    Raises:
        ValueError: if layers is below 1, omega has a wrong shape, Σ is not a multiple of I, or there are too
            many words.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=10)
    >>> [round(full_steps(setting, layers).risk / 10, 4) for layers in (1, 2, 3)]
    [0.6762, 0.5698, 0.5173]
    """
    require_layers(layers)
    model = Radial.of(setting)
    K = len(model.n)
    basis = [(word, k) for q in range(layers) for word in product(range(K), repeat=q) for k in range(K)]
    if len(basis) > _MOST:
        raise ValueError(
            f"{layers} full steps on {K} tasks have {len(basis)} words, {_MOST} at most: take fewer layers, or "
            "depth_bound for causal layers"
        )
    g, Q = _quadratic(model, basis)
    if omega is None:
        f = _solve(g, Q)
    else:
        weights = np.asarray(omega, dtype=np.float64)
        if weights.shape != (layers, K) or not np.isfinite(weights).all():
            raise ValueError(f"omega has shape {weights.shape}; give finite weights [L, K] = [{layers}, {K}]")
        known = _words_of(weights * model.scale, K)
        f = [known.get(each, Fraction(0)) for each in basis]
    used = [i for i, value in enumerate(f) if value]
    square = sum((f[i] * f[j] * Q[i][j] for i in used for j in used), Fraction(0))
    lost = 1 - (2 * sum((f[i] * g[i] for i in used), Fraction(0)) - square) / model.d
    coefficients = {each: float(value) for each, value in zip(basis, f, strict=True)}
    return FullSteps(float(model.risk(float(lost))), None if omega is None else weights, coefficients)


def _quadratic(model: Radial, basis: list[tuple[Word, int]]) -> tuple[list[Fraction], list[list[Fraction]]]:
    """The g and Q of the risk M - 2 g'f + f'Qf in the words' coefficients."""
    traces = _Traces([int(n) for n in model.n], model.d)
    R = [[Fraction(float(value)) for value in row] for row in model.R]
    K, sigma2 = len(R), Fraction(model.sigma2)
    Q = [[Fraction(0)] * len(basis) for _ in basis]
    for i, (u, k) in enumerate(basis):
        for j, (v, m) in enumerate(basis[: i + 1]):
            value = R[k][m] * traces(((k, *u[::-1], *v, m),)) if R[k][m] else Fraction(0)
            if k == m and sigma2:
                value += sigma2 * traces(((*u, k, *v[::-1]),))
            Q[i][j] = Q[j][i] = value
    return [R[k][K] * traces(((*u, k),)) if R[k][K] else Fraction(0) for u, k in basis], Q


class _Traces:
    """E of products of traces of words in W_1 … W_K; the empty word has the trace d."""

    def __init__(self, n: list[int], d: int) -> None:
        self.n, self.d = n, d
        self.known: dict[tuple[Word, ...], int] = {}

    def __call__(self, words: tuple[Word, ...]) -> int:
        full = tuple(sorted(_least(word) for word in words if word))
        if not full:
            return int(self.d ** len(words))
        if full not in self.known:
            self.known[full] = self._by_parts(full)
        return int(self.d ** (len(words) - len(full)) * self.known[full])

    def _by_parts(self, words: tuple[Word, ...]) -> int:
        """One factor X_k of the longest word, integrated by parts: each other X_k that it meets gives two terms."""
        longest = max(range(len(words)), key=lambda i: len(words[i]))
        (k, *tail), others = words[longest], words[:longest] + words[longest + 1 :]
        u = tuple(tail)
        total = self.n[k] * self((u, *others))
        for i, letter in enumerate(u):
            if letter == k:
                total += self(((*u[:i][::-1], k, *u[i + 1 :]), *others)) + self(((k, *u[:i]), u[i + 1 :], *others))
        for j, word in enumerate(others):
            rest = others[:j] + others[j + 1 :]
            for i, letter in enumerate(word):
                if letter == k:
                    around = word[i + 1 :] + word[:i]
                    total += self(((k, *around, *u[::-1]), *rest)) + self(((k, *u, *around), *rest))
        return total


def _least(word: Word) -> Word:
    """The first of the words that have the same trace: rotations and reversals."""
    return min(w[i:] + w[:i] for w in (word, word[::-1]) for i in range(len(word)))


def _words_of(omega: Array, K: int) -> dict[tuple[Word, int], Fraction]:
    """Coefficients of L steps: each multiplies what is there by 1 - Σ ω_k W_k from the left, and adds its own."""
    found: dict[tuple[Word, int], Fraction] = {}
    for row in omega:
        step = dict(found)
        for (word, k), value in found.items():
            for j in range(K):
                longer = ((j, *word), k)
                step[longer] = step.get(longer, Fraction(0)) - Fraction(float(row[j])) * value
        for k in range(K):
            step[(), k] = step.get(((), k), Fraction(0)) + Fraction(float(row[k]))
        found = step
    return found


def _solve(g: list[Fraction], Q: list[list[Fraction]]) -> list[Fraction]:
    """Q⁻¹ g by elimination, 0 where a row is a combination of others."""
    rows = [[*row, value] for row, value in zip(Q, g, strict=True)]
    pivots = []
    for i in range(len(rows)):
        if not rows[i][i]:
            continue
        pivots.append(i)
        for j in range(i + 1, len(rows)):
            if rows[j][i]:
                factor = rows[j][i] / rows[i][i]
                rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    f = [Fraction(0)] * len(rows)
    for i in reversed(pivots):
        f[i] = (rows[i][-1] - sum((rows[i][j] * f[j] for j in pivots if j > i), Fraction(0))) / rows[i][i]
    return f
