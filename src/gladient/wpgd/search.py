"""The best L causal steps, found by optimising the algorithm itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from gladient._types import Array
from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.wpgd.risk import risk_given_features
from gladient.wpgd.steps import WPGD, Step
from gladient.wpgd.weights import TaskWeights

__all__ = ["BestSteps", "best_steps"]

# Least gate of all delimiters but the first. With a gate of 0 all earlier weights at the query are 0, and
# `TaskWeights`, which is given those, can no longer tell what the gates before it were.
_LEAST_GATE = 1e-6
_COARSE = 512  # prompts on which starts are compared: a descent takes a sixteenth of the time it takes on all


@dataclass(frozen=True)
class BestSteps:
    r"""L steps $P_\ell = c_\ell I$ with the gates of each delimiter.

    Attributes:
        rates: c of each step, [L].
        gates: gate of each delimiter in each step, [L, K].
        risk: on the search's own prompts.
        agreeing: share of the starts that end within 0.1% of the best.
    """

    rates: tuple[float, ...]
    gates: tuple[tuple[float, ...], ...]
    risk: float
    agreeing: float

    def algorithm(self, layout: PromptLayout) -> WPGD:
        """The steps for prompts of that layout, float64."""
        eye = torch.eye(layout.d, dtype=torch.float64)
        omega = torch.tensor(self.gates, dtype=torch.float64).flip(1).cumprod(1).flip(1)
        return WPGD(
            tuple(Step(eye, c * eye, TaskWeights(each, layout)) for c, each in zip(self.rates, omega, strict=True))
        )


def best_steps(
    setting: MultitaskSetting, layers: int, *, gated: bool = True, prompts: int = 8192, starts: int = 4, seed: int = 0
) -> tuple[BestSteps, ...]:
    r"""The best 1, 2 … L causal steps of WPGD that scalar gates can make, or linear attention, for Σ = I.

    Minimises `conditional_risk`, averaged over a fixed sample of features, over $c_\ell$ and the delimiters' gates
    $0 \le g_{\ell k} \le 1$ with L-BFGS: from the best L - 1 steps with one more in front, which sees its own task
    alone or does nothing yet, and from random starts. By the rotations' symmetry each P is taken as $c_\ell I$.

    Args:
        setting: the data, Σ = I.
        layers: L.
        gated: whether gates are free; without, they are 1.
        prompts: sampled features.
        starts: random starts of each L.
        seed: seed of the sample and the starts.

    Returns:
        The best found for each number of steps. The search is local: no start promises the global optimum.

    Raises:
        ValueError: if Σ is not I or layers is below 1.

    Source: derived; L = 1 is `landscape.scalar_gate` or `landscape.linear_attention`.

    >>> setting = MultitaskSetting.isotropic(n=[4, 4], r=[0.2, 0.8], d=2)
    >>> one, two = best_steps(setting, 2, prompts=256, starts=0)
    >>> one.risk > two.risk, two.gates[0][0] < 0.1  # the first of two steps keeps the tasks apart
    (True, True)
    """
    if not np.array_equal(setting.Sigma, np.eye(setting.d)):
        raise ValueError("Sigma is not the identity; the search takes P = c I, which is best for Σ = I alone")
    if layers < 1:
        raise ValueError(f"layers is {layers}; search for at least one step")
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
        found.append(BestSteps(tuple(rates.tolist()), tuple(map(tuple, gates.tolist())), risk, agreeing))
    return tuple(found)


def _unit(setting: MultitaskSetting) -> float:
    """The order of a rate: what makes the search's numbers of order one.

    1 / (N + M + 1) is the best rate of one step for one task that is the query's, with Σ = I.
    """
    return float(1.0 / (setting.n.sum() + setting.M + 1.0))


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
        self.task = torch.full((layout.length,), K)  # the query is a task of its own; delimiters have x = 0
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
