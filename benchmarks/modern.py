"""Rotation, separate keys and several steps per token: the tables of the theory, and attempts to pass the floor.

    python -m benchmarks.modern [--settings 60] [--steps 2000] [--json]

* tables: risk / d of two tasks in ten features; steps per token; RWKV-7 with copies of its keys; a rate per channel;
* costs: seconds for a floor and a fixed rotation, by examples per task;
* attempts: how far Adam on all matrices of the rule b ← P b - E x x'B b + C x y ends above `filter_floor`, from random
  starts, on random settings.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from scipy.optimize import nnls

from gladient.landscape import any_key_floor, delta_rule, filter_floor, fixed_rotation, linear_attention, optimum
from gladient.landscape.delta import channel_rates, key_copies, repeated_steps
from gladient.prompts import MultitaskSetting


@dataclass(frozen=True)
class Options:
    """Tables, costs and attempts."""

    settings: int = 60
    """Random settings for the attempts; 0 leaves them out."""
    steps: int = 2000
    """Steps of Adam for each."""
    tables: bool = True
    """Whether to print the tables and the costs."""
    json: bool = False
    """Print JSON."""


def log_linear(setting: MultitaskSetting) -> float:
    """Risk of log-linear attention, Σ = I: free weights per Fenwick block of the query's position, gates inside."""
    task, D = np.repeat(np.arange(setting.K), setting.n), setting.M + 1.0
    place = np.arange(len(task)) + task  # a delimiter after each task
    last = place[-1] + 2
    blocks, high = [], last
    while high > 0:
        blocks.append((high - (high & -high), high))
        high -= high & -high
    columns = []
    for low, high in blocks:
        inside = (place >= low) & (place < high)
        # inside a block no later task weighs less: a column for each task that it holds, from that task on
        columns += [(inside & (task >= k)).astype(float) for k in np.unique(task[inside])]
    W = np.array(columns).T
    R, r = setting.R[np.ix_(task, task)].copy(), setting.r[task]
    root = np.linalg.cholesky(W.T @ (R + D * np.eye(len(task))) @ W)
    target = np.linalg.solve(root, W.T @ r)
    # the least over c ≥ 0 of c'Qc - 2 s h'c; the read-out has either sign s
    left = min(nnls(root.T, sign * target)[1] for sign in (1.0, -1.0))
    return float(setting.M - setting.d * (target @ target - left**2))


def risks(r: tuple[float, float], n: int, d: int = 10) -> dict[str, Any]:
    """One row: risks over d of two tasks that are uncorrelated."""
    setting = MultitaskSetting.isotropic(n=[n // 2] * 2, r=r, d=d)
    turning = fixed_rotation(setting)
    return {
        "r": r,
        "n": n,
        "linear": linear_attention(setting).risk / d,
        "fixed": turning.risk / d,
        "gamma": turning.gamma,
        "theta": turning.theta,
        "WPGD": optimum(setting).risk / d,
        "log-linear": log_linear(setting) / d,
        "floor": filter_floor(setting).risk / d,
        "any key": any_key_floor(setting).risk / d,
    }


def rates(n: int) -> dict[str, Any]:
    """One task, Σ = diag(4, 1, 1/4), σ² = 1/2: one step, a rate per channel, with one schedule, with its own."""
    setting = MultitaskSetting([n], [[1.0]], [1.0], np.diag([4.0, 1.0, 0.25]), 0.5)
    found = {"n": n, "one step": delta_rule(setting).risk}
    schedules = ("constant", "common", "own")
    return {**found, **{schedule: channel_rates(setting, schedule=schedule).risk for schedule in schedules}}


def copies(ratio: float) -> dict[str, Any]:
    """RWKV-7 with a copy of its keys for each of two tasks."""
    setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10)
    return {"ratio": ratio, "risk / d": key_copies(setting, ratio).risk / 10}


def several(count: int) -> dict[str, Any]:
    """Steps along one key, d = 10, and what an example leaves of the error."""
    found = repeated_steps(MultitaskSetting.isotropic(n=[1], r=[1.0], d=10), count)
    return {"steps": count, "left": found.risk / 10, "sizes": found.steps.round(4).tolist()}


def cost(n: int) -> dict[str, Any]:
    """Seconds with noise, two tasks, ten features of one variance and of ten."""
    found: dict[str, Any] = {"n": n}
    for name, spectrum in (("isotropic", np.ones(10)), ("spread", np.geomspace(1.0, 0.01, 10))):
        setting = MultitaskSetting([n, n], np.eye(2), [0.8, 0.2], np.diag(spectrum), 0.3)
        for job in (fixed_rotation, filter_floor, any_key_floor):
            found[f"{job.__name__}, {name}"] = seconds(job, setting)
    return found


def seconds(job: Callable[[MultitaskSetting], object], setting: MultitaskSetting) -> float:
    """CPU time of the second call."""
    job(setting)
    start = time.process_time()
    job(setting)
    return time.process_time() - start


def random_settings(count: int, rng: np.random.Generator) -> list[MultitaskSetting]:
    """Two tasks with two examples each in two features: correlations of any sign, variances, with and without noise."""
    found = []
    for i in range(count):
        directions = rng.standard_normal((3, 4))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        joint = directions @ directions.T
        np.fill_diagonal(joint, 1.0)
        Sigma = np.diag([1.0, float(rng.choice([1.0, rng.uniform(0.1, 1.0)]))])
        found.append(MultitaskSetting([2, 2], joint[:2, :2], joint[:2, 2], Sigma, (i % 2) * float(rng.random())))
    return found


def attempts(settings: list[MultitaskSetting], steps: int, width: int = 4, seed: int = 0) -> np.ndarray:
    """Least risk that Adam finds for each setting, all matrices of every example free, in a state of this width."""
    import torch

    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float64)
    try:
        return _attempts(settings, steps, width)
    finally:
        torch.set_default_dtype(torch.float32)


