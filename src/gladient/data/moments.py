r"""Second moments of tasks from prompts: Haseman–Elston regression, unbiased whatever the distributions.

With $S_k = X_k^\top X_k / n_k$, $z_k = X_k^\top y_k / n_k$, $C_{kl} = E[\beta_k \beta_l^\top]$ and row-major vec:

$$\sum_g (S_k \otimes S_l) \operatorname{vec} C_{kl} = \sum_g \operatorname{vec}(z_k z_l^\top), \quad k \ne l;$$

within a task the pairs of an example with itself, which carry the noise, are left out:
$\sum_g [n^2 S \otimes S - \sum_i (x_i x_i^\top) \otimes (x_i x_i^\top)] / (n(n-1)) \operatorname{vec} C
= \sum_g \operatorname{vec}[(n^2 z z^\top - \sum_i y_i^2 x_i x_i^\top) / (n(n-1))]$.

Source: Haseman and Elston (1972), MINQUE(0); for pairs of tasks, derived.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gladient._types import Array, Float
from gladient.data.prompt import Prompts, RoleExamples
from gladient.data.refusal import RefusedError

__all__ = ["FeatureMoments", "moments"]


@dataclass(frozen=True, eq=False)
class FeatureMoments:
    """Moments of all prompts, then of all but one block each: the leading axis has 1 + B entries.

    Attributes:
        xx: mean of x xᵀ over all examples.
        yy: mean of y².
        yyxx: mean of y² x xᵀ over the sources' examples.
        C: E[β_k β_lᵀ] of every two roles, the query's last; NaN where no prompt has two examples of a role.
    """

    xx: Float[Array, "B1 d d"]
    yy: Float[Array, " B1"]
    yyxx: Float[Array, "B1 d d"]
    C: Float[Array, "B1 K1 K1 d d"]


def moments(prompts: Prompts, block: np.ndarray) -> FeatureMoments:
    """Moments of the prompts and, for the jackknife, of those outside each block.

    Args:
        prompts: the data.
        block: the block of each prompt, whole numbers from 0, [G].

    Raises:
        RefusedError: if the features of a role leave a direction without examples.
    """
    # Blocks of prompts one after another: what is summed over a block is then one product of matrices of its rows, and
    # x xᵀ of an example exists for one block at a time.
    order = np.argsort(block, kind="stable")
    ends = np.searchsorted(block[order], np.arange(int(block.max()) + 2)).tolist()
    moved = prompts if (np.diff(block) >= 0).all() else prompts.take(order)
    roles = [_Role(role, ends) for role in moved.roles]
    K, d = len(roles), prompts.d
    C = np.empty((len(ends), K, K, d, d))
    for k in range(K):
        C[:, k, k] = _solve(*roles[k].own, symmetric=True)
        for j in range(k):
            C[:, k, j] = _solve(*roles[k].beside(roles[j]))
            C[:, j, k] = C[:, k, j].swapaxes(1, 2)
    *sources, _ = roles
    return FeatureMoments(
        xx=_mean([role.xx for role in roles], roles),
        yy=_mean([role.yy for role in roles], roles),
        yyxx=_mean([role.yyxx for role in sources], sources),
        C=C,
    )


class _Role:
    """The examples of one role, summed over each prompt and each block of prompts."""

    def __init__(self, role: RoleExamples, ends: Sequence[int]) -> None:
        self.blocks = [slice(*pair) for pair in pairwise(ends)]
        blocks, d = len(self.blocks), role.X.shape[1]
        self.S = np.empty((len(role.n), d, d))  # S_k of each prompt
        self.z = role.means(role.X * role.y[:, None])
        self.rows, self.yy = np.empty(blocks), np.empty(blocks)
        self.xx, self.yyxx = np.empty((blocks, d, d)), np.empty((blocks, d, d))
        left, right = np.zeros((blocks, d * d, d * d)), np.zeros((blocks, d, d))
        for b, prompts in enumerate(self.blocks):
            part = role.take(np.arange(prompts.start, prompts.stop))
            outer = part.X[:, :, None] * part.X[:, None, :]  # x xᵀ of each example
            S = part.totals(outer)
            self.S[prompts] = S / part.n[:, None, None]
            self.rows[b], self.yy[b] = len(part.y), part.y @ part.y
            self.xx[b], self.yyxx[b] = part.X.T @ part.X, (part.X * part.y[:, None] ** 2).T @ part.X
            # Within a task: pairs of two different examples. Prompts of one example say nothing. The root on both
            # factors of ⊗: what is subtracted then has the size of what it is subtracted from.
            weight = 1.0 / np.where(part.n > 1, part.n * (part.n - 1.0), np.inf)
            root = np.sqrt(weight)
            each = outer * root[part.prompt, None, None]
            left[b] = _products(S * root[:, None, None], S * root[:, None, None]) - _products(each, each)
            z = part.totals(part.X * part.y[:, None]) * root[:, None]
            own = part.X * (part.y * root[part.prompt])[:, None]
            right[b] = z.T @ z - own.T @ own
        self.own = left, right
        """Both sides of the equation for E[β_k β_kᵀ], summed in each block."""

    def beside(self, other: "_Role") -> tuple[Array, Array]:
        """Both sides of the equation for E[β_k β_lᵀ], summed in each block."""
        left = np.stack([_products(self.S[block], other.S[block]) for block in self.blocks])
        return left, np.stack([self.z[block].T @ other.z[block] for block in self.blocks])


def _products(S: Array, T: Array) -> Array:
    """The sum of S ⊗ T, [d², d²]."""
    # One product of matrices gives Σ S_ij T_kl; S ⊗ T of every prompt would take d⁴ numbers each.
    d = S.shape[1]
    products = S.reshape(-1, d * d).T @ T.reshape(-1, d * d)
    return products.reshape(d, d, d, d).transpose(0, 2, 1, 3).reshape(d * d, d * d)


def _mean(sums: Sequence[Array], roles: Sequence[_Role]) -> Array:
    """Sums in each block over the number of examples, with no block and each block left out."""
    rows = _left_out(np.sum([role.rows for role in roles], axis=0))
    total = _left_out(np.sum(sums, axis=0))
    return np.asarray(total / rows.reshape(-1, *[1] * (total.ndim - 1)))


def _left_out(sums: Array) -> Array:
    """The total over the blocks, then the total without each."""
    total = sums.sum(0)
    return np.concatenate([total[None], total - sums])


def _solve(left: Array, right: Array, *, symmetric: bool = False) -> Array:
    """C from both sides' sums over each block; a symmetric one from that part of the equations alone."""
    d = right.shape[-1]
    A, b = _left_out(left), _left_out(right).reshape(-1, d * d, 1)
    if not A[0].any():  # one example per prompt
        return np.full((len(A), d, d), np.nan)
    # Features that do not vary within a task say nothing of C - Cᵀ. It is 0, and these equations, of the size of the
    # others, say so.
    if symmetric:
        swap = np.eye(d * d).reshape(d, d, d, d).swapaxes(0, 1).reshape(d * d, d * d)
        A = A + np.trace(A[0]) / d**2 * (np.eye(d * d) - swap) / 2
    try:
        if np.linalg.cond(A[0]) > 1e12:  # no solve fails there, but four digits are all that is left
            raise np.linalg.LinAlgError
        return np.asarray(np.linalg.solve(A, b).reshape(-1, d, d))
    except np.linalg.LinAlgError:
        raise RefusedError(
            f"the examples of a role do not reach all {d} features (with one block of clusters left out); give more "
            "prompts or more examples of a role (longer windows), or leave out features that are one number for all "
            "examples of a prompt"
        ) from None
