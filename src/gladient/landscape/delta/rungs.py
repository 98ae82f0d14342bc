"""The best delta rule and the best gated delta rule: a scan over the step, the gates solved inside."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.delta.decays import best_decays, ratios
from gladient.landscape.delta.diagonal import Diagonal
from gladient.landscape.delta.isotropic import Isotropic
from gladient.landscape.delta.risk import delta_model
from gladient.landscape.delta.search import Found, Score, cloud, scan, search
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.rungs import optimum, scalar_gate
from gladient.prompts import MultitaskSetting

__all__ = ["DeltaCertificate", "DeltaRung", "delta_rule", "gated_delta_rule"]

_STARTS = 2  # of a search: the best multiples of that many directions, and as many points of a cloud
_FEWEST, _CLOUD = 64, 16_000  # points of the cloud: at the least, and for one task
_MOST = 6000  # risks that one search looks at
_FORGOTTEN = 1e-12  # a decay that is searched no further down
_LARGE = 100  # tasks times directions, for other Σ, above which gates are not searched


@dataclass(frozen=True)
class DeltaCertificate:
    """How the best step was searched. No proof: the risk can have several dips in the step.

    Attributes:
        kind: "scan": a grid over all scales of one step, its six lowest minima refined, the gates exact for each
            step. "search": several steps, or gates with Σ not ∝ I, from several starts: the risk is exact, and an upper
            bound of the best. "closed form": the step was given.
        points: steps of the grid, or risks that the search looked at.
        bracket: the steps between which the best one lies; None for a search.
        attained: whether a step > 0 has this risk; if not, it is the limit of small steps, and `steps` are 0.
    """

    kind: Literal["scan", "search", "closed form"]
    points: int
    bracket: tuple[float, float] | None
    attained: bool


@dataclass(frozen=True, eq=False)
class DeltaRung:
    """The best that a delta rule can do: `delta_risk(setting, steps, decays=decays)` gives `risk` back.

    Attributes:
        risk: expected squared error of the query's prediction.
        steps: β of each task, [K]; all 0: the limit of small steps, gated linear attention.
        decays: what each task's delimiter leaves of the state, [K]; the last one is 1.
        certificate: how they were found.
    """

    risk: float
    steps: Float[Array, " K"]
    decays: Float[Array, " K"]
    certificate: DeltaCertificate


def delta_rule(setting: MultitaskSetting | Reduced, *, keys: str = "gaussian") -> DeltaRung:
    """Best constant step without gates (DeltaNet); a step of 0 is linear attention.

    The step is found by a scan: 10 steps per factor e from a thousandth of where the first effect of a step shows up to
    the bound of stability, the six lowest minima of the grid refined. A dip that is narrower than a tenth of its own
    step could be missed. Keys and the other arguments are those of `delta_risk`.

    Source: derived.

    >>> best = delta_rule(MultitaskSetting.isotropic(n=[50, 50], r=[0.2, 0.8], d=10))
    >>> print(f"{best.risk:.6f} {best.steps[0]:.5f}")
    3.675879 0.04728
    """
    reduced = reduce(setting)
    model = delta_model(reduced, keys)
    return _constant(model, _score_ungated(model), len(reduced.n))


def gated_delta_rule(
    setting: MultitaskSetting | Reduced, per_task: bool = False, *, keys: str = "gaussian"
) -> DeltaRung:
    """Best step and best decays of the delimiters (Gated DeltaNet, its gates closed between tasks alone).

    For Σ ∝ I the decays are exact for each step (the cone problem of the scalar gate), and the step is scanned as in
    `delta_rule`. One step per task (`per_task`), and gates with other Σ, are searched from several starts, the best
    multiples of some directions and the best of random points: an upper bound, no proof. For other Σ with K d > 100
    the better of no decays and the scalar gate's decays is taken, with its best step.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[50, 50], r=[0.2, 0.8], d=10)
    >>> best, free = gated_delta_rule(setting), gated_delta_rule(setting, per_task=True)
    >>> print(f"{best.risk:.6f} {best.steps[0]:.5f} {best.decays[0]:.4f}; {free.risk:.6f}", free.steps.round(4))
    3.663549 0.04625 0.7441; 3.661821 [0.0833 0.0446]
    """
    reduced = reduce(setting)
    if len(reduced.n) == 1:  # no gate between tasks, and one step
        return delta_rule(reduced, keys=keys)
    model = delta_model(reduced, keys)
    if not per_task and isinstance(model, Isotropic):
        return _constant(model, lambda steps: best_decays(model, steps), len(reduced.n))
    return _searched(model, reduced, per_task)


def _score_ungated(model: Isotropic | Diagonal) -> Score:
    def score(steps: Array) -> tuple[Array, Array]:
        ones = np.ones(steps.shape)
        return model.risks(steps, ones), ones

    return score


def _constant(model: Isotropic | Diagonal, score: Score, K: int) -> DeltaRung:
    found, grid, bracket = scan(model, score, np.ones(K))
    low, high = (float(end * model.step_unit) for end in bracket)
    return _rung(model, found, DeltaCertificate("scan", grid, (low, high), bool(found.steps[0] > 0.0)))


def _searched(model: Isotropic | Diagonal, reduced: Reduced, per_task: bool) -> DeltaRung:
    """Scans along lines of steps, then searches from the best: over steps, and for `Diagonal` over decays too.

    All in logarithms: where the best steps and decays are limits at 0 whose ratio counts, they lie on straight lines.
    """
    K = len(reduced.n)
    J, D = (K if per_task else 1), (K - 1 if isinstance(model, Diagonal) else 0)

    def score(x: Array) -> tuple[Array, Array, Array]:
        steps = np.minimum(np.broadcast_to(np.exp(x[:, :J]), (len(x), K)), model.bound)
        if isinstance(model, Isotropic):
            return *best_decays(model, steps), steps
        decays = np.column_stack((np.where(x[:, J:] > low[J:], np.exp(x[:, J:]), 0.0), np.ones(len(x))))
        return model.risks(steps, decays), decays, steps

    scanned = [scan(model, gates, line) for line in _lines(reduced, per_task) for gates in _gates(model, reduced)]
    points = sum(grid for _, grid, _ in scanned)
    starts = sorted((found for found, _, _ in scanned), key=lambda found: found.risk)
    best, least = starts[0], 1e-9 * model.bound / float(np.sum(model.n))  # so small a step that nothing changes
    low = np.log(np.append(np.full(J, least), np.full(D, _FORGOTTEN)))
    high = np.log(np.append(np.full(J, model.bound), np.ones(D)))
    small = D == 0 or K * len(reduced.s) <= _LARGE
    begin = [np.maximum(np.log(np.append(one.steps[:J], one.decays[:D]).clip(1e-300)), low) for one in starts[:_STARTS]]
    if small:
        begin += cloud(lambda x: score(x)[0], low, high, count := max(_FEWEST, _CLOUD // K**2), _STARTS)
        points += count
    for x in begin if small else ():
        x, value, count = search(lambda x: score(x)[0], x, low, high, _MOST)
        points += count
        if value < best.risk:
            risks, decays, steps = score(x[None])
            best = Found(float(risks[0]), steps[0], decays[0])
    return _rung(model, best, DeltaCertificate("search", points, None, bool(best.steps.any())))


def _lines(reduced: Reduced, per_task: bool) -> list[Array]:
    """Directions of the steps: all alike; if per task also the best weights of either sign, and each task left out."""
    K = len(reduced.n)
    if not per_task:
        return [np.ones(K)]
    omega = optimum(reduced).omega
    lines = [np.ones(K), *np.maximum([omega, -omega], 0.0), *(1.0 - np.eye(K))]
    return [line for line in lines if line.any()]


def _gates(model: Isotropic | Diagonal, reduced: Reduced) -> list[Score]:
    """What scores rows of steps: with the best decays, or for `Diagonal` with none and with the scalar gate's."""
    if isinstance(model, Isotropic):
        return [lambda steps: best_decays(model, steps)]
    gates = ratios(scalar_gate(reduced).omega[None])[0]

    def score(steps: Array) -> tuple[Array, Array]:
        decays = np.broadcast_to(gates, steps.shape)
        return model.risks(steps, decays), decays

    return [_score_ungated(model), score]


def _rung(model: Isotropic | Diagonal, found: Found, certificate: DeltaCertificate) -> DeltaRung:
    return DeltaRung(found.risk, found.steps * model.step_unit, found.decays, certificate)
