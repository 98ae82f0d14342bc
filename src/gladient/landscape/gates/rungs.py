"""The best risk of the gates that weigh examples: linear attention, scalar gate, and the unconstrained optimum."""

import numpy as np

from gladient._types import Array
from gladient.landscape.gates.reduced import Moments, Reduced, reduce
from gladient.landscape.gates.result import Certificate, Rung
from gladient.landscape.gates.weights import best_free, best_monotone
from gladient.prompts import MultitaskSetting

__all__ = ["cone_slope", "linear_attention", "optimum", "scalar_gate"]


def linear_attention(setting: MultitaskSetting | Reduced) -> Rung:
    """No gate: every example weighs 1.

    Source: arXiv 2504.04308, section 5 (Σ = I); derived for general Σ.

    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)
    >>> print(f"{linear_attention(setting).risk:.10f}")
    6.5277777778
    """
    reduced = reduce(setting)
    omega = np.ones_like(reduced.n)
    m = reduced.moments(omega)
    risk = reduced.risk(m)
    return Rung(risk, omega, Certificate(stationarity=0.0, lower_bound=risk), reduced, m)


def optimum(setting: MultitaskSetting | Reduced) -> Rung:
    r"""Global WPGD optimum over all weights; a value gate with a value channel for each task reaches it.

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
    omega, bound = best_free(reduced)
    m = reduced.moments(omega)
    slope = reduced.profile_slope(omega, m) / np.sqrt(reduced.n)  # in u = √n ω, where all counts are alike
    certificate = Certificate(stationarity=float(np.abs(slope).max()), lower_bound=bound)
    return Rung(reduced.risk(m), omega, certificate, reduced, m)


def scalar_gate(setting: MultitaskSetting | Reduced) -> Rung:
    r"""Best scalar gate: weights $0 \le \omega_1 \le \dots \le \omega_K$ (the monotone cone), constant within a task.

    A gate is at most 1, so no later task can weigh less than an earlier one; delimiters let it fall between tasks. The
    preconditioner takes the sign, so both P and -P are tried. The optimum is global.

    Source: arXiv 2504.04308, section 5 (when ω* is in the cone); the optimum when it is not is derived.

    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)
    >>> print(f"{scalar_gate(setting).risk:.10f}")
    6.5277777778
    """
    reduced = reduce(setting)
    omega, bound = best_monotone(reduced)
    m = reduced.moments(omega)
    slope = cone_slope(reduced, omega, m)
    # Where the weight rises it can move both ways, so the slope is 0; elsewhere it can only rise, so the slope is ≥ 0.
    rises = np.diff(omega, prepend=0.0) > 0
    certificate = Certificate(
        stationarity=float(np.abs(slope[rises]).max(initial=0.0)),
        kkt=float(np.max(-slope[~rises], initial=0.0)),
        lower_bound=bound,
    )
    return Rung(reduced.risk(m), omega, certificate, reduced, m)


def cone_slope(reduced: Reduced, omega: Array, m: Moments) -> Array:
    """Derivative of the risk along raising all weights from task k on, in the units of u = √n ω, [K]."""
    return np.cumsum(reduced.profile_slope(omega, m)[::-1])[::-1] / np.sqrt(np.cumsum(reduced.n[::-1]))[::-1]
