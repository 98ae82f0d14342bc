"""Several layers: the tables of the theory, what an answer costs, and best stacks against a generic optimiser.

    python -m benchmarks.depth [--settings 100] [--starts 100] [--layers 2] [--json]

* tables: risk / d of two tasks in ten features, by r and n;
* costs: how many CPU seconds a risk, its slopes, the best stacks and the bound take, for L and K from 1 to 4 and 10⁹
  examples per task;
* starts: how many random starts end lower than `best_stack`, in how many settings, and by how much of M at most (100
  settings with 100 starts each are 10,000; a quarter of the settings has no gates). A start is a random point
  and 200 steps of Adam on the exact risk and its slopes; the five lowest of each setting go on with L-BFGS-B.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from scipy.optimize import minimize

from gladient.landscape.depth import (
    Stack,
    best_stack,
    depth_bound,
    depth_floor,
    full_steps,
    marked_layers,
    stack_risk,
)
from gladient.landscape.depth.families import Steps
from gladient.landscape.depth.objective import Objective
from gladient.landscape.depth.radial import Radial
from gladient.prompts import MultitaskSetting

FIRST, KEPT, LONG = 200, 5, 300


@dataclass(frozen=True)
class Options:
    """Tables, costs and random starts."""

    settings: int = 100
    """Random settings for the starts; 0 leaves them out."""
    starts: int = 100
    """Random starts of each."""
    layers: int = 2
    """Layers of the stacks that are compared."""
    tables: bool = True
    """Whether to print the tables and the costs."""
    json: bool = False
    """Print JSON."""


def table(r: tuple[float, float], n: int, d: int = 10) -> dict[str, Any]:
    """One row: risks over d."""
    setting = MultitaskSetting.isotropic(n=[n // 2] * 2, r=r, d=d)
    found: dict[str, Any] = {"r": r, "n": n}
    for gates in ("none", "scalar"):
        found.update({f"{gates} {L}": best_stack(setting, L, gates).risk / d for L in (1, 2, 3)})
    found.update({f"bound {L}": depth_bound(setting, L).risk / d for L in (2, 3, 4)})
    found["marks"], found["floor"] = marked_layers(setting).risk / d, depth_floor(setting).risk / d
    found.update({f"full {L}": full_steps(setting, L).risk / d for L in (2, 3)})
    return found


def seconds(job: Callable[[], object]) -> float:
    """CPU time of one call, the second if it is short."""
    for _ in range(2):
        start = time.process_time()
        job()
        if (spent := time.process_time() - start) > 0.5:
            break
    return spent


def cost(layers: int, tasks: int) -> dict[str, Any]:
    """Seconds at 10⁹ examples for each task."""
    setting = MultitaskSetting.isotropic(n=[10**9] * tasks, r=np.linspace(0.2, 0.4, tasks), d=10, sigma2=0.1)
    stack = Stack.steps(np.full(layers, 0.5e-9), np.full((layers, tasks), 0.5))
    stack_risk(setting, stack)
    return {
        "L": layers,
        "K": tasks,
        "risk": seconds(lambda: stack_risk(setting, stack)),
        "slopes": seconds(lambda: stack_risk(setting, stack).gradient),
        "none": seconds(lambda: best_stack(setting, layers)),
        "scalar": seconds(lambda: best_stack(setting, layers, "scalar")),
        "bound": seconds(lambda: depth_bound(setting, layers)),
    }


def random_setting(rng: np.random.Generator) -> MultitaskSetting:
    K = int(rng.integers(1, 4))
    directions = rng.standard_normal((K + 1, K + 2))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    joint = directions @ directions.T
    np.fill_diagonal(joint, 1.0)
    noise = float(rng.choice([0.0, rng.random()]))
    n, d = rng.integers(2, 60, K), int(rng.integers(2, 12))
    return MultitaskSetting(n, joint[:K, :K], joint[:K, K], np.eye(d), noise)


def random_start(layers: int, tasks: int, gated: bool, rng: np.random.Generator) -> np.ndarray:
    """Rates of order 1 or of any order of magnitude and sign; gates of any size, or shut, open and between."""
    size, spread = layers * tasks, 10 ** rng.uniform(-1.5, 2.5, layers)
    rates = rng.uniform(-2.5, 3.0, layers) if rng.random() < 0.5 else rng.choice([-1.0, 1.0], layers) * spread
    gates = rng.random(size) if rng.random() < 0.5 else rng.choice([0.0, 0.01, 0.3, 0.7, 1.0], size)
    return np.append(rates, gates if gated else [])


def descents(setting: MultitaskSetting, family: Steps, starts: int, rng: np.random.Generator) -> list[float]:
    """Risks where random starts end; the lowest are checked by `stack_risk`."""
    model = Radial.of(setting)
    objective = Objective.of(model, family.L, gated=family.gated)
    bounds = np.clip(np.column_stack(family.box), -1e4, 1e4)

    def f(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares, slopes = objective(family.weights(points))
        return shares, family.slopes(points, slopes)

    def one(point: np.ndarray) -> tuple[float, np.ndarray]:
        shares, slopes = f(point[None])
        return shares[0], slopes[0]

    def risk(point: np.ndarray) -> float:
        rates, gates = family.split(point)
        return stack_risk(setting, Stack.steps(rates / model.scale, gates, tasks=setting.K)).risk

    points = np.array([random_start(family.L, setting.K, family.gated, rng) for _ in range(starts)])
    points, shares = adam(f, points, *bounds.T)
    lowest = np.argsort(shares)[:KEPT]
    options = {"maxiter": LONG}
    ends = [minimize(one, points[i], jac=True, method="L-BFGS-B", bounds=bounds, options=options) for i in lowest]
    return [risk(end.x) for end in ends] + model.risk(np.delete(shares, lowest)).tolist()


def adam(f: Callable[..., Any], x: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adam within bounds, all starts at once, its rate falling from 0.1 to 0."""
    mean, square = np.zeros(x.shape), np.zeros(x.shape)
    for i in range(1, FIRST + 1):
        slope = f(x)[1]
        mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope**2
        step = mean / (1 - 0.9**i) / (np.sqrt(square / (1 - 0.99**i)) + 1e-12)
        x = np.clip(x - 0.1 * (1 - i / (FIRST + 1)) * step, low, high)
    return x, f(x)[0]


