"""The best L causal steps: on the exact risk where it is known, else by simulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from gladient._types import Array
from gladient.landscape import reduce
from gladient.landscape.delta.isotropic import is_isotropic
from gladient.landscape.depth import Stack, best_stack, best_two_layers_diagonal, stack_risk, two_layers_diagonal
from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.wpgd.risk import risk_given_features
from gladient.wpgd.steps import WPGD, Step
from gladient.wpgd.weights import TaskWeights

__all__ = ["BestSteps", "best_steps"]

# Least gate of all delimiters but the first. With a gate of 0 all earlier weights at the query are 0, and
# `TaskWeights`, which is given those, can no longer tell what the gates before it were.
_LEAST_GATE = 1e-6
_COARSE = 512  # prompts on which starts are compared: a descent takes a sixteenth of the time it takes on all
_GAIN = 1e-6  # of the risk: what preconditioners that are no multiples of I must gain


@dataclass(frozen=True)
class BestSteps:
    r"""L steps with a preconditioner each, and the gates of each delimiter.

    Attributes:
        rates: c of each step, [L]; the mean rate where a step has `preconditioners`.
        gates: gate of each delimiter in each step, [L, K].
        risk: exact, or on the search's own prompts.
        agreeing: share of the searches that end within 0.1% of the best; on the exact risk of those that were followed
            to their minimum.
        method: "exact", the risk has no sampling error; "simulated", it is the mean over the search's own prompts.
        preconditioners: P of each step, [L, d, d], where multiples of I are not the best; else None.
    """

    rates: tuple[float, ...]
    gates: tuple[tuple[float, ...], ...]
    risk: float
    agreeing: float
    method: Literal["exact", "simulated"]
    preconditioners: tuple[Array, ...] | None = None

    def algorithm(self, layout: PromptLayout) -> WPGD:
        """The steps for prompts of that layout, float64."""
        eye = torch.eye(layout.d, dtype=torch.float64)
        P = [c * eye for c in self.rates] if self.preconditioners is None else map(torch.tensor, self.preconditioners)
        omega = torch.tensor(self.gates, dtype=torch.float64).flip(1).cumprod(1).flip(1)
        return WPGD(tuple(Step(eye, each, TaskWeights(w, layout)) for each, w in zip(P, omega, strict=True)))


def best_steps(
    setting: MultitaskSetting,
    layers: int,
    *,
    gated: bool = True,
    diagonal: bool = False,
    prompts: int = 8192,
    starts: int = 4,
    seed: int = 0,
) -> tuple[BestSteps, ...]:
    r"""The best 1, 2 … L causal steps of WPGD, $P_\ell = c_\ell I$, that scalar gates can make, or linear attention.

    For Σ ∝ I they minimise the exact risk (`landscape.depth.best_stack`). Where its infimum lies at infinity, the last
    rate is large and the risk within about 1e-4 of it. For other Σ `conditional_risk`, averaged over a fixed sample of
    features, is minimised over $c_\ell$ and the delimiters' gates $0 \le g_{\ell k} \le 1$ with L-BFGS: from the best
    L - 1 steps with one more in front, which sees its own task alone or does nothing yet, and from random starts.

    A multiple of I is the best P for Σ = I in one step, given the others. In two steps together it need not be: with
    `diagonal` two steps may take any P that is diagonal with Σ, where that gains; that risk is exact for any Σ.

    Args:
        setting: the data.
        layers: L.
        gated: whether gates are free; without, they are 1.
        diagonal: whether two steps may have such preconditioners.
        prompts: sampled features, where the risk is simulated.
        starts: random starts of each L.
        seed: seed of the sample and the starts.

    Returns:
        The best found for each number of steps. The search is local: no start promises the global optimum.

    Raises:
        ValueError: if layers is below 1.

    Source: derived; L = 1 is `landscape.scalar_gate` or `landscape.linear_attention` for Σ ∝ I.

    >>> setting = MultitaskSetting.isotropic(n=[4, 4], r=[0.2, 0.8], d=2)
    >>> one, two = best_steps(setting, 2)
    >>> print(f"{one.risk:.4f} {two.risk:.4f} {two.method}")
    1.2229 1.0210 exact
    >>> two.gates[0][0] < 0.1  # the first of two steps keeps the tasks apart
    True
    """
    if layers < 1:
        raise ValueError(f"layers is {layers}; search for at least one step")
    if is_isotropic(reduce(setting)):
        found = [_exact(setting, depth, gated, starts, seed) for depth in range(1, layers + 1)]
    else:
        found = _simulated(setting, layers, gated=gated, prompts=prompts, starts=starts, seed=seed)
    if diagonal and layers > 1:
        found[1] = _unlike(setting, found[1], gated, starts, seed)
    return tuple(found)


def _exact(setting: MultitaskSetting, layers: int, gated: bool, starts: int, seed: int) -> BestSteps:
    """The best stack as steps, with gates that TaskWeights can tell apart."""
    best = best_stack(setting, layers, "scalar" if gated else "none", starts=8 * starts, seed=seed)
    assert best.steps is not None  # of these two families
    rates, gates = best.steps[0], _told_apart(best.steps[1])
    certificate = best.certificate
    agreeing = certificate.agreeing / certificate.followed if certificate.followed else 1.0
    risk = stack_risk(setting, Stack.steps(rates, gates)).risk
    return BestSteps(tuple(rates.tolist()), _rows(gates), risk, agreeing, "exact")


def _unlike(setting: MultitaskSetting, two: BestSteps, gated: bool, starts: int, seed: int) -> BestSteps:
    """Two steps of any P that is diagonal with Σ, if they gain, or two simulated steps, in exact numbers."""
    best = best_two_layers_diagonal(setting, "scalar" if gated else "none", starts=2 * starts, seed=seed)
    gates = _told_apart(best.gates)
    risk = two_layers_diagonal(setting, best.rates, gates).risk
    if two.method == "exact" and risk > (1.0 - _GAIN) * two.risk:
        return two
    V = best.directions
    P = tuple((V * p) @ V.T for p in best.rates)
    return BestSteps(tuple(best.rates.mean(axis=1).tolist()), _rows(gates), risk, two.agreeing, "exact", P)


def _told_apart(gates: Array) -> Array:
    kept = np.array(gates)
    kept[:, 1:] = np.maximum(kept[:, 1:], _LEAST_GATE)
    return kept


def _rows(gates: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, gates.tolist()))


def _simulated(
    setting: MultitaskSetting, layers: int, *, gated: bool, prompts: int, starts: int, seed: int
) -> list[BestSteps]:
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    sampler = PromptSampler([setting], dtype=torch.float64)
    x = sampler.draw(prompts, [generator]).tokens[0, ..., : setting.d]
    coarse, fine = _Objective(x[:_COARSE], setting, gated=gated), _Objective(x, setting, gated=gated)
    found: list[BestSteps] = []
    for depth in range(1, layers + 1):
        ends = [
            coarse.descend(start, iterations=60, tolerance=1e-7)  # enough to rank starts; the best one goes on
            for start in _starts(found, setting, depth, starts, rng)
        ]
        best, risk = fine.descend(min(ends, key=lambda end: end[1])[0])
        agreeing = float(np.mean([end[1] < 1.001 * min(value for _, value in ends) for end in ends]))
        rates, gates = best[:, 0] * _unit(setting), best[:, 1:] if gated else np.ones_like(best[:, 1:])
        found.append(BestSteps(tuple(rates.tolist()), _rows(gates), risk, agreeing, "simulated"))
    return found


def _unit(setting: MultitaskSetting) -> float:
    """The order of a rate: what makes the search's numbers of order one.

    For Σ = I it is 1 / (N + M + 1), the best rate of one step for one task that is the query's.
    """
    return float(setting.d / ((setting.n.sum() + 1.0) * np.trace(setting.Sigma) + setting.d * setting.M))


def _starts(
    found: Sequence[BestSteps], setting: MultitaskSetting, depth: int, starts: int, rng: np.random.Generator
) -> list[Array]:
    """Points [L, 1 + K]: rates in units of `_unit`, then gates."""
    K = setting.K
    random = [np.hstack([rng.uniform(0.5, 1.5, (depth, 1)), rng.uniform(0, 1, (depth, K))]) for _ in range(starts)]
    if not found:
        return [np.array([[1.0, *np.full(K, 0.5)]]), *random]
    last = np.column_stack([np.array(found[-1].rates) / _unit(setting), np.array(found[-1].gates)])
    idle = np.array([[0.0, *np.full(K, 0.5)]])
    alone = np.array([[1.0, *np.full(K, _LEAST_GATE)]])
    return [np.vstack([alone, last]), np.vstack([idle, last]), *random]


class _Objective:
    """The mean conditional risk on fixed features as a function of a point [L, 1 + K]."""

    def __init__(self, x: Float[Tensor, "B T d"], setting: MultitaskSetting, *, gated: bool) -> None:
        layout = PromptLayout.of(setting)
        K = setting.K
        self.x, self.setting, self.gated = x, setting, gated
        self.task = torch.full((layout.length,), K)  # the query gets number K; delimiters too, as their x is 0
        for k, block in enumerate(layout.blocks):
            self.task[block] = k
        self.member = torch.nn.functional.one_hot(self.task, K + 1).T.to(x)
        # With P = c I the features enter by their products alone, so the algorithm runs on [B, T, T], made once.
        self.gram = (x @ x.mT).tril()

    def __call__(self, point: Float[Tensor, "L K1"]) -> Tensor:
        # `label_weights`, whose A_l are sums over pairs of tasks here. It returns query - row: for examples, -row.
        row = torch.zeros_like(self.x[..., 0])
        row[:, -1] = 1.0
        for step in reversed(point.unbind()):
            pulled = (row[:, None] * self.member) @ self.gram  # from each task's outputs to every token
            row = row - step[0] * _unit(self.setting) * (pulled * self._between(step[1:])[:, self.task]).sum(1)
        return risk_given_features(-row, self.x, self.setting).mean()

    def descend(self, start: Array, *, iterations: int = 100, tolerance: float = 1e-9) -> tuple[Array, float]:
        """The local minimum below a start, and its risk."""

        def value_and_slope(flat: Array) -> tuple[float, Array]:
            point = torch.tensor(flat.reshape(start.shape), requires_grad=True)
            value = self(point)
            value.backward()
            assert point.grad is not None
            return value.item(), point.grad.numpy().ravel()

        K = start.shape[1] - 1
        bounds = [(None, None), (0.0, 1.0), *[(_LEAST_GATE, 1.0)] * (K - 1)] * len(start)
        options = {"maxiter": iterations, "ftol": tolerance, "gtol": 1e-6}
        end = minimize(value_and_slope, start.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return end.x.reshape(start.shape), float(end.fun)

    def _between(self, gates: Float[Tensor, " K"]) -> Float[Tensor, "K1 K1"]:
        """Weight of task j (second) at outputs of task i (first): the product of the delimiters between."""
        if not self.gated:
            gates = torch.ones_like(gates)
        passed = torch.ones(len(gates) + 1, len(gates) + 1, len(gates), dtype=torch.bool)
        i, j, k = torch.meshgrid(*map(torch.arange, passed.shape), indexing="ij")
        return torch.where((j <= k) & (k < i), gates, 1.0).prod(2)
