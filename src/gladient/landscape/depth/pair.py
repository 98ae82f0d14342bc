"""Two layers without search: linear attention's best two rates, and many settings that differ in r."""

from dataclasses import dataclass, replace

import numpy as np

from gladient._types import Array, ArrayLike, Bool, Float
from gladient.landscape.depth.bound import paths
from gladient.landscape.depth.radial import Radial, solve_form
from gladient.landscape.depth.stack import Heads
from gladient.landscape.gates.batch import is_valid
from gladient.prompts import MultitaskSetting

__all__ = ["TwoLayersBatch", "two_layers_batch", "two_rates"]


@dataclass(frozen=True, eq=False)
class TwoLayersBatch:
    """Best risks of two layers on many settings.

    Attributes:
        linear: two steps of linear attention, [B]; NaN where not valid.
        bound: `depth_bound` of two layers, which value gates reach, [B]; NaN where not valid.
        valid: whether the correlations are possible, [B].
    """

    linear: Float[Array, " B"]
    bound: Float[Array, " B"]
    valid: Bool[np.ndarray, " B"]


def two_layers_batch(n: ArrayLike, R: ArrayLike, r: ArrayLike, d: int, sigma2: float = 0.0) -> TwoLayersBatch:
    """Two layers, with value gates and without, on many settings with Σ = I that differ in r; nothing is searched.

    Args:
        n: examples per task, [K].
        R: task correlations, [K, K].
        r: correlations with the query's task, [B, K].
        d: number of features.
        sigma2: noise variance.

    Raises:
        ValueError: if a number is out of the range of `MultitaskSetting`. Impossible correlations are not an error:
            they are marked in `valid`.

    Source: derived.

    >>> found = two_layers_batch([10, 10], np.eye(2), [[0.2, 0.8], [0.8, 0.2], [0.9, 0.9]], d=10)
    >>> print(found.linear.round(4), found.bound.round(4), found.valid)
    [6.9995 7.6153    nan] [6.0115 6.0115    nan] [ True  True False]
    """
    at = np.asarray(r, dtype=np.float64)
    K = at.shape[1]
    model = Radial.of(MultitaskSetting.isotropic(n=np.asarray(n), R=R, r=np.zeros(K), d=d, sigma2=sigma2))
    valid = is_valid(np.broadcast_to(model.R[:, :K], (len(at), K, K)), at)

    def forms(heads: Heads) -> tuple[Array, Array]:
        """What g of each setting is, [B, H], and Q: the risk knows r by g alone, which is linear in it."""
        each = [replace(model, R=np.column_stack((model.R[:, :K], unit))).form(heads) for unit in np.eye(K)]
        return at @ np.array([g for g, _ in each]), each[0][1]

    g, Q = forms(_two(model))
    gained = np.array([_best_pair(model, one, Q)[1] for one in g])
    g, Q = forms(paths(model, 2, 1.0))
    known = np.einsum("bh,hb->b", g, np.array([solve_form(one, Q) for one in g]).T)
    risks = [np.where(valid, model.risk(1.0 - share / d), np.nan) for share in (gained, known)]
    return TwoLayersBatch(risks[0], risks[1], valid)


def two_rates(model: Radial) -> Float[Array, " 2"]:
    r"""The best two rates of linear attention, in the units of Σ = I; no other are better.

    With V the causal attention, two steps give $(c_1 + c_2) V y - c_1 c_2 V V y$. The risk is a quadratic form in both
    numbers; rates are real where $(c_1 + c_2)^2 \ge 4 c_1 c_2$. Its minimum is there or, the form being convex, on the
    border, where the rates are equal and the risk is a polynomial in one number.
    """
    return _best_pair(model, *model.form(_two(model)))[0]


def _two(model: Radial) -> Heads:
    """V y and V V y times `rate`, at a query that is not masked."""
    K, skips = len(model.n), np.array([[0.0, 0.0], [model.rate, 0.0]])
    one = np.ones(2)
    return Heads(one, skips, np.array([1.0, 0.0]), np.ones((2, K + 1)), np.ones((2, K)), one, np.zeros(2), one)


def _best_pair(model: Radial, g: Array, Q: Array) -> tuple[Array, float]:
    """The rates and what they take off the risk."""
    f, rate = solve_form(g, Q), model.rate
    if f[0] ** 2 < -4.0 * rate * f[1]:  # no real rates
        slope = [-rate * Q[1, 1], 3.0 * rate * Q[0, 1], -2.0 * rate * Q[0, 0] - g[1], g[0]]
        equal = rate * np.real(np.roots(slope))
        both = np.stack([2.0 * equal, -(equal**2) / rate], axis=1)
        f = both[np.argmax(2.0 * both @ g - np.einsum("ch,hi,ci->c", both, Q, both))]
    root = np.sqrt(max(f[0] ** 2 + 4.0 * rate * f[1], 0.0))
    return np.array([f[0] - root, f[0] + root]) / 2.0, float(2.0 * f @ g - f @ Q @ f)
