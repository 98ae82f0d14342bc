"""Exact risk of one step of weighted preconditioned gradient descent (WPGD)."""

import numpy as np

from gladient._types import Array, ArrayLike
from gladient.landscape.gates.reduced import reduce
from gladient.prompts import MultitaskSetting

__all__ = ["profile_risk", "risk"]


def risk(P: ArrayLike, omega: ArrayLike, setting: MultitaskSetting) -> float:
    r"""Expected squared error of predicting $x^\top P X^\top (\omega \odot y)$.

    $$L = \sigma^2 + \operatorname{tr}(E^\top \Sigma E) + \operatorname{tr}\!\big(P^\top \Sigma P\,
        [(\omega^\top (R - r r^\top) \omega + \|\omega\|^2)\,\Sigma^2 + M \|\omega\|^2\,\Sigma]\big),
        \quad E = I - (\omega^\top r)\, P \Sigma.$$

    The sums over ω run over examples: a task with n_k examples counts n_k times. Every term is positive, so a risk far
    smaller than M loses no digits.

    Args:
        P: preconditioner, [d, d].
        omega: weight of one example of each task, [K].
        setting: the data.

    Raises:
        ValueError: if P or omega has the wrong shape or holds NaN or infinity.

    Source: derived (the paper's risk, arXiv 2504.04308, rearranged into squares).

    >>> import numpy as np
    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)
    >>> print(round(risk(np.eye(10) / 36, [0.2, 0.8], setting), 10))
    5.2777777778
    """
    P, omega = _checked("P", P, (setting.d, setting.d)), _checked("omega", omega, (setting.K,))
    sums, energy = setting.n * omega, float(setting.n @ omega**2)
    signal = float(sums @ setting.r)
    excess = float(sums @ (setting.R - np.outer(setting.r, setting.r)) @ sums)
    Sigma, PSigma = setting.Sigma, P @ setting.Sigma
    E = np.eye(setting.d) - signal * PSigma
    return float(
        setting.sigma2
        + np.sum(E * (Sigma @ E))
        + (excess + energy) * np.sum(PSigma * (Sigma @ PSigma))
        + setting.M * energy * np.sum(PSigma * (Sigma @ P))
    )


def profile_risk(omega: ArrayLike, setting: MultitaskSetting) -> float:
    r"""Risk of the weights ω with the best preconditioner for them.

    $$L(\omega) = M - \sum_j \frac{s_j^2 (\omega^\top r)^2}{\omega^\top (s_j (R + I) + M I)\,\omega}$$

    with $s_j$ the eigenvalues of Σ and sums over examples. It does not depend on the scale or the sign of ω.

    Args:
        omega: weight of one example of each task, [K].
        setting: the data.

    Raises:
        ValueError: if omega has the wrong shape or holds NaN or infinity.

    Source: arXiv 2504.04308, section 4.

    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)
    >>> print(round(profile_risk([1, 1], setting), 10), round(profile_risk([1, 4], setting), 10))
    6.5277777778 5.2777777778
    """
    omega = _checked("omega", omega, (setting.K,))
    scale = np.abs(omega).max()
    reduced = reduce(setting)
    return reduced.risk(reduced.moments(omega / scale if scale > 0 else omega))


def _checked(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape}; this setting needs {list(shape)}: give one entry per task or feature"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; every entry must be finite")
    return array
