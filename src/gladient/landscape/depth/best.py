"""The best stack of each gate family: solved where the theory can, else searched from many starts."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from gladient._types import Array
from gladient.landscape.depth.bound import paths, solved
from gladient.landscape.depth.descent import by_slopes, descend
from gladient.landscape.depth.families import Endless, Family, Steps, Weighted
from gladient.landscape.depth.objective import Objective
from gladient.landscape.depth.pair import two_rates
from gladient.landscape.depth.radial import Radial, rescaled, solve_form
from gladient.landscape.depth.result import BestStack, StackCertificate, in_units, require_layers
from gladient.landscape.depth.stack import Stack
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.result import Rung
from gladient.landscape.gates.rungs import linear_attention, scalar_gate
from gladient.prompts import MultitaskSetting

__all__ = ["StackGates", "best_stack"]

StackGates: TypeAlias = Literal["none", "scalar", "value", "free"]
"""Families of gates of a stack."""

_MEETS, _DIGITS = 1e-8, 1e-12  # part of what is above σ², and of M: a risk this near a lower bound is proved
_FIRST, _KEPT, _LONG, _LAST = 12, 8, 40, 200  # steps of every start; starts that go on; steps of those, of the lowest
_NEAR, _MOST = 8, 6  # starts near each end; times that these are tried, while that gains
_GAIN = 1e-9  # of M: what counts as a gain; flat valleys lose less to rounding
_SAME = 1e-6  # of M: two ends this near are one minimum


def best_stack(
    setting: MultitaskSetting | Reduced, layers: int, gates: StackGates = "none", *, starts: int = 32, seed: int = 0
) -> BestStack:
    r"""The best stack of L layers with a kind of gate, for Σ ∝ I.

    * "none": L steps of linear attention, $P_l = c_l I$.
    * "scalar": L steps with gates $0 \le g_{lk} \le 1$ of the delimiters.
    * "value": L steps that weigh tasks as they like, in the prompt and at the query.
    * "free": any weights and any skips between layers, `depth_bound`.

    One layer, "free", two layers of "none", and two of "value", which reach `depth_bound`, are solved. The others are
    searched on the exact risk: from the best L - 1 with one more layer, from random starts, and again from near the
    lowest ends while that gains; scalar gates also at infinity, where a layer's rate grows without end: the query's own
    token there turns nearly shut gates below into negative weights, and the layers above see no labels (`Endless`). The
    search proves nothing by itself; what meets `depth_bound` is proved, as two layers of scalar gates do for
    uncorrelated tasks of equal length with $0 \le r_1 \le \dots \le r_K$.

    Args:
        setting: the data, Σ ∝ I.
        layers: L.
        gates: the family.
        starts: random starts of each search, beside its own.
        seed: seed of the starts.

    Raises:
        ValueError: if layers is below 1, starts below 0, the family is unknown, Σ is not a multiple of I, or the bound
            would not fit in memory.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10)
    >>> for gates in ("none", "scalar", "value"):
    ...     found = best_stack(setting, 2, gates)
    ...     print(f"{gates:6} {found.risk:.4f} {found.certificate.kind:8} {found.certificate.attained}")
    none   7.6153 solved   True
    scalar 6.4244 searched False
    value  6.0115 solved   True
    """
    require_layers(layers)
    if gates not in ("none", "scalar", "value", "free"):
        raise ValueError(f"gates is {gates!r}; choose one of none, scalar, value, free")
    if starts < 0:
        raise ValueError(f"starts is {starts}; a search takes 0 or more random ones beside its own")
    model = Radial.of(setting)
    if layers == 1 and gates in ("none", "scalar"):
        return _one_layer(setting, gates)
    if gates == "free" or (gates == "value" and layers <= 2):
        return solved(model, layers, 1.0, gates)
    if gates == "none" and layers == 2:
        return _two_layers(model)
    bound = solved(model, layers, 1.0, gates).risk
    return _certified(model, _Search(model, gates, starts, seed, bound).best(layers), bound, gates)


def _one_layer(setting: MultitaskSetting | Reduced, gates: str) -> BestStack:
    """The theory of one layer: the optimum over all weights in the cone."""
    reduced = reduce(setting)
    rung: Rung = scalar_gate(reduced) if gates == "scalar" else linear_attention(reduced)
    omega = rung.omega
    later = np.append(omega[1:], 1.0)
    g = np.where(later > 0.0, omega / np.where(later > 0.0, later, 1.0), 1.0)
    stack = Stack.steps([float(np.trace(rung.P)) / len(rung.P)], g[None])
    certificate = StackCertificate("solved", rung.certificate.lower_bound or 0.0, 0, 0, 0, attained=True)
    return BestStack(rung.risk, stack, gates, certificate)


def _two_layers(model: Radial) -> BestStack:
    """Linear attention's best two rates."""
    stack = Stack.steps(two_rates(model) / model.scale, tasks=len(model.n))
    risk = float(model.risk(model.shares(rescaled(stack.heads, model.scale))))
    return BestStack(risk, stack, "none", StackCertificate("solved", risk, 0, 0, 0, attained=True))


