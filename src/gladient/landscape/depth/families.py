"""The stacks that each gate family can make, as points of a box: where a search moves."""

from dataclasses import dataclass
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

    def heads(self, points: Float[Array, "*N P"]) -> Heads:
        """The stacks of points."""
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


@dataclass(frozen=True)
class Endless(Family):
    r"""The limit of scalar-gated steps whose last rate grows while the query sees less and less of the layers below.

    With $c_L \to \sigma\infty$ and the last gates $g_{lK} = \gamma_l / |c_L|$ below, the query's own token turns what
    the layers below give it into $-\sigma\, |x|^2 \sum_{l<L} c_l o_l$, read with gates $\gamma_l \ge 0$ of any size;
    the last layer's own weights stay, with the sign σ. That is a stack with one more head, which writes at the query
    alone.

    Coordinates: $c_l$, [L - 1]; the last layer's weight on the last task; the gates of all layers but for the last
    delimiter, [L, K - 1]; γ, [L - 1].
    """

    sign: float = 1.0

    @property
    def size(self) -> int:
        """Rates, gates within the prompt, and the last gates below the last layer."""
        return self.L + self.L * (self.K - 1) + self.L - 1

    @property
    def box(self) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
        """Rates below of any sign, the last of one; gates from 0 to 1; γ from 0."""
        low, high = np.full(self.size, 0.0), np.full(self.size, np.inf)
        low[: self.L - 1] = -np.inf
        high[self.L : self.L * self.K] = 1.0
        return low, high

    def heads(self, points: Float[Array, "*N P"]) -> Heads:
        """The layers below, the last layer with the query masked, and the query's own token."""
        L, K, batch = self.L, self.K, points.shape[:-1]
        c, inner, last = np.split(points, [L, L * K], axis=-1)
        c = c * self.rate
        gates = np.ones((*batch, L + 1, K))
        gates[..., :L, : K - 1] = inner.reshape(*batch, L, K - 1)
        gates[..., : L - 1, K - 1] = last
        skips, readout = np.zeros((*batch, L + 1, L + 1)), np.zeros((*batch, L + 1))
        skips[..., :L, :L] = chain(c)
        skips[..., L, : L - 1] = -c[..., : L - 1] * self.rate  # γ in units of the rate, as the product c_L g is
        readout[..., L - 1], readout[..., L] = self.sign * c[..., L - 1], self.sign
        write = np.ones((L + 1, K + 1))
        write[L - 1, K], write[L, :K] = 0.0, 0.0
        return _plain(readout, skips, write, gates)._replace(label=np.append(np.ones(L), 0.0))


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


def _plain(readout: Any, skips: Any, write: Array, gates: Any) -> Heads:
    H = skips.shape[-1]
    return Heads(readout, skips, np.ones(H), write, gates, np.ones(H), np.zeros(H), np.ones(H))
