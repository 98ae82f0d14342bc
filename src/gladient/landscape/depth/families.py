"""The stacks that each gate family can make, as points of a box: where a search moves."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.depth.stack import Heads, chain

__all__ = ["Endless", "Family", "Steps", "Weighted"]


@dataclass(frozen=True)
class Family:
    """L layers on K tasks; rates in units of `rate`."""

    L: int
    K: int
    rate: float

    @property
    def size(self) -> int:
        """Number of coordinates of a point."""
        raise NotImplementedError

    @property
    def box(self) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
        """Least and largest value of each coordinate."""
        return np.full(self.size, -np.inf), np.full(self.size, np.inf)

    @property
    def endless(self) -> int | None:
        """The layer whose rate grows without end, if one does."""
        return None

    def heads(self, points: Float[Array, "*N P"]) -> Heads:
        """The stacks of points."""
        raise NotImplementedError

    def weights(self, points: Float[Array, "N P"]) -> Float[Array, "N L K1 K1"]:
        """E of `Objective`."""
        raise NotImplementedError

    def slopes(self, points: Float[Array, "N P"], dE: Float[Array, "N L K1 K1"]) -> Float[Array, "N P"]:
        """Slopes by a point's coordinates from those by E."""
        raise NotImplementedError


@dataclass(frozen=True)
class Steps(Family):
    """Steps with a gate for each delimiter and layer, or with none: c, [L], then g, [L, K]."""

    gated: bool = True

    @property
    def size(self) -> int:
        """Rates, and gates if there are any."""
        return self.L * (1 + self.K * self.gated)

    @property
    def box(self) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
        """Rates of any size and sign; gates from 0 to 1."""
        gate = np.arange(self.size) >= self.L
        return np.where(gate, 0.0, -np.inf), np.where(gate, 1.0, np.inf)

    def point(self, rates: Array, gates: Array) -> Float[Array, " P"]:
        """The point of these steps."""
        return np.concatenate([rates / self.rate, gates.ravel()[: self.size - self.L]])

    def split(self, points: Float[Array, "*N P"]) -> tuple[Array, Array]:
        """Rates, [..., L], and gates, [..., L, K]."""
        c = points[..., : self.L] * self.rate
        if not self.gated:
            return c, np.ones((self.L, self.K))
        return c, points[..., self.L :].reshape(*points.shape[:-1], self.L, self.K)

    def heads(self, points: Float[Array, "*N P"]) -> Heads:
        """As `Stack.steps`."""
        c, g = self.split(points)
        return _plain(c, chain(c), np.ones((self.L, self.K + 1)), g)

    def weights(self, points: Float[Array, "N P"]) -> Float[Array, "N L K1 K1"]:
        """Rates times products of gates; rates alone where all tasks are one."""
        c, g = points[:, : self.L, None, None], points[:, self.L :].reshape(len(points), self.L, -1)
        return np.asarray(c * (_products(g) if self.gated else np.triu(np.ones((2, 2)))))

    def slopes(self, points: Float[Array, "N P"], dE: Float[Array, "N L K1 K1"]) -> Float[Array, "N P"]:
        """By rates, then by gates."""
        if not self.gated:
            return np.asarray(dE.sum(axis=(2, 3)))
        c, g = points[:, : self.L, None, None], points[:, self.L :].reshape(len(points), self.L, -1)
        G = _products(g)
        return np.concatenate([(dE * G).sum(axis=(2, 3)), _by_gate(g, G, c * dE).reshape(len(points), -1)], axis=1)


