"""The best delimiter gates of the delta rule for given steps: the same cone problem as for gated linear attention."""

import numpy as np

from gladient._linalg import ratio, solve_spd
from gladient._types import Array, Float
from gladient.landscape.delta.isotropic import Isotropic
from gladient.landscape.gates.cone import solve_monotone

__all__ = ["best_decays", "ratios"]

# What is added to the diagonal of E where a variance is 0, so that E can be solved: _OWN relative to the task's own
# squared weight, _FORGOTTEN for a task of which nothing is left. Both lie below all that rounding can tell.
_OWN, _FORGOTTEN = 1e-30, 1e-200
_ENTRIES = 2_000_000  # numbers held at once in an intermediate array: 16 MB
_TOLERANCE = 1e-12  # as in `gates.cone`
_ROUNDING = 16 * float(np.finfo(np.float64).eps)  # of each task's share of E, with room for the few products in it


def best_decays(model: Isotropic, steps: Float[Array, "G K"]) -> tuple[Float[Array, " G"], Float[Array, "G K"]]:
    r"""Best delimiter decays in [0, 1] for each row of steps, and the risks with them.

    With $b = \sum_k \Delta_k b^{(k)}$, $\Delta_k = \prod_{l \ge k} \delta_l$, the risk falls in
    $(h^\top \Delta)^2 / \Delta^\top E \Delta$, to be maximised over $0 \le \Delta_1 \le \dots \le \Delta_K$ for a
    read-out of either sign. Where the best Δ without the order has it, it is the answer; the other rows are solved one
    after the other, together with all rows whose gates rise at the same tasks.

    Source: derived.
    """
    decays = np.ones(steps.shape)
    rows = max(1, _ENTRIES // model.n.size**2)
    for start in range(0, len(steps), rows):
        part = np.arange(start, min(start + rows, len(steps)))
        E, h = _kernels(model.take(part), steps[part])
        free = solve_spd(E, h)
        # the read-out has either sign: the last gate, the largest of those in order, is made ≥ 0
        rises = np.diff(free * np.where(free[:, -1:] < 0.0, -1.0, 1.0), axis=1, prepend=0.0)
        inside = (rises >= 0.0).all(axis=1)
        decays[part[inside]] = ratios(np.abs(free[inside]))
        open_ = np.flatnonzero(~inside)
        while len(open_):  # each round solves the first row at least
            done, gates = _solve_like_first(E[open_], h[open_])
            twice, tried = part[np.repeat(open_[done], 2)], ratios(gates.reshape(-1, gates.shape[-1]))
            best = model.take(twice).risks(steps[twice], tried).reshape(-1, 2).argmin(axis=1)
            decays[part[open_[done]]] = tried.reshape(-1, 2, tried.shape[-1])[np.arange(len(best)), best]
            open_ = open_[~done]
    risks, kept = model.risks(steps, decays), model.risks(steps, np.ones_like(steps))
    worse = kept < risks  # by rounding, where no gate helps
    return np.where(worse, kept, risks), np.where(worse[:, None], 1.0, decays)


def ratios(gates: Float[Array, "G K"]) -> Float[Array, "G K"]:
    r"""$\delta_k = \Delta_k / \Delta_{k+1}$, the last one 1; 1 where nothing is left to decay."""
    later = np.append(gates[:, 1:], np.ones((len(gates), 1)), axis=1)
    out = ratio(gates, later)
    out[:, -1] = 1.0
    return np.asarray(np.clip(out, 0.0, 1.0))


def _solve_like_first(E: Float[Array, "G K K"], h: Float[Array, "G K"]) -> tuple[np.ndarray, Float[Array, "D 2 K"]]:
    """Gates in order for the first row, and for all rows where the same gates rise; for either sign of the read-out."""
    own, found, fits = np.diag(E[0]).copy(), [], np.ones(len(h), dtype=bool)
    for sign in (1.0, -1.0):
        first, rises = solve_monotone(own, E[0] - np.diag(own), sign * h[0], np.ones(h.shape[1], dtype=bool))
        gates, right = _pooled(E, sign * h, np.flatnonzero(rises))
        gates[0], right[0] = first, True  # the solver's own answer, whatever rounding says of the pooled one
        found.append(np.maximum.accumulate(np.clip(gates, 0.0, None), axis=1))
        fits &= right
    return fits, np.stack(found, axis=1)[fits]


def _pooled(E: Float[Array, "G K K"], h: Float[Array, "G K"], starts: np.ndarray) -> tuple[Array, np.ndarray]:
    """Best gates that rise at `starts` alone, [G, K], and whether no other gates in order are better, [G]."""
    gates = np.zeros(h.shape)
    if len(starts):
        H = np.add.reduceat(np.add.reduceat(E, starts, axis=1), starts, axis=2)
        values = solve_spd(H, np.add.reduceat(h, starts, axis=1))
        gates[:, starts[0] :] = np.repeat(values, np.diff(np.append(starts, h.shape[1])), axis=1)
    moved = E * gates[:, None, :]
    slope = np.cumsum((h - moved.sum(axis=2))[:, ::-1], axis=1)[:, ::-1]
    size = np.cumsum((np.abs(h) + np.abs(moved).sum(axis=2))[:, ::-1], axis=1)[:, ::-1]
    closed = np.ones(h.shape[1], dtype=bool)
    closed[starts] = False
    rises = np.diff(gates, axis=1, prepend=0.0)
    largest = np.abs(gates).max(axis=1, keepdims=True)
    wrong = np.where(closed, slope > _TOLERANCE * size, rises < -_TOLERANCE * largest)
    return gates, np.asarray(~wrong.any(axis=1))


def _kernels(model: Isotropic, steps: Float[Array, "G K"]) -> tuple[Float[Array, "G K K"], Float[Array, "G K"]]:
    r"""E and h: for gates Δ the query's part of the state is h'Δ and all the rest Δ'E Δ, up to a common unit.

    Block k adds the variance $g_k |u_k|_R^2$,
    $u_k = \beta_k \sum_{l<k} \Delta_l w_l^{(k)} 1_l - \Delta_k t_k s\,1_k$ with
    $w_l^{(k)}$ the weight of task l when block k begins; $T_j$ sums $g_k \beta_k^2$ over the blocks after j, each times
    what the blocks between leave of the squared weight. So each entry of E is one product.

    E is singular where tasks are ± the query's and no noise tells their errors apart. The correlations come from the
    factor that `Isotropic.risks` has, so that rounding is small beside the diagonal, and the diagonal is raised by more
    than that: all that is solved here is positive definite, and the gates found are the best to rounding.
    """
    p = model.powers(steps)
    G, K = steps.shape
    after = np.ones((G, K))
    after[:, :-1] = np.cumprod(p.keep_square[:, :0:-1], axis=1)[:, ::-1]
    g, own, signal = after * p.mixing, p.weight, model.moments.signal * p.write
    T = np.zeros((G, K))
    # T and w follow from their neighbours, so all pairs of tasks cost K²; summing each entry over the blocks would cost
    # K³
    for j in range(K - 2, -1, -1):
        T[:, j] = g[:, j + 1] * p.beta[:, j + 1] ** 2 + p.keep[:, j + 1] ** 2 * T[:, j + 1]
    cross = own * p.keep * T - g * p.beta * signal
    diagonal = g * signal**2 + own**2 * T + after * p.noise
    E, w = np.zeros((G, K, K)), np.zeros((G, K))
    R, unexplained = (f @ np.swapaxes(f, -1, -2) for f in (model.factor, model.factor[..., 1:]))
    for j in range(K):
        E[:, j, j] = diagonal[:, j]
        E[:, :j, j] = E[:, j, :j] = w[:, :j] * cross[:, j, None] * R[..., :j, j]
        w[:, :j] *= p.keep[:, j, None]
        w[:, j] = own[:, j]
    unit = np.abs(w).max(axis=1, keepdims=True)
    unit[unit == 0.0] = 1.0  # nothing is left of any task
    E, w = E / unit[:, :, None] ** 2, w / unit
    E += w[:, :, None] * w[:, None, :] * unexplained
    view = np.einsum("gkk->gk", E)  # of the diagonal: raising it raises E's
    view += K * _ROUNDING * view + _OWN * w**2 + _FORGOTTEN
    return E, w * model.r
