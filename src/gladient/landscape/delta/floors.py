"""What no linear layer goes below: the filter's risk for linear keys, and for keys of any length."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.delta.advance import advance
from gladient.landscape.delta.isotropic import factored, noise_share
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.result import few
from gladient.prompts import MultitaskSetting

__all__ = ["Floor", "any_key_floor", "filter_floor"]

# p of each direction, how many directions share it, σ² → the part E[p z² / (Σ p z² + σ²)], or the like, that an example
# takes of p, and the part that it leaves: 1 minus that, with all its digits
Share = Callable[[Array, Array, float], tuple[Array, Array]]

# The integral over t = e^τ by the trapezoidal rule with steps h. Its error is e^(-π²/h) with noise, whose e^(-σ² t)
# grows beyond an imaginary part of π/2, and e^(-2π²/h) without: both below 1e-17. Below e^-40 nothing is left of it,
# nor where its integrand has fallen by e^-40.
_STEP, _STEP_NOISELESS, _FAR = 0.25, 0.5, 40.0
_LEAST = 1e-290  # of a p beside the largest: less underflows, and counts for nothing


@dataclass(frozen=True, eq=False)
class Floor:
    """A risk that no layer of a large class goes below; some layer attains it.

    Attributes:
        risk: expected squared error of the query's prediction.
        unknown: of each task, the share of its variance that the layer does not know after the task's examples, [K].
        kind: "closed form": Σ ∝ I without noise. "recursion": example by example, or in leaps that are right to 12
            digits.
    """

    risk: float
    unknown: Float[Array, " K"]
    kind: Literal["closed form", "recursion"]

    @property
    def weights(self) -> None:
        """None: what an example weighs depends on the examples around it."""

    @property
    def text(self) -> str:
        """What it leaves unknown of each task."""
        return f"{few(self.unknown)} of each task unknown after it"

    def numbers(self) -> dict[str, Any]:
        """risk, unknown and kind, for JSON."""
        return {**asdict(self), "unknown": self.unknown.tolist()}


def filter_floor(setting: MultitaskSetting | Reduced) -> Floor:
    r"""The least risk of every layer that erases, decays or rotates with keys and queries linear in x.

    No rule $b \leftarrow P_t b - E_t x x^\top B_t b + C_t x y$ has a smaller risk, whatever its matrices, which
    position and contextual features set, its state, heads and read-out: gated linear attention, the gated delta rule,
    Mamba-3 and RWKV-7 are such rules while keys are linear in x and gates do not look at x. For each eigenvalue $s_j$
    of Σ the errors about the query's task 0 and the tasks of the prompt have a covariance $V_j$, at first
    $[[1, r^\top], [r, R]]$, and

    $$\text{example of task } k: \; V_j \leftarrow V_j -
        \frac{s_j V_j e_k e_k^\top V_j}{2 s_j V_{j,kk} + \sum_i s_i V_{i,kk} + \sigma^2}, \qquad
      L = \sigma^2 + \sum_j s_j V_{j,00}.$$

    A layer with a read key $e_k x$ that erases and writes along $V e_k x$ attains it. Within a task only $V_{j,kk}$
    decides, so K tasks cost $K^3$ for each distinct $s_j$, at any number of examples. Without noise and with Σ ∝ I each
    example leaves (d+1)/(d+2) of its task's error.

    Raises:
        ValueError: if the features are not Gaussian.

    Source: derived.

    >>> floor = filter_floor(MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10))
    >>> print(f"{floor.risk:.6f}", floor.unknown.round(4))
    6.048546 [0.4189 0.4189]
    """
    return _floor(reduce(setting), _linear_keys)


def any_key_floor(setting: MultitaskSetting | Reduced) -> Floor:
    r"""The least risk of layers whose transitions may depend on the present x in any way.

    Keys may be normalised, steps and gates may look at x, and an example may take several steps; what an example does
    must not depend on labels or on earlier examples (no convolution, no second layer). With $p_i = s_i V_{i,kk}$,

    $$V_j \leftarrow V_j - E\Big[\frac{s_j z_j^2}{\sum_i p_i z_i^2 + \sigma^2}\Big]\, V_j e_k e_k^\top V_j,
      \quad z \sim N(0, I).$$

    Without noise and with Σ ∝ I each example leaves 1 - 1/d of its task's error. It is at most `filter_floor`.

    Raises:
        ValueError: if the features are not Gaussian.

    Source: derived.

    >>> print(f"{any_key_floor(MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10)).risk:.6f}")
    5.571013
    """
    return _floor(reduce(setting), _any_keys)


def _floor(reduced: Reduced, share: Share) -> Floor:
    """The filter's risk: the errors as rows of a factor, so that nothing is subtracted that is nearly equal."""
    reduced.require_gaussian("the floor")
    unit = float(reduced.s[-1])
    s, times = np.unique(reduced.s / unit, return_counts=True)
    s, times = s[s > 0.0], times[s > 0.0].astype(np.float64)
    noise = noise_share(reduced.sigma2, unit)
    rest = factored(reduced.unexplained)
    query = np.eye(1, 1 + rest.shape[1])
    # rows: the prompt's tasks in order, then the query's, so that a block changes the rows from its own on alone
    F = np.repeat(np.concatenate((np.column_stack((reduced.r, rest)), query))[None], len(s), axis=0)
    unknown = np.zeros(len(rest))
    for k, n in enumerate(reduced.n.astype(np.int64).tolist()):
        row = F[:, k].copy()
        v = np.einsum("jm,jm->j", row, row)
        at = v > 0.0
        log_left = _shrunk(s[at] * v[at], n, times[at], noise, share) if at.any() else np.zeros(0)
        unknown[k] = (times * s)[at] @ (v[at] * np.exp(log_left)) / (times @ s)
        # V' = V - (v - v')/v² V e e'V: the part of every row along this one shrinks by √(v'/v). Apart from the rest, so
        # that rows of the same task keep their digits however small they get.
        along = (np.einsum("jkm,jm->jk", F[at, k:], row[at]) / v[at, None])[:, :, None] * row[at, None]
        F[at, k:] = (F[at, k:] - along) + np.exp(log_left / 2.0)[:, None, None] * along
    risk = reduced.sigma2 + unit * float((times * s) @ np.einsum("jm,jm->j", F[:, -1], F[:, -1]))
    return Floor(risk, unknown, "closed form" if noise == 0.0 and len(s) == 1 else "recursion")