def _attempts(settings: list[MultitaskSetting], steps: int, width: int) -> np.ndarray:
    import torch

    B, d = len(settings), settings[0].d
    tasks = np.repeat(np.arange(settings[0].K), settings[0].n)
    S = torch.tensor(np.stack([one.Sigma for one in settings]))
    # of each task with the query's task and with all tasks
    R = torch.tensor(np.stack([np.column_stack((one.r, one.R)) for one in settings]))
    M = torch.tensor([one.M for one in settings])
    T, eye = len(tasks), torch.eye(width)
    shapes = ((width, width), (width, d), (d, width), (width, d))
    scales = (0.1, 0.3, 0.3, 0.5)
    P, E, N, C = (scale * torch.randn(T, B, *shape) for scale, shape in zip(scales, shapes, strict=True))
    matrices = [one.requires_grad_() for one in (P + eye, E, N, C)]

    def trace(A: Any) -> Any:
        return A.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]

    def four(A: Any) -> Any:  # E x x'A x x'
        return S @ (A + A.mT) @ S + trace(A @ S) * S

    def risk() -> Any:
        A, L = torch.zeros(B, width, width), torch.zeros(B, R.shape[2], width, d)  # E b b' and E b θ_l'
        for t, k in enumerate(tasks):
            p, e, n, c = (one[t] for one in matrices)
            mixed, own = p @ A @ n.mT @ S @ e.mT, L[:, k + 1]
            cross = p @ own @ S @ c.mT - e @ four(n @ own) @ c.mT
            noise = c @ (2.0 * S @ S + M[:, None, None] * S) @ c.mT
            A = p @ A @ p.mT - mixed - mixed.mT + e @ four(n @ A @ n.mT) @ e.mT + cross + cross.mT + noise
            L = (p - e @ S @ n)[:, None] @ L + R[:, k, :, None, None] * (c @ S)[:, None]
        h = L[:, 0]
        return M - trace(S @ h.mT @ torch.linalg.solve(A + 1e-12 * eye, h))[:, 0, 0]

    optimiser = torch.optim.Adam(matrices, lr=2e-2)
    least = np.full(B, np.inf)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 2e-2 * (1.0 - step / steps) + 1e-5
        found = risk()
        optimiser.zero_grad()
        found.sum().backward()
        optimiser.step()
        least = np.minimum(least, found.detach().numpy())
    return least


def against_matrices(settings: int, steps: int) -> dict[str, Any]:
    """How far the attempts end above the floor, relative to M."""
    tried = random_settings(settings, np.random.default_rng(0))
    floors, M = np.array([filter_floor(one).risk for one in tried]), np.array([one.M for one in tried])
    above = (attempts(tried, steps) - floors) / M
    narrow = (attempts(tried, steps, width=2) - floors) / M
    return {
        "settings": settings,
        "least above": float(above.min()),
        "median": float(np.median(above)),
        "most": float(above.max()),
        "least, d channels": float(narrow.min()),
        "most, d channels": float(narrow.max()),
    }


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    results: dict[str, list[dict[str, Any]]] = {}
    if options.tables:
        results["risks"] = [risks(*row) for row in (((0.2, 0.8), 20), ((0.8, 0.2), 20), ((0.8, 0.2), 100))]
        results["steps per token"] = [several(count) for count in (1, 2, 3)]
        results["copies of keys"] = [copies(ratio) for ratio in (1.0, 0.5, 0.1)]
        results["rates"] = [rates(n) for n in (10, 40)]
        results["costs"] = [cost(n) for n in (10, 10**3, 10**6, 10**9)]
    if options.settings:
        results["attempts"] = [against_matrices(options.settings, options.steps)]
    if options.json:
        print(json.dumps(results))
        return
    for title, rows in results.items():
        print(f"\n{title}")
        widths = {name: max(len(name), 10) for name in rows[0]}
        print("  ".join(f"{name:>{width}}" for name, width in widths.items()))
        for row in rows:
            cells = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()}
            print("  ".join(f"{cells[name]:>{width}}" for name, width in widths.items()))


if __name__ == "__main__":
    main()