@dataclass(frozen=True)
class Endless(Family):
    r"""The limit of scalar-gated steps as the rate of layer j grows without end, $c_j \to \sigma\infty$.

    The last gates are $g_{lK} = \gamma_l / |c_j|$, so that the query sees what is finite, with γ ≥ 0 of any size. Three
    things are left of the steps:

    * the query's own token turns what the layers below give it into $-\sigma\,|x|^2 \sum_{l<j} c_l o_l$, and passes on
      nothing else of them: a head that writes at the query alone;
    * the layers above see layer j in place of the labels, which are nothing beside it;
    * the last of them has a rate that falls as that of layer j grows, and a query without an own token.

    Coordinates: $c_l$ of all layers but j, [L - 1]; the gates of all layers but for the last delimiter, [L, K - 1]; γ
    of the layers but for the last one, whose rate is as good, and of the last one if it is j.
    """

    j: int = 0
    sign: float = 1.0

    @property
    def endless(self) -> int:
        """Layer j."""
        return self.j

    @property
    def size(self) -> int:
        """Rates, gates within the prompt, and γ."""
        return self.L - 1 + self.L * (self.K - 1) + self._last

    @property
    def box(self) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
        """Rates of any size and sign; gates from 0 to 1; γ from 0."""
        low, high = np.full(self.size, 0.0), np.full(self.size, np.inf)
        low[: self.L - 1] = -np.inf
        high[self.L - 1 : self.size - self._last] = 1.0
        return low, high

    def point(self, rates: Array, gates: Array) -> Float[Array, " P"]:
        """The point near these steps, rates in units of `rate`: exactly so as the rate of layer j goes on to grow."""
        large, c = max(abs(rates[self.j]), 1e-6), rates.copy()
        if self.j < self.L - 1:
            c[-1] *= large
        return np.concatenate([np.delete(c, self.j), gates[:, :-1].ravel(), large * gates[: self._last, -1]])

    def heads(self, points: Float[Array, "*N P"]) -> Heads:
        """The layers below, layer j with the query masked, the query's own token, and the layers above."""
        L, K, j, batch = self.L, self.K, self.j, points.shape[:-1]
        c, g = self._split(points)
        f = np.insert(self.rate * c, j + 1, self.sign * self.rate, axis=-1)
        skips = chain(f)
        skips[..., j + 1, :] = skips[..., j, :]
        skips[..., j + 2 :, :j] = 0.0
        gates, write, label = np.insert(g, j + 1, 1.0, axis=-2), np.ones((L + 1, K + 1)), np.ones(L + 1)
        write[j, K], write[j + 1, :K], write[-1, K], label[j + 1 :] = 0.0, 0.0, float(j == L - 1), 0.0
        f[..., :j] = 0.0
        return _plain(f, skips, write, gates.reshape(*batch, L + 1, K))._replace(label=label)

    def weights(self, points: Float[Array, "N P"]) -> Float[Array, "N L K1 K1"]:
        """Steps with the last gates γ and a rate of ±1 in layer j."""
        c, g = self._split(points)
        E = c[..., None, None] * _products(g)
        E[:, -1, -1, -1] *= self.j == self.L - 1
        return np.asarray(E)

    def slopes(self, points: Float[Array, "N P"], dE: Float[Array, "N L K1 K1"]) -> Float[Array, "N P"]:
        """By rates, gates within the prompt, and γ."""
        c, g = self._split(points)
        G, dE = _products(g), dE.copy()
        dE[:, -1, -1, -1] *= self.j == self.L - 1
        by_rate, by_gate = (dE * G).sum(axis=(2, 3)), _by_gate(g, G, c[..., None, None] * dE)
        inner = by_gate[..., :-1].reshape(len(points), -1)
        return np.concatenate([np.delete(by_rate, self.j, axis=1), inner, by_gate[:, : self._last, -1]], axis=1)

    @property
    def _last(self) -> int:
        return self.L - (self.j < self.L - 1)

    def _split(self, points: Array) -> tuple[Array, Array]:
        """Rates with that of layer j, [..., L], and all gates, [..., L, K]."""
        L, K, batch = self.L, self.K, points.shape[:-1]
        c, inner, last = np.split(points, [L - 1, L - 1 + L * (K - 1)], axis=-1)
        last = np.concatenate([last, np.ones((*batch, L - self._last))], axis=-1)
        gates = np.concatenate([inner.reshape(*batch, L, K - 1), last[..., None]], axis=-1)
        return np.insert(c, self.j, self.sign, axis=-1), gates