def against_starts(settings: int, starts: int, layers: int) -> dict[str, Any]:
    """Whether any start ends below the best stack by more than 1e-8 M."""
    rng, lower, worst, proved, missed = np.random.default_rng(0), 0, 0.0, 0, 0
    seconds_of = {"best_stack": 0.0, "descents": 0.0}
    for case in range(settings):
        setting, gated = random_setting(rng), bool(case % 4)
        times = [time.process_time()]
        found = best_stack(setting, layers, "scalar" if gated else "none")
        times.append(time.process_time())
        family = Steps(layers, setting.K, Radial.of(setting).rate, gated)
        gains = (found.risk - np.array(descents(setting, family, starts, rng))) / setting.M
        times.append(time.process_time())
        proved += found.certificate.kind != "searched"
        lower, missed = lower + int((gains > 1e-8).sum()), missed + int(gains.max() > 1e-8)
        worst = max(worst, float(gains.max()))
        if gains.max() > 1e-8:
            print(f"setting {case}: {gains.max():.1e} M lower", file=sys.stderr, flush=True)
        for name, spent in zip(seconds_of, np.diff(times), strict=True):
            seconds_of[name] += float(spent)
    counts = {"settings": settings, "starts": settings * starts, "proved": proved, "lower": lower, "missed": missed}
    return counts | {"most_lower": worst} | seconds_of


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    results: dict[str, list[dict[str, Any]]] = {}
    if options.tables:
        pairs = [(0.0, 1.0), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2)]
        results["tables"] = [table(r, n) for r in pairs for n in (20, 100)]
        results["costs"] = [cost(layers, tasks) for layers in range(1, 5) for tasks in range(1, 5)]
    if options.settings:
        results["starts"] = [against_starts(options.settings, options.starts, options.layers)]
    if options.json:
        print(json.dumps(results))
        return
    for title, rows in results.items():
        print(f"\n{title}\n" + " ".join(f"{name:>10}" for name in rows[0]))
        for row in rows:
            print(
                " ".join(f"{value:10.4g}" if isinstance(value, float) else f"{value!s:>10}" for value in row.values())
            )


if __name__ == "__main__":
    main()