def _certified(model: Radial, ends: "list[_End]", bound: float, gates: str) -> BestStack:
    """The lowest end; a limit only where it is lower than all that is attained."""
    lowest = min(end.share for end in ends)
    near = [end for end in ends if end.share <= lowest * (1.0 + _MEETS) + _DIGITS]
    best = min(near, key=lambda end: (isinstance(end.family, Endless), end.share))
    agreeing = sum(int((end.shares <= best.share + _SAME).sum()) for end in ends)
    stack = in_units(best.family.heads(best.point), model.scale)
    risk = float(model.risk(model.shares(best.family.heads(best.point))))
    proved = risk - bound <= _MEETS * (bound - model.offset) + _DIGITS * model.scale * model.M
    certificate = StackCertificate(
        "proved" if proved else "searched",
        min(bound, risk),
        sum(end.tried for end in ends),
        sum(end.followed for end in ends),
        agreeing,
        attained=not isinstance(best.family, Endless),
    )
    return BestStack(risk, stack, gates, certificate)


@dataclass(frozen=True, eq=False)
class _End:
    """The ends of a family's searches."""

    family: Family
    ends: Array
    shares: Array
    tried: int
    followed: int

    @property
    def share(self) -> float:
        """The least."""
        return float(self.shares.min())

    @property
    def point(self) -> Array:
        """Where it is."""
        return np.asarray(self.ends[self.shares.argmin()])


def _lowest(shares: Array) -> Array:
    """The lowest ends, each minimum once."""
    order = np.argsort(shares)
    new = np.append(True, np.diff(shares[order]) > _SAME**2)
    return np.asarray(order[new][:_KEPT])


def _near(ends: Array, low: Array, high: Array, rng: np.random.Generator) -> Array:
    """Ends with a coordinate or two elsewhere: a gate shut, open or between, a rate of another size or sign."""
    points = np.repeat(ends, _NEAR, axis=0)
    rows = np.arange(len(points))
    for _ in range(2):
        place = rng.integers(0, points.shape[1], len(points))
        between, size = rng.choice([0.0, 0.3, 0.7, 1.0], len(points)), rng.choice([-1.0, 0.1, 0.3, 3.0], len(points))
        moved = size * points[rows, place] + 0.1 * rng.standard_normal(len(points))
        points[rows, place] = np.where((low[place] == 0.0) & (high[place] == 1.0), between, moved)
    return points


