"""The best delta rule and the best gated delta rule: a scan over the step, the gates solved inside."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.delta.decays import ratios
from gladient.landscape.delta.model import Model, Score, model_of
from gladient.landscape.delta.search import Found, cloud, scan, search
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.result import few
from gladient.landscape.gates.rungs import optimum, scalar_gate
from gladient.prompts import MultitaskSetting

__all__ = ["DeltaCertificate", "DeltaRung", "delta_rule", "gated_delta_rule", "scanned"]

# What a search starts from: the best multiples of that many directions, and as many points of a cloud. Brute force
# found minima that either kind alone missed; on 22 random settings one of each, or four, end in the same.
_STARTS = 2
_FEWEST, _CLOUD = 64, 16_000  # points of the cloud, at the least and for one task; a quarter, or four times, ends alike
_MOST = 6000  # risks that one search may look at; a quarter was enough for those settings
_FORGOTTEN = 1e-12  # a decay that is searched no further down: 1e-6 and 1e-30 end in the same
_LARGE = 100  # tasks times directions, for other Σ, above which gates are not searched: it takes some 20 000 risks


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

    @property
    def weights(self) -> None:
        """None: what an example weighs depends on the keys after it."""

    @property
    def text(self) -> str:
        """The step, or those of the tasks where they differ, and the decays."""
        same = bool((self.steps == self.steps[0]).all())
        return f"β = {few(self.steps[:1] if same else self.steps)}; decays {few(self.decays)}"

    def numbers(self) -> dict[str, Any]:
        """risk, steps, decays and the certificate, for JSON."""
        steps, decays = self.steps.tolist(), self.decays.tolist()
        return {"risk": self.risk, "steps": steps, "decays": decays, "certificate": asdict(self.certificate)}


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
    model, _ = model_of(reduced, keys)
    return scanned(model, _with_decays(model, np.ones(len(reduced.n))))


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
    model, gated = model_of(reduced, keys)
    if gated and not per_task:
        return scanned(model, gated)
    return _searched(model, gated, reduced, per_task)


def scanned(model: Model, score: Score) -> DeltaRung:
    """The best of all steps that are the same for every task, with the decays that the score gives them."""
    found, grid, bracket = scan(model, score, np.ones(len(model.n)))
    low, high = (float(end * model.step_unit) for end in bracket)
    certificate = DeltaCertificate("scan", grid, (low, high), bool(found.steps[0] > 0.0))
    return DeltaRung(found.risk, found.steps * model.step_unit, found.decays, certificate)


def _with_decays(model: Model, decays: Float[Array, " K"]) -> Score:
    """What scores rows of steps, all with these decays."""

    def score(steps: Array) -> tuple[Array, Array]:
        same = np.broadcast_to(decays, steps.shape)
        return model.risks(steps, same), same

    return score


def _searched(model: Model, gated: Score | None, reduced: Reduced, per_task: bool) -> DeltaRung:
    """Scans along lines of steps, then searches from the best: over steps, and over decays too if nothing solves them.

    All in logarithms: where the best steps and decays are limits at 0 whose ratio counts, they lie on straight lines.
    """
    K = len(reduced.n)
    J, D = (K if per_task else 1), (0 if gated else K - 1)

    def score(x: Array) -> tuple[Array, Array, Array]:
        steps = np.minimum(np.broadcast_to(np.exp(x[:, :J]), (len(x), K)), model.bound)
        if gated:
            return *gated(steps), steps
        # at its lower end a decay is 0, to forget all
        decays = np.column_stack((np.where(x[:, J:] > low[J:], np.exp(x[:, J:]), 0.0), np.ones(len(x))))
        return model.risks(steps, decays), decays, steps

    ways = [gated] if gated else [_with_decays(model, decays) for decays in (np.ones(K), _scalar_decays(reduced))]
    found = [scan(model, way, line) for line in _directions(reduced, per_task) for way in ways]
    points = sum(grid for _, grid, _ in found)
    starts = sorted((start for start, _, _ in found), key=lambda start: start.risk)
    best, least = starts[0], 1e-9 * model.bound / float(np.sum(model.n))  # so small a step that nothing changes
    # coordinates: J steps, then D decays (the last delimiter's does not matter)
    low = np.log(np.append(np.full(J, least), np.full(D, _FORGOTTEN)))
    high = np.log(np.append(np.full(J, model.bound), np.ones(D)))
    small = D == 0 or K * model.d <= _LARGE
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
    certificate = DeltaCertificate("search", points, None, bool(best.steps.any()))
    return DeltaRung(best.risk, best.steps * model.step_unit, best.decays, certificate)


def _directions(reduced: Reduced, per_task: bool) -> list[Array]:
    """Directions of the steps: all alike; if per task also the best weights of either sign, and each task left out."""
    K = len(reduced.n)
    if not per_task:
        return [np.ones(K)]
    omega = optimum(reduced).omega
    lines = [np.ones(K), *np.maximum([omega, -omega], 0.0), *(1.0 - np.eye(K))]
    return [line for line in lines if line.any()]


def _scalar_decays(reduced: Reduced) -> Float[Array, " K"]:
    """The decays that make the scalar gate's weights."""
    return np.asarray(ratios(scalar_gate(reduced).omega[None])[0])
