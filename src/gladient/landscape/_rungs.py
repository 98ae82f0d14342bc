"""The best risk of each gate family: linear attention, fixed decay, scalar gate, and the unconstrained optimum."""

import numpy as np

from gladient._linalg import solve_spd
from gladient._types import Array
from gladient.landscape._cone import solve_monotone
from gladient.landscape._reduced import Moments, Reduced, reduce
from gladient.landscape._result import FixedDecay, Rung
from gladient.landscape._search import maximise
from gladient.prompts import MultitaskSetting

__all__ = ["half_gate", "linear_attention", "optimum", "scalar_gate"]


def linear_attention(setting: MultitaskSetting) -> Rung:
    """No gate: every example weighs 1.

    Source: arXiv 2504.04308, section 5 (Σ = I); derived for general Σ.

    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)
    >>> print(f"{linear_attention(setting).risk:.10f}")
    6.5277777778
    """
    reduced = reduce(setting)
    return _rung(reduced, np.ones(setting.K))


def optimum(setting: MultitaskSetting) -> Rung:
    r"""Global optimum of WPGD over all weights; a value (row) gate with enough rows reaches it.

    $$\omega^* \propto (h_2(\gamma^*)\, R + I)^{-1} r, \qquad P^* \propto (\gamma^* \Sigma + M I)^{-1}.$$

    The landscape may have several minima: the search keeps a proved bound on all weights, so the one returned is the
    best. ω has ωᵀr ≥ 0; with r = 0 nothing helps, P is 0 and ω is 1.

    Convention: the minimiser of this data model has no extra $\Sigma^{-1/2}$ on either side of P*.

    Source: arXiv 2504.04308, section 4; the global search is derived.

    >>> best = optimum(MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10))
    >>> print(f"{best.risk:.10f}", best.omega.round(10))
    5.2777777778 [0.25 1.  ]
    """
    reduced = reduce(setting)
    return _rung(reduced, _best_weights(reduced))


def scalar_gate(setting: MultitaskSetting) -> Rung:
    r"""Best scalar gate: weights $0 \le \omega_1 \le \dots \le \omega_K$, constant within a task.

    A gate is at most 1, so no later task can weigh less than an earlier one; delimiters let it fall between tasks. The
    preconditioner takes the sign, so both P and -P are tried. The optimum is global, over the whole cone.

    Source: arXiv 2504.04308, section 5 (when the cone holds ω*); the optimum over the cone is derived.

    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)
    >>> print(f"{scalar_gate(setting).risk:.10f}")
    6.5277777778
    """
    reduced = reduce(setting)
    candidates = [_rung(reduced, _best_monotone(reduced, sign)) for sign in (1.0, -1.0)]
    return min(candidates, key=lambda rung: rung.risk)


def half_gate(setting: MultitaskSetting) -> FixedDecay:
    """The gate 1/2 on every token: where a sigmoid gate with zero weights and no bias sits.

    Delimiters and the query's own token count as steps.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)
    >>> print(f"{half_gate(setting).risk:.10f}")
    8.6285714826
    """
    return _fixed_decay(reduce(setting), np.log(2.0))


def _rung(reduced: Reduced, omega: Array) -> Rung:
    m = reduced.moments(omega)
    return Rung(risk=reduced.risk(m), omega=omega, P=reduced.P(m))


def _normalised(omega: Array) -> Array:
    """Largest weight 1; all weights 1 where none helps."""
    scale = np.abs(omega).max()
    return omega / scale if scale > 0 else np.ones_like(omega)


def _best_weights(reduced: Reduced) -> Array:
    """Unconstrained global optimum: searched in the eigenbasis of the blocks, then solved once more without it."""
    eigenvalues, E = np.linalg.eigh(reduced.R_blocks)
    spread, a = np.clip(eigenvalues, 0.0, None), E.T @ reduced.r_blocks

    def inner(c: float) -> tuple[Moments, float]:
        w = a / (1.0 + c * spread)
        signal = float(a @ w)
        return Moments(signal, float(w @ (spread * w)) - signal**2, float(w @ w)), c

    _, c = maximise(reduced, inner, float(spread[0]), float(spread[-1]))
    Q = reduced.R * reduced.n[:, None] * reduced.n
    return _normalised(solve_spd(np.diag(reduced.n) + c * Q, reduced.n * reduced.r))


def _best_monotone(reduced: Reduced, sign: float) -> Array:
    """Global optimum over the monotone cone, for P of the given sign."""
    Q = reduced.R * reduced.n[:, None] * reduced.n
    g = sign * reduced.n * reduced.r
    rises = np.ones(len(g), dtype=bool)

    def inner(c: float) -> tuple[Moments, Array]:
        nonlocal rises
        omega, rises = solve_monotone(reduced.n, c * Q, g, rises)
        return reduced.moments(omega), omega

    return _normalised(maximise(reduced, inner, 0.0, float(reduced.n.sum()))[1])


def _fixed_decay(reduced: Reduced, rate: float) -> FixedDecay:
    r"""The gate $\gamma = e^{-	ext{rate}}$ on every token, in closed form by geometric sums."""
    m, omega = _decay_moments(reduced, rate)
    return FixedDecay(risk=reduced.risk(m), gamma=float(np.exp(-rate)), omega=omega, P=reduced.P(m))


def _decay_moments(reduced: Reduced, rate: float) -> tuple[Moments, Array]:
    """Moments and each task's mean weight; the last example of the last task weighs 1."""
    n = reduced.n
    steps = np.cumsum((n + 1.0)[::-1])[::-1] - (n + 1.0)  # tokens between a task's last example and the last task's
    sums = np.exp(-rate * steps) * _geometric(rate, n)
    energy = np.exp(-2.0 * rate * steps) * _geometric(2.0 * rate, n)
    return reduced.summed_moments(sums, float(energy.sum())), sums / n


def _geometric(rate: float, n: Array) -> Array:
    r"""$\sum_{i<n} e^{-i\,\text{rate}}$."""
    return n if rate == 0.0 else np.expm1(-n * rate) / np.expm1(-rate)
