"""Two closed cases of the delta rule: the optimal schedule for one task that stays or drifts, and the critical step."""

from dataclasses import dataclass

import numpy as np

from gladient._types import Array, ArrayLike, Float
from gladient.landscape.delta.decays import ratios
from gladient.landscape.delta.isotropic import noise_share, require_isotropic
from gladient.landscape.delta.keys import key_moments
from gladient.landscape.delta.risk import delta_risk
from gladient.landscape.delta.rungs import DeltaCertificate, DeltaRung
from gladient.landscape.gates.cone import solve_monotone
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.prompts import MultitaskSetting

__all__ = ["DeltaSchedule", "critical_step_risk", "delta_schedule"]

_MOST = 10**6  # examples per schedule, which lists one step per example: a loop of about a second


@dataclass(frozen=True, eq=False)
class DeltaSchedule:
    """The optimal steps and decays, one per example.

    Attributes:
        risk: expected squared error of the query's prediction.
        steps: β of each example, [N].
        decays: α of each example, applied before its error, [N]; the first one does not matter.
        errors: squared error of the state about the task of the last example, per feature: before the first example and
            after each, [N + 1].
    """

    risk: float
    steps: Float[Array, " N"]
    decays: Float[Array, " N"]
    errors: Float[Array, " N1"]


def delta_schedule(setting: MultitaskSetting, *, keys: str = "gaussian") -> DeltaSchedule:
    r"""The optimal filter for one task that stays or drifts: a gated delta rule with a step for each example.

    For $\theta_t = \gamma_t \theta_{t-1} + \sqrt{1 - \gamma_t^2}\, \xi_t$, Σ = I and gaussian keys,

    $$p_t = \gamma_t^2 e_{t-1} + 1 - \gamma_t^2, \quad \beta_t = \frac{p_t}{(d+2) p_t + \sigma^2}, \quad
      e_t = p_t - \frac{p_t^2}{(d+2) p_t + \sigma^2}, \quad L = \sigma^2 + d\,(1 - \rho^2 (1 - e_N)),$$

    with $e_0 = 1$, ρ the query's correlation with the last task, α_t = γ_t. No rule
    $b \leftarrow p\,b - q\,x x^\top b + t\,y x$
    with numbers p, q, t per example does better. Other keys: $e - e^2 / (d (e + \nu))$, $\beta = e / (e + \nu)$.

    The tasks of the setting must be a chain: $R_{kl} = \prod_{k \le m < l} \gamma_m$ with γ ≥ 0, and
    $r_k = R_{kK}\, r_K$. One task is such a chain; so is $R_{ij} = \gamma^{|i-j|}$ with n = 1 each.

    Args:
        setting: the data.
        keys: as in `delta_risk`.

    Raises:
        ValueError: if the tasks are not such a chain, Σ is not a multiple of I, or there are more than 10⁶ examples.

    Source: derived.

    >>> found = delta_schedule(MultitaskSetting.isotropic(n=[20], r=[1.0], d=10, sigma2=1.0))
    >>> print(f"{found.risk:.6f}", found.steps[[0, -1]].round(5))
    3.317967 [0.07692 0.06232]
    """
    reduced = reduce(setting)
    gammas = _chain(reduced)
    require_isotropic(reduced, "the schedule is optimal for Σ ∝ I: whiten x, or use delta_rule")
    total = int(setting.n.sum())
    if total > _MOST:
        raise ValueError(f"the prompt has {total:g} examples; a schedule lists one step per example: use 1e6 at most")
    d, scale = setting.d, float(reduced.s.mean())
    erase, noise = _denominator(keys, d, noise_share(setting.sigma2, scale))
    left = erase - (1.0 if keys == "gaussian" else 1.0 / d)
    unit = 1.0 / scale if keys == "gaussian" else 1.0
    decays = np.ones(total)
    decays[np.cumsum(setting.n)[:-1]] = gammas
    steps, errors = np.zeros(total), np.ones(total + 1)
    e = 1.0
    for t, gamma in enumerate(decays.tolist()):
        prior = e if gamma == 1.0 else gamma * gamma * e + (1.0 - gamma * gamma)
        bottom = erase * prior + noise
        # prior - prior²/(bottom) with the subtraction done in `left`: e keeps its digits however small it is
        e = prior * (left * prior + noise) / bottom
        steps[t], errors[t + 1] = unit * prior / bottom, e
    rho2 = float(setting.r[-1]) ** 2
    risk = setting.sigma2 + scale * d * ((1.0 - rho2) + rho2 * e)
    return DeltaSchedule(float(risk), steps, decays, errors)


