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
from gladient.data.prompt import Examples, Prompt

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


def moments(prompts: Sequence[Prompt], block: np.ndarray) -> FeatureMoments:
    """Moments of the prompts and, for the jackknife, of those outside each block.

    Args:
        prompts: the data.
        block: the block of each prompt, whole numbers from 0, [G].

    Raises:
        ValueError: if the features of a role leave a direction without examples.
    """
    roles = [_Role(tasks, block) for tasks in zip(*(prompt.tasks for prompt in prompts), strict=True)]
    K, d = len(roles), prompts[0].d
    C = np.empty((block.max() + 2, K, K, d, d))
    for k in range(K):
        C[:, k, k] = _solve(*roles[k].own(), symmetric=True)
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
    """The examples of one role in all prompts, summed over each."""

    def __init__(self, tasks: Sequence[Examples], block: np.ndarray) -> None:
        self.tasks, self.block = tasks, block
        self.n = np.array([len(y) for _, y in tasks], dtype=np.float64)
        self.X, self.y = np.concatenate([X for X, _ in tasks]), np.concatenate([y for _, y in tasks])
        self.prompt = np.repeat(np.arange(len(tasks)), self.n.astype(int))
        self.outer = self.X[:, :, None] * self.X[:, None, :]  # x xᵀ of each example
        self.S = _totals(self.outer, self.prompt, len(tasks))  # n S_k of each prompt
        self.z = _totals(self.X * self.y[:, None], self.prompt, len(tasks))
        self.rows = self._by_block(self.n)
        self.xx = self._by_block(self.S)
        self.yy = self._by_block(_totals(self.y**2, self.prompt, len(tasks)))
        self.yyxx = self._by_block(_totals(self.y[:, None, None] ** 2 * self.outer, self.prompt, len(tasks)))

    def _by_block(self, values: Array) -> Array:
        return _totals(values, self.block, int(self.block.max()) + 1)

    def beside(self, other: "_Role") -> tuple[Array, Array]:
        """Both sides of the equation for E[β_k β_lᵀ], summed in each block."""
        S, T = self.S / self.n[:, None, None], other.S / other.n[:, None, None]
        left = self._products(S, T, self.block)
        right = (self.z / self.n[:, None])[:, :, None] * (other.z / other.n[:, None])[:, None, :]
        return left, self._by_block(right)

    def own(self) -> tuple[Array, Array]:
        """Both sides of the equation for E[β_k β_kᵀ], summed in each block; prompts of one example say nothing."""
        # the root on both factors of ⊗: what is subtracted below then has the size of what it is subtracted from
        weight = 1.0 / np.where(self.n > 1, self.n * (self.n - 1), np.inf)
        root = np.sqrt(weight)[:, None, None]
        each = self.outer * root[self.prompt]
        left = self._products(self.S * root, self.S * root, self.block)
        left -= self._products(each, each, self.block[self.prompt])
        itself = _totals(self.y[:, None, None] ** 2 * self.outer, self.prompt, len(self.n))
        right = self.z[:, :, None] * self.z[:, None, :] - itself
        return left, self._by_block(right * weight[:, None, None])

    def _products(self, S: Array, T: Array, block: np.ndarray) -> Array:
        """Sums of S ⊗ T over each block, [B, d², d²]."""
        # One product of matrices per block gives Σ S_ij T_kl; S ⊗ T of every prompt would take d⁴ numbers each.
        d = S.shape[1]
        order = np.argsort(block, kind="stable")
        ends = np.searchsorted(block[order], np.arange(int(self.block.max()) + 2))
        found = np.empty((len(ends) - 1, d * d, d * d))
        for b, (start, end) in enumerate(pairwise(ends.tolist())):
            rows = order[start:end]
            products = S[rows].reshape(-1, d * d).T @ T[rows].reshape(-1, d * d)
            found[b] = products.reshape(d, d, d, d).transpose(0, 2, 1, 3).reshape(d * d, d * d)
        return found


def _totals(values: Array, group: np.ndarray, groups: int) -> Array:
    found = np.zeros((groups, *values.shape[1:]))
    np.add.at(found, group, values)
    return found


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
        raise ValueError(
            f"the examples of a role do not reach all {d} features (with one block of clusters left out); give more "
            "prompts or fewer features"
        ) from None
