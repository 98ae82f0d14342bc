"""Two layers of steps for any Σ with preconditioners that are diagonal with it."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gladient._types import Array, ArrayLike, Float
from gladient.landscape.depth.descent import by_values, descend
from gladient.landscape.gates.result import few
from gladient.prompts import MultitaskSetting

__all__ = ["DiagonalSteps", "best_two_layers_diagonal", "two_layers_diagonal"]

_FIRST, _KEPT, _LONG = 12, 3, 150  # steps of every start; starts that go on; steps of those


@dataclass(frozen=True, eq=False)
class DiagonalSteps:
    r"""Two causal steps with $P_l = V \operatorname{diag}(p_l) V^\top$.

    Attributes:
        risk: expected squared error of the query's prediction.
        rates: p of both steps, [2, d].
        gates: gate of each delimiter in each step, [2, K].
        directions: V, eigenvectors of Σ as columns, [d, d]; I for a diagonal Σ.
    """

    risk: float
    rates: Float[Array, "2 d"]
    gates: Float[Array, "2 K"]
    directions: Float[Array, "d d"] = field(repr=False)

    @property
    def weights(self) -> None:
        """None: what an example weighs depends on the features of the others."""

    @property
    def text(self) -> str:
        """Rates of each step, and gates."""
        return f"rates {few(self.rates[0])} | {few(self.rates[1])}; gates {few(self.gates[0])} | {few(self.gates[1])}"

    def numbers(self) -> dict[str, Any]:
        """risk, rates and gates, for JSON."""
        return {"risk": self.risk, "rates": self.rates.tolist(), "gates": self.gates.tolist()}


def two_layers_diagonal(setting: MultitaskSetting, rates: ArrayLike, gates: ArrayLike | None = None) -> DiagonalSteps:
    r"""Exact risk of two causal steps with $P_l = V \operatorname{diag}(p_l) V^\top$, Σ = V diag(s) Vᵀ; no cost in n.

    Args:
        setting: the data, any Σ.
        rates: p, [2, d], by the eigenvectors of Σ in the order of `numpy.linalg.eigh`; a diagonal Σ keeps its order.
        gates: g, [2, K]; 1 if not given.

    Raises:
        ValueError: if rates or gates have a wrong shape, or the risk overflows.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=2)
    >>> found = two_layers_diagonal(setting, [[-0.02758, 0.04745], [0.04783, -0.028455]])
    >>> print(f"{found.risk / 2:.5f}")  # less than any multiples of I, though Σ = I
    0.58631
    """
    p = _shaped("rates", rates, (2, setting.d))
    g = np.ones((2, setting.K)) if gates is None else _shaped("gates", gates, (2, setting.K))
    model = _Diagonal.of(setting)
    with np.errstate(over="ignore", invalid="ignore"):
        risk = float(model.risks(p[None], g[None])[0])
    if not np.isfinite(risk):
        raise ValueError(f"the risk overflows with rates {p.tolist()}: the best ones are of order 1 / (n s + tr Σ)")
    return DiagonalSteps(risk, p, g, model.directions)


def best_two_layers_diagonal(
    setting: MultitaskSetting, gates: Literal["none", "scalar"] = "none", *, starts: int = 8, seed: int = 0
) -> DiagonalSteps:
    """The best two such steps that searches find, for any Σ, without gates or with scalar ones.

    Even for Σ = I it can lie below the best multiples of I: each direction may take the two rates in its own order.
    It is searched from random starts on the exact risk, with no proof.

    Args:
        setting: the data, any Σ.
        gates: the family.
        starts: random starts; half of them give every direction its own rates.
        seed: seed of the starts.

    Raises:
        ValueError: if the family is unknown.

    Source: derived.

    >>> found = best_two_layers_diagonal(MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=2))
    >>> print(f"{found.risk / 2:.5f}")
    0.58631
    """
    if gates not in ("none", "scalar"):
        raise ValueError(f"gates is {gates!r}; choose none or scalar")
    model, d, K, rng = _Diagonal.of(setting), setting.d, setting.K, np.random.default_rng(seed)
    unit = 1.0 / (setting.n.sum() * model.s + setting.M)
    size = 2 * d + (2 * K if gates == "scalar" else 0)
    gate = np.arange(size) >= 2 * d

    def split(x: Array) -> tuple[Array, Array]:
        p = unit * x[:, : 2 * d].reshape(-1, 2, d)
        return p, x[:, 2 * d :].reshape(-1, 2, K) if gates == "scalar" else np.ones((len(x), 2, K))

    begin = np.column_stack([rng.uniform(-1.0, 2.0, (starts + 1, 2 * d)), rng.uniform(0.0, 1.0, (starts + 1, 2 * K))])
    alike = np.repeat(begin[::2, [0, d]], d, axis=1)
    begin[::2, : 2 * d] = alike  # a direction's rates differ from another's in half of the starts alone
    low, high = np.where(gate, 0.0, -np.inf), np.where(gate, 1.0, np.inf)

    def f(x: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return model.risks(*split(x))

    x, values = descend(f, by_values(f), begin[:, :size], low, high, unit=setting.M, most=_FIRST)
    x, values = descend(f, by_values(f), x[np.argsort(values)[:_KEPT]], low, high, unit=setting.M, most=_LONG)
    p, g = split(x[values.argmin()][None])
    return DiagonalSteps(float(values.min()), p[0], g[0], model.directions)


@dataclass(frozen=True)
class _Diagonal:
    r"""Second moments of two steps by direction: sign symmetry makes $E\,s_1 s_2^\top$ diagonal.

    With $a = p_1 s$, $t_1 = \sum a$, $t_2 = \sum a^2$ and $z = 1 - t_1 - 2a$, all expectations of a token are sums over
    directions. A block is a polynomial of degree 4 in its number of examples, as in `Radial`.
    """

    n: Float[Array, " K"]
    R: Float[Array, "K K1"]
    s: Float[Array, " d"]
    sigma2: float
    directions: Float[Array, "d d"]

    @classmethod
    def of(cls, setting: MultitaskSetting) -> "_Diagonal":
        Sigma, R = setting.Sigma, np.column_stack((setting.R, setting.r))
        if not (Sigma - np.diag(np.diag(Sigma))).any():
            s, V = np.diag(Sigma), np.eye(setting.d)
        else:
            s, V = np.linalg.eigh(Sigma)
        return cls(setting.n.astype(float), R, np.clip(s, 0.0, None), setting.sigma2, V)

    def risks(self, p: Float[Array, "N 2 d"], g: Float[Array, "N 2 K"]) -> Float[Array, " N"]:
        """Risks of many pairs of steps."""
        s, p1, p2, K = self.s, p[:, 0], p[:, 1], len(self.n)
        step = _token(s, self.sigma2, p1)
        A = np.zeros((3, *p1.shape))  # second moments 11, 12, 22
        m = np.zeros((2, K + 1, *p1.shape))
        for k, n in enumerate(self.n):
            A, m = _block(step, n, A, m, self.R[k], k)
            first, second = g[:, 0, k, None], g[:, 1, k, None]
            A = A * np.stack([first**2, first * second, second**2])
            m = m * np.stack([first, second])[:, None]
        b = p2 * s
        w1, w2 = b.sum(1, keepdims=True), (b**2).sum(1, keepdims=True)
        z = 1 - w1 - 2 * b
        z2 = 1 - 2 * (w1 + 2 * b) + w1**2 + 2 * w2 + 4 * b * w1 + 8 * b**2
        told = s * (z * p1 * m[0, K] + p2 * m[1, K])
        square = s * (z2 * p1**2 * A[0] + 2 * z * p1 * p2 * A[1] + p2**2 * A[2])
        return np.asarray(self.sigma2 + s.sum() - (2 * told - square).sum(1))


def _token(s: Array, sigma2: float, p: Array) -> Any:
    """What one example adds to (A, m): a function of both, of the tasks' correlations and of the constant."""
    a, tau = p * s, s.sum()

    def total(v: Array) -> Array:
        return np.asarray(v.sum(-1, keepdims=True))

    t1, t2, ta, taa = total(a), total(a**2), total(s * a), total(s * a**2)
    z, e2 = 1 - t1 - 2 * a, t1**2 + 2 * t2
    z2 = 1 - 2 * (t1 + 2 * a) + e2 + 4 * a * t1 + 8 * a**2
    none = tau + 2 * s
    one = none - (tau * (t1 + 2 * a) + 2 * ta + 2 * s * (t1 + 4 * a))
    two = tau * (e2 + 4 * t1 * a + 8 * a**2) + (4 * t1 + 8 * a) * ta + 8 * taa
    two = 2 * one - none + two + 2 * s * (e2 + 8 * t1 * a + 24 * a**2)

    def change(A: Array, m: Array, k: int, r: Array, unit: float) -> tuple[Array, Array]:
        m1, m2 = m[0, k], m[1, k]
        am = total(a * m1)
        y = s * (z * am - 2 * total(a * a * m1) + 2 * (1 - t1 - 4 * a) * a * m1)
        own = s * (total(a * p * A[0]) + 2 * a * p * A[0])
        new = [
            2 * s * m1 + unit * s * (none + sigma2),
            s * z * m1 - a * A[0] + s * m2 - s * (am + 2 * a * m1) + unit * s * (one + sigma2 * z),
            2 * (s * z * m2 - a * A[1]) + unit * s * (two + sigma2 * z2) - 2 * y + own,
        ]
        write = unit * r[:, None, None] * s
        return np.stack(new), np.stack([np.broadcast_to(write, m[0].shape), write * z - a * m[0]])

    return change


def _block(change: Any, n: float, A: Array, m: Array, r: Array, k: int) -> tuple[Array, Array]:
    """A block of n examples of task k: the binomial sum of the changes of changes, which end after the fourth."""
    total, unit, choose = (A, m), 1.0, 1.0
    for j in range(4):
        A, m = change(A, m, k, r, unit)
        choose, unit = choose * (n - j) / (j + 1), 0.0
        total = (total[0] + choose * A, total[1] + choose * m)
    return total


def _shaped(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = np.array(value, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} has shape {array.shape}; two steps on this setting need finite numbers of {shape}")
    return array