class _Search:
    """Searches of more and more layers, each from what the one before found."""

    def __init__(self, model: Radial, gates: str, starts: int, seed: int, bound: float) -> None:
        self.model, self.gates, self.starts, self.seed = model, gates, starts, seed
        self.bound = (bound - model.offset) / (model.scale * model.d)

    def best(self, layers: int) -> list[_End]:
        """The ends of L layers in each family that the gates can make."""
        rng = np.random.default_rng(self.seed)
        self.objective = Objective.of(self.model, layers, gated=self.gates != "none")
        K, rate = len(self.model.n), self.model.rate
        steps: list[_End] = []
        for L in range(1, layers + 1):
            family = Steps(L, K, rate, gated=self.gates != "none")
            steps.append(self._descend(family, self._steps(family, steps, rng)))
        ends = [steps[-1]]
        if self.gates == "scalar" and layers > 1 and not self._proved(ends):
            limits = [Endless(layers, K, rate, j, sign) for j in range(layers) for sign in (1.0, -1.0)]
            ends += [self._descend(limit, self._endless(limit, steps[-1], rng)) for limit in limits]
        if self.gates == "value":
            weighted = Weighted(layers, K, rate)
            ends.append(self._descend(weighted, self._weighted(weighted, steps[-1])))
        for _ in range(_MOST):
            if self._proved(ends):
                break
            lowest = min(ends, key=lambda end: end.share)
            ends[ends.index(lowest)] = again = self._again(lowest, rng)
            if lowest.share - again.share <= _GAIN:
                break
        return ends

    def _proved(self, ends: list[_End]) -> bool:
        return min(end.share for end in ends) - self.bound <= _MEETS * self.bound

    def _descend(self, family: Family, starts: list[Array]) -> _End:
        """The minima below starts: all of them for some steps, the lowest further."""
        ends, shares = self._down(family, np.array(starts), _FIRST)
        kept = _lowest(shares)
        ends, shares = self._down(family, ends[kept], _LONG)
        return _End(family, ends, shares, len(starts), len(ends))

    def _again(self, end: _End, rng: np.random.Generator) -> _End:
        """Once more from near the ends, and the lowest further than all before."""
        kept = _lowest(end.shares)
        near = self._descend(end.family, [*_near(end.ends[kept], *end.family.box, rng)])
        ends, shares = np.concatenate([end.ends, near.ends]), np.concatenate([end.shares, near.shares])
        least = int(shares.argmin())
        ends[least : least + 1], shares[least : least + 1] = self._down(
            end.family, ends[least : least + 1], _LAST, 1e-2
        )
        return _End(end.family, ends, shares, end.tried + near.tried, end.followed + near.followed)

    def _down(self, family: Family, points: Array, most: int, unit: float = 1.0) -> tuple[Array, Array]:
        objective = self.objective.shorter(family.L)

        def both(points: Array) -> tuple[Array, Array]:
            with np.errstate(over="ignore", invalid="ignore"):
                share, dE = objective(family.weights(points), family.endless)
                return share, family.slopes(points, dE)

        low, high = family.box
        return descend(lambda x: both(x)[0], by_slopes(lambda x: both(x)[1]), points, low, high, unit=unit, most=most)

    def _steps(self, family: Steps, found: list[_End], rng: np.random.Generator) -> list[Array]:
        """The best L - 1 with one more layer anywhere, shut, idle or of negative rate; large rates; some at random."""
        L, K, rate = family.L, family.K, family.rate
        c, g = rate * np.linspace(0.6, 1.5, L), np.zeros((L, K))
        g[-1] = self._ratios()
        starts = [family.point(c, g), family.point(c, np.ones((L, K)))]
        if L == 2:
            starts.append(family.point(self._solved(), g))
        if found:
            before = found[-1].family
            assert isinstance(before, Steps)
            c, g = before.split(found[-1].point)
            for place in range(L):
                for first, gate in ((1.0, 0.0), (0.05, 0.5), (-0.5, 0.3)):
                    more = np.insert(g, place, gate, axis=0)
                    starts.append(family.point(np.insert(c, place, first * rate), more))
            starts.append(family.point(np.append(0.8 * np.abs(c), -rate), np.vstack([np.ones((L - 1, K)), g[-1] * 0])))
        for sign in (1.0, -1.0) if found and family.gated else ():  # a large rate that the last one makes small again
            c, g = rate * np.array([30.0 * sign, *np.ones(L - 2), 0.1]), np.full((L, K), 0.5)
            g[0, -1], g[-1, -1] = 0.1, 1.0
            starts.append(family.point(c, g))
        for i in range(self.starts):
            large = rng.choice([-1.0, 1.0], L) * 10.0 ** rng.uniform(-1.0, 1.5, L)  # roles of any order of magnitude
            c = rate * (large if i % 2 else rng.uniform(-2.0, 2.5, L))
            starts.append(family.point(c, rng.choice([0.0, 0.3, 0.7, 1.0], (L, K))))
        return starts

    def _endless(self, family: Endless, found: _End, rng: np.random.Generator) -> list[Array]:
        """The ends of finite steps, as far as the rate of that layer has this sign, and what is like them."""
        L, K, size = family.L, family.K, family.size
        assert isinstance(found.family, Steps)
        starts = []
        for end in found.ends:
            c, g = found.family.split(end)
            if c[family.j] * family.sign > 0.0:
                starts.append(family.point(c / family.rate, g))
        for lower, gamma in ((0.0, 1.0), (0.0, 3.0), (1.0, 1.0), (0.5, 0.0)):
            inner = np.full((L, K - 1), lower)
            inner[-1] = self._ratios()[: K - 1]
            for gates in (inner, 1.0 - inner):
                c, last = np.linspace(0.5, 1.5, L - 1), np.full(size - L + 1 - inner.size, gamma)
                starts.append(np.concatenate([c, gates.ravel(), last]))
        for _ in range(self.starts // 2):
            inner = rng.choice([0.0, 0.3, 0.7, 1.0], L * (K - 1))
            last = rng.uniform(0.0, 3.0, size - L + 1 - len(inner))
            starts.append(np.concatenate([rng.uniform(-1.0, 2.0, L - 1), inner, last]))
        return starts

    def _weighted(self, family: Weighted, found: _End) -> list[Array]:
        """The best steps with scalar gates, as they are and with other weights."""
        assert isinstance(found.family, Steps)
        c, g = found.family.split(found.point)
        points = []
        for layer in range(family.L):
            product = {(k, m): float(np.prod(g[layer, k:m])) for k, m in family.pairs}
            if layer < family.L - 1:
                points += [c[layer], *(c[layer] * product[pair] for pair in family.pairs)]
            else:
                points += [c[layer] * product[k, family.K] for k in range(family.K)] + [c[layer]]
        start = np.array(points) / family.rate
        rng = np.random.default_rng(self.seed)
        near = start + np.repeat([0.3, 1.0], self.starts // 2)[:, None] * rng.standard_normal(
            (self.starts, family.size)
        )
        return [start, *near]

    def _solved(self) -> Array:
        """Two rates where layer 1 is shut at every delimiter: the last task's V y and V V y in the bound."""
        heads = paths(self.model, 2, 1.0)
        f, K = solve_form(*self.model.form(heads)), len(self.model.n)
        first = -heads.skips[-1, K - 1] * f[-1] / f[K - 1] if f[K - 1] else self.model.rate
        return np.array([first, f[K - 1]])

    def _ratios(self) -> Array:
        """r_k / r_{k+1}, what P5 says of the last layer's gates."""
        r = np.abs(self.model.R[:, -1])
        later = np.append(r[1:], 1.0)
        ratios = np.where(later > 0.0, r / np.where(later > 0.0, later, 1.0), 1.0).clip(0.0, 1.0)
        ratios[-1] = 1.0
        return np.asarray(ratios)