def critical_step_risk(setting: MultitaskSetting, *, decays: ArrayLike | None = None) -> DeltaRung:
    r"""The gated delta rule at the critical step β = 1/(d+2), in closed form: an upper bound of `gated_delta_rule`.

    With φ = (d+1)/(d+2) and $w_k = (1 - \varphi^{n_k})\, \varphi^{n_{k+1} + \dots + n_K}$ the tasks' correlations R
    drop out:

    $$L(\Delta) = M - \frac{d\, (\sum_k w_k r_k \Delta_k)^2}{(1 + \sigma^2 / (d + 2)) \sum_k w_k \Delta_k^2}.$$

    The best gates are the positive part of the isotonic regression of r, or of -r, with weights w: where
    $0 \le r_1 \le \dots \le r_K$ the decays are $r_k / r_{k+1}$, the ratios of relevance.

    Args:
        setting: the data, Σ ∝ I.
        decays: δ, what each task's delimiter leaves of the state, [K]; the best ones if not given.

    Raises:
        ValueError: if Σ is not a multiple of I, or the decays are not [K] numbers from 0 to 1.

    Source: derived.

    >>> found = critical_step_risk(MultitaskSetting.isotropic(n=[50, 50], r=[0.2, 0.8], d=10))
    >>> print(f"{found.risk:.6f}", found.decays.round(4))
    3.677463 [0.25 1.  ]
    """
    reduced = reduce(setting)
    require_isotropic(reduced, "the critical step has a closed form for Σ ∝ I: use gated_delta_rule")
    d, scale = setting.d, float(reduced.s.mean())
    step = 1.0 / ((d + 2) * scale)
    certificate = DeltaCertificate("closed form", 1, None, attained=True)
    if decays is not None:
        risk = delta_risk(setting, step, decays=decays)
        return DeltaRung(risk, np.full(setting.K, step), np.array(decays, dtype=np.float64), certificate)
    # In logarithms: φ^n of 10¹² examples is e^-10¹¹. The floor keeps the problem solvable where nothing is left of a
    # task.
    log_keep = -reduced.n * np.log1p(1.0 / (d + 1.0))
    later = np.append(np.cumsum(log_keep[:0:-1])[::-1], 0.0)
    w = np.maximum(-np.expm1(log_keep) * np.exp(later), 1e-200)
    best, gates = 0.0, np.ones(setting.K)
    for sign in (1.0, -1.0):
        tried, _ = solve_monotone(
            w, np.zeros((setting.K, setting.K)), sign * w * setting.r, np.ones(setting.K, dtype=bool)
        )
        if (value := float(w @ tried**2)) > best:
            best, gates = value, tried
    share = best / (1.0 + noise_share(setting.sigma2, scale) / (d + 2.0))
    risk = setting.sigma2 + scale * d * (1.0 - share)
    return DeltaRung(float(risk), np.full(setting.K, step), ratios(gates[None])[0], certificate)


def _denominator(keys: str, d: int, sigma2: float) -> tuple[float, float]:
    """Slope c and noise ν of the step e / (c e + ν)."""
    of = key_moments(keys, d)
    if keys == "gaussian":
        return d + 2.0, sigma2
    return 1.0, (of.extra + sigma2 * of.noise) / (of.erase * of.signal**2)


def _chain(reduced: Reduced) -> Float[Array, " K1"]:
    """γ between neighbouring tasks, checked."""
    R, r = reduced.R, reduced.r
    gammas = np.diag(R, 1).copy()
    expected = np.ones_like(R)
    for k in range(1, len(R)):
        expected[:k, k] = expected[k, :k] = expected[:k, k - 1] * gammas[k - 1]
    # 1e-9 is what `MultitaskSetting` allows correlations typed by hand to be off
    if np.abs(expected - R).max() > 1e-9 or np.abs(expected[:, -1] * r[-1] - r).max() > 1e-9 or (gammas < 0.0).any():
        raise ValueError(
            "the tasks are not a chain; a schedule needs R_kl to be the product of the correlations ≥ 0 of neighbours "
            "between k and l, and r_k = R_kK r_K: one task, or one that drifts. Use gated_delta_rule"
        )
    return np.asarray(gammas)