def _shrunk(p: Array, n: int, times: Array, noise: float, share: Share) -> Array:
    """Log of what n examples leave of each p."""
    if noise > 0.0:

        def growth(q: Array) -> Array:  # of 1/p, which in the end grows by 1/σ² with every example
            taken, left = share(1.0 / q, times, noise)
            return np.asarray(q * (taken / left))

        return np.asarray(-np.log1p(p * advance(1.0 / p, n, growth)))
    log_p = start = np.log(p)
    for done in range(n):
        with np.errstate(divide="ignore"):
            change = np.log(share(np.exp(log_p - log_p.max()), times, 0.0)[1])
        # the larger p shrink faster; once all are equal, by the same share for ever
        if len(p) == 1 or np.ptp(change) <= 1e-15:
            return np.asarray(log_p - start + (n - done) * change)
        log_p = log_p + change
        if log_p.min() == -np.inf:  # one direction that an example tells all of: nothing is left after any more
            return np.where(log_p == -np.inf, log_p, log_p - start)
    return np.asarray(log_p - start)


def _linear_keys(p: Array, times: Array, noise: float) -> tuple[Array, Array]:
    r"""$p_j / (2 p_j + \sum_i p_i + \sigma^2)$."""
    total = times @ p + noise
    return p / (2.0 * p + total), (p + total) / (2.0 * p + total)


def _any_keys(p: Array, times: Array, noise: float) -> tuple[Array, Array]:
    r"""$E[p_j z_j^2 / (\sum_i p_i z_i^2 + \sigma^2)] = \int_0^\infty \frac{p_j}{1 + 2 p_j t}\, C(t)\, dt$.

    $C = e^{-\sigma^2 t} \prod_i (1 + 2 p_i t)^{-1/2}$, as one over a sum is an integral of exponentials.
    """
    if len(p) == 1 and noise == 0.0:
        return 1.0 / times, 1.0 - 1.0 / times
    scale = float(times @ p) + noise
    p, noise = p / scale, noise / scale
    step = _STEP if noise > 0.0 else _STEP_NOISELESS
    t = np.exp(np.arange(-_FAR, _end(p, times, noise), step))
    logs = np.log1p(2.0 * np.outer(t, p))
    weight = step * t * np.exp(-noise * t - 0.5 * (logs @ times))
    mean, rest = p * (weight @ np.exp(-logs)), noise * float(weight.sum())
    # what is left as the sum of all other shares, for a direction that has nearly all
    shares = times * mean
    others = np.append(0.0, np.cumsum(shares[:-1])) + np.append(np.cumsum(shares[:0:-1])[::-1], 0.0)
    return mean, others + (times - 1.0) * mean + rest


def _end(p: Array, times: Array, noise: float) -> float:
    """Up to where the integrand is more than e^-40 of its integral."""
    tau = np.arange(0.0, 700.0, 16.0)
    t, least = np.exp(tau), -np.log(np.maximum(p.min(), _LEAST))
    fallen = noise * t + 0.5 * (np.log1p(2.0 * np.outer(t, p)) @ times) - np.minimum(tau, least)
    return float(tau[np.argmax(fallen > _FAR)]) if fallen[-1] > _FAR else 700.0
