"""Safe algebra in float64: symmetric matrices, and quotients whose divisor may be 0."""

import numpy as np

from gladient._types import Array, Float

__all__ = ["is_psd", "is_symmetric", "psd_factor", "ratio", "smallest_eigenvalue", "solve_spd"]


def is_symmetric(A: Float[Array, "m m"]) -> bool:
    """Whether A equals its transpose up to 1e-10 times its largest entry: rounding of products, and no more."""
    return bool(np.abs(A - A.T).max() <= 1e-10 * np.abs(A).max())


def is_psd(A: Float[Array, "m m"], tolerance: float) -> bool:
    """Whether no eigenvalue of the symmetric matrix A is below -tolerance < 0; much faster than computing them."""
    # -tolerance < 0 and not 0: a singular A is semidefinite, and its Cholesky factor fails by rounding
    try:
        np.linalg.cholesky(A + tolerance * np.eye(len(A)))
    except np.linalg.LinAlgError:
        return False
    return True


def smallest_eigenvalue(A: Float[Array, "m m"]) -> float:
    """Smallest eigenvalue of the symmetric matrix A."""
    return float(np.linalg.eigvalsh(A)[0])


def psd_factor(A: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """Symmetric F with F Fᵀ = A for a positive semidefinite A, singular A included."""
    eigenvalues, vectors = np.linalg.eigh(A)
    return np.asarray((vectors * np.sqrt(np.clip(eigenvalues, 0.0, None))) @ vectors.T)


def solve_spd(A: Float[Array, "*G m m"], b: Float[Array, "*G m"]) -> Float[Array, "*G m"]:
    """A⁻¹ b for positive definite A, scaled to unit diagonal so that rows of very different sizes stay accurate."""
    scale = 1.0 / np.sqrt(np.einsum("...kk->...k", A))
    scaled = A * scale[..., :, None] * scale[..., None, :]
    return np.asarray(scale * np.linalg.solve(scaled, (b * scale)[..., None])[..., 0])


def ratio(a: Array, b: Array) -> Array:
    """The quotient a / b where b > 0, elsewhere 1."""
    positive = b > 0.0
    return np.asarray(np.where(positive, a / np.where(positive, b, 1.0), 1.0))
