"""The best of all stacks without erasing, by one linear solve, and what no depth goes below."""

from itertools import combinations_with_replacement
from math import comb

import numpy as np

from gladient._types import Array
from gladient.landscape.depth.radial import Radial, require_memory, solve_form
from gladient.landscape.depth.result import BestStack, Bound, StackCertificate, in_units, require_layers
from gladient.landscape.depth.stack import Heads
from gladient.landscape.gates.reduced import Reduced
from gladient.prompts import MultitaskSetting

__all__ = ["depth_bound", "depth_floor", "marked_layers", "paths", "solved"]

_MOST_TASKS = 14  # 2^K sets of tasks are looked at one by one


def depth_bound(setting: MultitaskSetting | Reduced, layers: int, *, own: float = 1.0) -> BestStack:
    r"""The best of all stacks of L layers that weigh blocks as they like and skip as they like: unique, one solve.

    States $s_p$ for paths $p = (k_1 \le \dots \le k_q)$, q ≤ L, of tasks span all of them: $s_{(k)}$ sums x y over task
    k, and $s_p$ sums x times what the path without its last step gives, over the last one's task. The best read-out of
    all paths has $L^* = M - g^\top Q^{-1} g$.

    No stack of L layers with keys and queries x, weights constant within tasks, gates open on data tokens and no
    erasing has a lower risk, its own reads being weighed by u; nor do steps whose query writes too. For two layers
    value gates reach it.

    Args:
        setting: the data, Σ ∝ I.
        layers: L.
        own: u, as in `Stack`.

    Raises:
        ValueError: if layers is below 1, Σ is not a multiple of I, or the paths would not fit in memory.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=10)
    >>> [round(depth_bound(setting, layers).risk / 10, 4) for layers in (1, 2, 3, 4)]
    [0.6762, 0.6011, 0.576, 0.5662]
    """
    require_layers(layers)
    return solved(Radial.of(setting), layers, own, "free")


def marked_layers(setting: MultitaskSetting | Reduced) -> BestStack:
    r"""Two layers of linear attention, without any gate, whose first layer marks the labels at the delimiters.

    Delimiters have features of their own. With them alone as keys and a token's label as query, the first layer adds
    $(\omega_{k+1} - \omega_k)\, y$ at delimiter k to a spare channel of all later tokens; the second reads ω₁ y and
    that channel, and so weighs each task as it likes: it reaches every WPGD, `landscape.optimum` too. Its own second
    step, without weights, takes the risk below. The read-out of all these is one linear solve; the query is not masked.

    Args:
        setting: the data, Σ ∝ I.

    Raises:
        ValueError: if Σ is not a multiple of I.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=5)
    >>> print(f"{marked_layers(setting).risk / 5:.4f}")  # one layer: 0.6875 without gates, 0.5750 with value gates
    0.5468
    """
    model = Radial.of(setting)
    K = len(model.n)
    H, skips, write = K + 2, np.zeros((K + 2, K + 2)), np.ones((K + 2, K + 1))
    write[:K] = np.column_stack((np.eye(K), np.zeros(K)))  # a head for each task that the marks tell apart
    skips[K + 1, K] = model.rate
    label = np.append(np.ones(K + 1), 0.0)
    heads = Heads(np.zeros(H), skips, label, write, np.ones((H, K)), np.ones(H), np.zeros(H), np.ones(H))
    return _read_out(model, heads, "none")


def solved(model: Radial, layers: int, own: float, gates: str) -> BestStack:
    """The bound of a model, and the stack of paths that has it."""
    K = len(model.n)
    H = comb(layers + K, K) - 1
    require_memory(8.0 * (layers + 1) * float(H) ** 2, H, K)
    return _read_out(model, paths(model, layers, own), gates)


def _read_out(model: Radial, heads: Heads, gates: str) -> BestStack:
    """The heads with their best read-out."""
    g, Q = model.form(heads)
    f = solve_form(g, Q)
    risk = float(model.risk(1.0 - g @ f / model.d))
    certificate = StackCertificate("solved", risk, 0, 0, 0, attained=True)
    return BestStack(risk, in_units(heads._replace(readout=f), model.scale), gates, certificate)


def paths(model: Radial, layers: int, own: float) -> Heads:
    """One head for each path, which writes in the path's last task alone; the query is masked."""
    K = len(model.n)
    paths = [p for q in range(1, layers + 1) for p in combinations_with_replacement(range(K), q)]
    place = {p: i for i, p in enumerate(paths)}
    H = len(paths)
    skips, write = np.zeros((H, H)), np.zeros((H, K + 1))
    for p, i in place.items():
        write[i, p[-1]] = 1.0
        if len(p) > 1:
            skips[i, place[p[:-1]]] = 1.0 / (model.n.sum() + model.d)  # keeps the states of all layers of one size
    label = np.array([float(len(p) == 1) for p in paths])
    return Heads(np.zeros(H), skips, label, write, np.ones((H, K)), np.full(H, own), np.zeros(H), np.ones(H))


def depth_floor(setting: MultitaskSetting | Reduced) -> Bound:
    r"""What no depth goes below, with any gates, delta steps, skips or step sizes that depend on |x|.

    Such stacks have the same risk as on one-dimensional prompts $x_j = \sqrt{\xi_j}\,B_j$, B_j = 1 with probability
    1/d, whose Bayes risk is the floor. Without noise the tasks with an active example are known there:

    $$L/d \ge \sum_T P(T \text{ active})\,(1 - r_T^\top R_{TT}^{-1} r_T), \quad
      P(k \text{ active}) = 1 - (1 - 1/d)^{n_k}.$$

    With noise task k is known with the mean energy $n_k / P(k \text{ active})$ of an active task, which is lower than
    the Bayes risk (Jensen) and tends to it in long prompts. To go below takes x xᵀ in the state: layers that write into
    the channels of the features.

    Args:
        setting: the data, Σ ∝ I.

    Raises:
        ValueError: if Σ is not a multiple of I, or there are more than 14 correlated tasks.

    Source: derived.

    >>> print(f"{depth_floor(MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=10)).risk:.6f}")
    5.571013
    """
    model = Radial.of(setting)
    active = -np.expm1(model.n * np.log1p(-1.0 / model.d)) if model.d > 1 else np.ones_like(model.n)
    noise = model.sigma2 * active / model.n
    R, r = model.R[:, :-1], model.R[:, -1]
    if not (R - np.diag(np.diag(R))).any():
        known = float(np.sum(active * r**2 / (1.0 + noise)))
    elif len(r) <= _MOST_TASKS:
        known = _over_sets(R, r, active, noise)
    else:
        raise ValueError(
            f"{len(r)} correlated tasks have 2^{len(r)} sets that may be active; the floor takes {_MOST_TASKS} tasks "
            "at most: use depth_bound"
        )
    return Bound(float(model.risk(max(1.0 - known, 0.0))), "no depth of label-linear layers goes below")


def _over_sets(R: Array, r: Array, active: Array, noise: Array) -> float:
    """Σ P(T) r_T' (R_TT + noise)⁻¹ r_T; a pseudo-inverse, since tasks may be equal."""
    sets = (np.arange(2 ** len(r))[:, None] >> np.arange(len(r))) & 1
    chance = np.prod(np.where(sets, active, 1.0 - active), axis=1)
    inside = np.where(sets[:, :, None] & sets[:, None, :], R + np.diag(noise), 0.0)
    known = np.einsum("tk,tkl,tl->t", sets * r, np.linalg.pinv(inside, hermitian=True), sets * r)
    return float(chance @ known)
