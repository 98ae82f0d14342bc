"""Risks of steps with any weights of tasks and their slopes, for many at once: a quadratic form of the setting."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.depth.bound import paths
from gladient.landscape.depth.radial import Radial
from gladient.landscape.depth.stack import Heads

__all__ = ["Objective"]

_TOGETHER = 128  # points at once: more leave the cache and take twice as long each, fewer wait for Python


@dataclass(frozen=True, eq=False)
class Objective:
    r"""(L - σ²) / d of L steps as a function of $E_l[k, m]$, rate times weight of task k at the tokens of task m.

    Whatever the weights, the prediction is $\sum_{p, j} F_{pj}\, \xi^j x^\top s_p$ with the states of paths of tasks
    (`depth_bound`) and j passes through the query's own token. So the risk is $M - 2 g^\top F + F^\top Q F$, and g and
    Q belong to the setting: $g_{pj} = m_p\, E \xi^{j+1}$, $Q_{pj,qi} = A_{pq}\, E \xi^{i+j+1}$. F is a polynomial in E,
    layer by layer: $w_l[p]$, what the values of layer l take of path p, is

    $$ w_l[p] = -\sum_{l' < l} E_{l'}[p_{q-1}, p_q]\, w_{l'}[p_1 \dots p_{q-1}], $$

    1 for paths of one task, and at the query $F \leftarrow F - E_l[K, K]\, \xi F + E_l[p_q, K]\, w_l[p]$. Slopes go
    back the same way, at the cost of two more risks for all of them.

    Attributes:
        layers: L.
        tasks: K; 1 where all tasks are weighed alike, whatever their number.
        paths: all of 1 … L tasks, shorter ones first.
        A: second moments of their states, in units in which rates are of order 1.
        m: with the query's task.
        xi: moments of ξ, j = 1 … 2 L + 1, in the same units.
        d: number of features.

    Source: derived.
    """

    layers: int
    tasks: int
    paths: tuple[tuple[int, ...], ...]
    A: Float[Array, "P P"]
    m: Float[Array, " P"]
    xi: Float[Array, " J"]
    d: int

    @classmethod
    def of(cls, model: Radial, layers: int, *, gated: bool) -> "Objective":
        """The objective of a setting; E in units of `model.rate`."""
        tasks = len(model.n) if gated else 1
        A, m = model.moments(paths(model, layers, 1.0) if gated else _powers(model, layers))
        found = [p for q in range(1, layers + 1) for p in combinations_with_replacement(range(tasks), q)]
        size = float(model.n.sum() + model.d)  # what `paths` divides by in each layer but the first
        unit = np.array([(model.rate * size) ** len(p) / size for p in found])
        j = np.arange(2 * layers + 1)
        xi = np.cumprod((model.d + 2.0 * j) * np.where(j, model.rate, 1.0))
        return cls(layers, tasks, tuple(found), unit[:, None] * A * unit, unit * m[-1], xi, model.d)

    def shorter(self, layers: int) -> "Objective":
        """That of fewer layers."""
        kept = [p for p in self.paths if len(p) <= layers]
        P = len(kept)
        return replace(self, layers=layers, paths=tuple(kept), A=self.A[:P, :P], m=self.m[:P])

    def __call__(self, E: Float[Array, "N L K1 K1"], endless: int | None = None) -> tuple[Float[Array, " N"], Array]:
        """Shares, and their slopes by E.

        Args:
            E: weights times rates; [l, k, k] counts within task k, [l, K, K] is the query's own.
            endless: a layer that hides all below it: the ones above read it alone, and the query passes on nothing of
                them but by its own token there (`Endless`).
        """
        parts = [self._part(E[first : first + _TOGETHER], endless) for first in range(0, len(E), _TOGETHER)]
        shares, slopes = zip(*parts, strict=True)
        return np.concatenate(shares), np.concatenate(slopes)

    def _part(self, E: Array, endless: int | None) -> tuple[Array, Array]:
        L, K, walk = self.layers, self.tasks, self._walk
        w = np.ones((len(E), L, len(self.paths)))
        j = L - 1 if endless is None else endless  # of these the layers above see no labels, and nothing below
        w[:, j + 1 :] = 0.0
        for new, old, prev, last, _, _ in walk:
            passed = E[:, :-1, prev, last] * w[:, :-1, old]
            w[:, 0, new], w[:, 1:, new] = 0.0, -np.cumsum(passed, axis=1)
            w[:, j + 1 :, new] += passed[:, :j].sum(axis=1, keepdims=True)
        end = np.array([p[-1] for p in self.paths])
        read, own = E[:, :, end, K] * w, E[:, :, K, K]
        z = np.zeros((L + 1, len(E), L, len(self.paths)))  # a pass through the own token for each layer but the first
        for layer in range(L):
            z[layer + 1] = (layer != endless) * z[layer]
            z[layer + 1, :, 1:] -= own[:, layer, None, None] * z[layer, :, :-1]
            z[layer + 1, :, 0] += read[:, layer]
        F, hankel = z[L], self.xi[np.arange(L)[:, None] + np.arange(L)]
        g, QF = self.xi[:L, None] * self.m, np.einsum("ij,njp->nip", hankel, F @ self.A)
        share = 1.0 - np.einsum("njp,njp->n", F, 2.0 * g - QF) / self.d
        return share, self._back(E, endless, w, z, 2.0 * (QF - g) / self.d)

    def _back(self, E: Array, endless: int | None, w: Array, z: Array, dz: Array) -> Array:
        """The slopes by E from those by F."""
        L, K, dE, dw = self.layers, self.tasks, np.zeros(E.shape), np.zeros(w.shape)
        end, j = np.array([p[-1] for p in self.paths]), L - 1 if endless is None else endless
        at_end = np.eye(K)[end]
        for layer in reversed(range(L)):
            dE[:, layer, K, K] = -np.einsum("njp,njp->n", dz[:, 1:], z[layer, :, :-1])
            dE[:, layer, :K, K] = (dz[:, 0] * w[:, layer]) @ at_end
            dw[:, layer] = dz[:, 0] * E[:, layer, end, K]
            below = (layer != endless) * dz
            below[:, :-1] -= E[:, layer, K, K, None, None] * dz[:, 1:]
            dz = below
        for new, old, prev, last, to_old, to_pair in reversed(self._walk):
            taken = -np.cumsum(dw[:, :0:-1, new], axis=1)[:, ::-1]
            taken[:, :j] += dw[:, j + 1 :, new].sum(axis=1, keepdims=True)
            pairs = (taken * w[:, :-1, old]) @ to_pair
            dE[:, :-1] += pairs.reshape(*pairs.shape[:2], K + 1, K + 1)
            dw[:, :-1] += (taken * E[:, :-1, prev, last]) @ to_old
        return dE

    @cached_property
    def _walk(self) -> list[tuple[slice, Array, Array, Array, Array, Array]]:
        """Paths of 2, 3 … tasks: where they stand, the path before, the last two tasks, and both as matrices."""
        place = {p: i for i, p in enumerate(self.paths)}
        found = []
        for q in range(2, self.layers + 1):
            these = [p for p in self.paths if len(p) == q]
            old = np.array([place[p[:-1]] for p in these])
            prev, last = np.array([p[-2:] for p in these]).T
            first, pair = place[these[0]], prev * (self.tasks + 1) + last
            matrices = np.eye(len(self.paths))[old], np.eye((self.tasks + 1) ** 2)[pair]
            found.append((slice(first, first + len(these)), old, prev, last, *matrices))
        return found


def _powers(model: Radial, layers: int) -> Heads:
    """V y, V V y … of causal attention, all tasks alike, in the units of `paths`."""
    K, one = len(model.n), np.ones(layers)
    skips = np.eye(layers, k=-1) / (model.n.sum() + model.d)
    label = np.append(1.0, np.zeros(layers - 1))
    return Heads(one, skips, label, np.ones((layers, K + 1)), np.ones((layers, K)), one, 0.0 * one, one)
