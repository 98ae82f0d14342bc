"""What the best weights see of many tasks: R̃ in the Krylov space of r̃, without an eigendecomposition."""

from dataclasses import dataclass

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.gates.reduced import Reduced

__all__ = ["Measure", "measure"]

_FEW_TASKS = 128  # tasks up to which all eigenvectors take no longer than trying a basis
_SHARE = 4  # a basis of more than this part of the tasks takes about as long as all eigenvectors
# Part of r that the weights may miss at the largest c. The risk has it squared: 1e-8 would give the risk all its
# digits, 1e-12 gives them to the weights, too, for a third more rows.
_RESIDUAL = 1e-12


@dataclass(frozen=True, eq=False)
class Measure:
    r"""Values λ and parts a such that $\tilde r^\top f(\tilde R)\, \tilde r = \sum_i a_i^2 f(\lambda_i)$.

    Attributes:
        values: λ, ascending, [m].
        parts: a, [m].
        basis: orthonormal rows in which $\tilde r$ has the coordinates a and $\tilde R$ is diag(λ) as far as the
            weights can tell, [m, K]; None if it is the eigenbasis of all tasks.
    """

    values: Float[Array, " m"]
    parts: Float[Array, " m"]
    basis: Float[Array, "m K"] | None = None


def measure(reduced: Reduced) -> Measure:
    r"""The Gauss quadrature of $\tilde r$ in $\tilde R$: exact for all weights $(c \tilde R + I)^{-1} \tilde r$.

    With orthonormal Q, first row $\tilde r / |\tilde r|$, and tridiagonal $T = Q \tilde R Q^\top$ (Lanczos, each row
    made orthogonal twice), the weights in the space of m rows leave the residual

    $$|\tilde r| \prod_{j \le m} \frac{c\, \beta_j}{p_j}, \quad
      p_j = 1 + c\,\alpha_j - \frac{c^2 \beta_{j-1}^2}{p_{j-1}},$$

    which grows in c. So rows are added until nothing is left for the largest c that any preconditioner asks for. A
    residual of 0 means that $\tilde r$ lies in an invariant subspace: the other tasks' eigenvectors do not matter. If
    that takes more than a quarter of the tasks, and for few tasks, the eigenvectors of all of them are cheaper.

    Source: derived; Golub and Meurant, Matrices, Moments and Quadrature (2010), for the quadrature.
    """
    K = len(reduced.n)
    rows = _lanczos(reduced, max(_FEW_TASKS // 2, K // _SHARE)) if K > _FEW_TASKS else None
    if rows is None:
        return Measure(*reduced.spectrum)
    Q, diagonal, beside = rows
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    size = float(np.linalg.norm(np.sqrt(reduced.n) * reduced.r_unit))
    return Measure(np.clip(values, 0.0, None), size * vectors[0], vectors.T @ Q)


def _lanczos(reduced: Reduced, most: int) -> tuple[Array, Array, Array] | None:
    """Rows of the basis, and T's diagonal and what stands beside it; None if `most` rows are too few."""
    root, R, c = np.sqrt(reduced.n), reduced.R, reduced.most_c
    row = root * reduced.r_unit
    Q, diagonal, beside = np.empty((most, len(row))), np.zeros(most), np.zeros(most)
    row, left, pivot = row / (np.linalg.norm(row) or 1.0), 1.0, np.inf
    for j in range(most):
        Q[j] = row
        row = root * (R @ (root * row))
        diagonal[j] = Q[j] @ row
        for _ in range(2):  # once leaves rounding times the cancellation, twice leaves rounding
            row -= (Q[: j + 1] @ row) @ Q[: j + 1]
        # p_j of the docstring, from elimination in I + c T; for j = 0 the pivot before it is infinite and beside[-1] 0
        pivot = 1.0 + c * diagonal[j] - (c * beside[j - 1]) ** 2 / pivot
        beside[j] = np.linalg.norm(row)
        left *= c * beside[j] / pivot
        if left <= _RESIDUAL:
            return Q[: j + 1], diagonal[: j + 1], beside[:j]
        row /= beside[j]
    return None
