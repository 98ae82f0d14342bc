"""The setting that is nearest to estimated moments."""

from dataclasses import dataclass

import numpy as np

from gladient._types import Array, Float
from gladient.data.moments import FeatureMoments
from gladient.data.refusal import RefusedError
from gladient.prompts import MultitaskSetting

__all__ = ["Nearest", "nearest", "strengths"]

_FLAT = 1e-9  # variance of white features that is rounding; it is 1 with all blocks
# Least strength of a role's tasks, as a part of the mean role's. A correlation is divided by its root: with less than
# this the noise of a role whose tasks hardly differ would pass for a correlation of 1.
_LEAST = 0.25


@dataclass(frozen=True, eq=False)
class Nearest:
    """A setting and the way to its units.

    Attributes:
        setting: Sigma is Ω, the mean of the tasks' second moments where features are white.
        map: Ω^½ S^-½, [d, d].
        scale: root mean square of the labels.
        yyxx: E[y² x xᵀ] in the setting's units, [d, d]; (2 Sigma² + M Sigma) for Gaussian features.
    """

    setting: MultitaskSetting
    map: Float[Array, "d d"]
    scale: float
    yyxx: Float[Array, "d d"]


def strengths(found: FeatureMoments) -> Float[Array, "B1 K1"]:
    """E[|β_k|²] of each role where features are white and E[y²] is 1; NaN where no prompt has two examples of it.

    Raises:
        RefusedError: if that is so of every role.
    """
    own = np.einsum("bkkij,bji->bk", found.C, found.xx) / found.yy[:, None]
    if np.isnan(own).all():
        raise RefusedError(
            "no prompt has two examples of a role, so tasks cannot be told from noise; join rows into roles of several "
            "examples, which for a panel --group and --time do (`prompts_from_panel`)"
        )
    return np.asarray(own)


def nearest(found: FeatureMoments, b: int, n: np.ndarray) -> Nearest:
    r"""The setting nearest to one entry of the moments.

    $\Omega = \mathrm{psd}(\mathrm{mean}_k\, C_{kk})$ and
    $R_{kl} = \operatorname{tr} C_{kl} / \sqrt{\operatorname{tr} C_{kk} \operatorname{tr} C_{ll}}$, made a correlation
    matrix, where features are white and E[y²] = 1.

    The mean strength tr C_kk of the roles must be above 0. A role whose own is less than a quarter of it is taken to
    have a quarter, one that has a single example in each prompt the mean.

    Raises:
        RefusedError: if a feature varies in one block alone.
    """
    values, vectors = np.linalg.eigh(found.xx[b])
    if values[0] <= _FLAT:
        raise RefusedError(
            "with one block of clusters left out the features follow from one another: one of them hardly ever varies; "
            "leave it out, or join rare categories"
        )
    root, inverse = ((vectors * power) @ vectors.T for power in (np.sqrt(values), 1.0 / np.sqrt(values)))
    C = root @ found.C[b] @ root / found.yy[b]
    traces = np.trace(C, axis1=2, axis2=3)
    own = np.diag(traces)
    mean = float(np.nanmean(own))
    strength = np.where(np.isnan(own), mean, own).clip(_LEAST * mean)
    np.fill_diagonal(traces, strength)
    R = _correlations(traces / np.sqrt(strength[:, None] * strength))
    Omega = np.nanmean(C[np.diag_indices(len(C))], axis=0)
    Omega, half = _positive((Omega + Omega.T) / 2)
    # E[y²] is 1 here, and tr Ω of it comes from the tasks
    sigma2 = max(0.0, 1.0 - float(np.trace(Omega)))
    setting = MultitaskSetting(n, R[:-1, :-1], R[:-1, -1], Omega, sigma2)
    map = half @ inverse
    return Nearest(setting, map, float(np.sqrt(found.yy[b])), map @ found.yyxx[b] @ map.T / found.yy[b])


def _positive(A: Array) -> tuple[Array, Array]:
    """The nearest positive semidefinite matrix and its root."""
    values, vectors = np.linalg.eigh(A)
    values = values.clip(0.0)
    return (vectors * values) @ vectors.T, (vectors * np.sqrt(values)) @ vectors.T


def _correlations(A: Array) -> Array:
    """A correlation matrix from a symmetric one: eigenvalues below 0 become 0, the diagonal 1 again."""
    found, _ = _positive(A)
    scale = np.sqrt(np.diag(found))
    # The quotients of a product and its own roots are 1 to rounding alone, which may be above 1.
    found = (found / scale[:, None] / scale).clip(-1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return (found + found.T) / 2