@dataclass(frozen=True)
class Weighted(Family):
    r"""Steps with any weight of any task at any other and at the query: value gates.

    Head (l, k) holds what layer l keeps of task k, and writes there alone; a last head (l, K) is the query's own token.

    Coordinates: each layer's weights as $c_l$ of a task's own examples and its own token, then those of task k at the
    outputs of task m > k and at the query, pair by pair. The last layer is only seen at the query: K weights and its
    own token's.
    """

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Tasks k < m, m = K for the query."""
        return [(k, m) for m in range(1, self.K + 1) for k in range(m)]

    @property
    def size(self) -> int:
        """All weights."""
        return (self.L - 1) * (1 + len(self.pairs)) + self.K + 1

    def heads(self, points: Float[Array, "*N P"]) -> Heads:
        """One head for each layer and task, and one for each layer's own token at the query."""
        L, J, batch, pairs = self.L, self.K + 1, points.shape[:-1], self.pairs
        points = points * self.rate
        seen = np.zeros((*batch, L, J, J))  # of layer l: weight of task k at task m
        each = 1 + len(pairs)
        for layer in range(L - 1):
            own = points[..., layer * each]
            for k in range(J):
                seen[..., layer, k, k] = own
            for i, (k, m) in enumerate(pairs, start=1):
                seen[..., layer, k, m] = points[..., layer * each + i]
        seen[..., L - 1, :, J - 1] = points[..., (L - 1) * each :]
        skips = np.zeros((*batch, L, J, L, J))
        for reader in range(1, L):
            for layer in range(reader):
                skips[..., reader, :, layer, :] = -np.swapaxes(seen[..., layer, :, :], -1, -2)
        write = np.tile(np.eye(J), (L, 1))
        readout = seen[..., :, J - 1].reshape(*batch, L * J)
        return _plain(readout, skips.reshape(*batch, L * J, L * J), write, np.ones((L * J, self.K)))

    def weights(self, points: Float[Array, "N P"]) -> Float[Array, "N L K1 K1"]:
        """The weights themselves."""
        return np.asarray((points @ self._places).reshape(len(points), self.L, self.K + 1, self.K + 1))

    def slopes(self, points: Float[Array, "N P"], dE: Float[Array, "N L K1 K1"]) -> Float[Array, "N P"]:
        """Sums of those by the entries that hold a coordinate."""
        return np.asarray(dE.reshape(len(points), -1) @ self._places.T)

    @cached_property
    def _places(self) -> Array:
        """Where in E each coordinate stands, [P, L (K + 1)²]."""
        L, J, each = self.L, self.K + 1, 1 + len(self.pairs)
        found = np.zeros((self.size, L, J, J))
        for layer in range(L - 1):
            found[layer * each, layer] = np.eye(J)
            for i, (k, m) in enumerate(self.pairs, start=1):
                found[layer * each + i, layer, k, m] = 1.0
        found[(L - 1) * each + np.arange(J), L - 1, np.arange(J), J - 1] = 1.0
        return found.reshape(self.size, -1)


def _products(g: Float[Array, "N L K"]) -> Float[Array, "N L K1 K1"]:
    """What the gates leave of task k at the tokens of task m ≥ k, the query last."""
    K = g.shape[2]
    G = np.zeros((*g.shape[:2], K + 1, K + 1))
    G[...] = np.eye(K + 1)
    for m in range(K):
        G[..., : m + 1, m + 1] = G[..., : m + 1, m] * g[..., m, None]
    return G


def _by_gate(g: Array, G: Array, dG: Array) -> Float[Array, "N L K"]:
    """Slopes by gates from those by their products: back through `_products`, since a gate may be 0."""
    found, dG = np.zeros(g.shape), dG.copy()
    for m in reversed(range(g.shape[2])):
        found[..., m] = (dG[..., : m + 1, m + 1] * G[..., : m + 1, m]).sum(axis=2)
        dG[..., : m + 1, m] += dG[..., : m + 1, m + 1] * g[..., m, None]
    return found


def _plain(readout: Any, skips: Any, write: Array, gates: Any) -> Heads:
    H = skips.shape[-1]
    return Heads(readout, skips, np.ones(H), write, gates, np.ones(H), np.zeros(H), np.ones(H))
