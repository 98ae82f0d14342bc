"""What the exact landscape costs, and how sharp its certificates are.

    python -m benchmarks.landscape [--sizes 2 10 100 1000 2000] [--figure docs/certificates.png] [--json]

* `optimum` against scipy's L-BFGS-B with exact gradients on the same profile risk, from one start, for K = d;
  eigenvalues: what both spend on those of Σ; gap: how much higher scipy's risk is, relative to the optimum's;
* the whole ladder at the largest size, and the growth of its cost with n, K and d;
* `optimum_batch` against a loop over `optimum`;
* of random settings, which share each certificate of uniqueness decides.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro

from benchmarks.operators.clock import interleaved, median_seconds
from gladient.landscape import ladder, optimum, optimum_batch, uniqueness
from gladient.prompts import MultitaskSetting


@dataclass(frozen=True)
class Options:
    """Cost and sharpness of the landscape."""

    sizes: tuple[int, ...] = (2, 10, 100, 1000, 2000)
    """Numbers of tasks and of features."""
    batch: int = 5000
    """Settings solved at once."""
    settings: int = 2000
    """Random settings for the certificates."""
    figure: Path | None = None
    """Where to draw the histogram of the certificates."""
    json: bool = False
    """Print JSON."""


def correlated(rng: np.random.Generator, K: int, d: int, n: float = 1e3) -> MultitaskSetting:
    """K correlated tasks of up to n examples; eigenvalues of Σ over four decades."""
    directions = rng.standard_normal((K + 1, 2 * K + 2)) + rng.standard_normal(2 * K + 2) / 2
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    joint = directions @ directions.T
    np.fill_diagonal(joint, 1.0)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    Sigma = (basis * 10 ** rng.uniform(-3.0, 1.0, d)) @ basis.T
    counts = np.ceil(n * rng.random(K))
    return MultitaskSetting(counts, joint[:K, :K], joint[:K, K], (Sigma + Sigma.T) / 2, 0.1)


def generic(setting: MultitaskSetting) -> float:
    """The profile risk minimised by scipy's L-BFGS-B from the direction of r."""
    from scipy.optimize import minimize

    s, M, root = np.linalg.eigvalsh(setting.Sigma), setting.M, np.sqrt(setting.n)
    R, r = setting.R * np.outer(root, root), root * setting.r

    def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
        Ru, energy, signal = R @ u, u @ u, u @ r
        D = s * (u @ Ru + energy) + M * energy
        first, second = np.sum(s**2 / D), np.sum(s**2 / D**2)
        slope = -2 * signal * first * r + 2 * signal**2 * (np.sum(s**3 / D**2) * (Ru + u) + M * second * u)
        return M - signal**2 * first, slope

    start = r / np.linalg.norm(r)
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-12}
    return float(minimize(objective, start, jac=True, method="L-BFGS-B", options=options).fun)


def against_scipy(rng: np.random.Generator, sizes: tuple[int, ...]) -> list[dict[str, float]]:
    rows = []
    for size in sizes:
        setting = correlated(rng, size, size)
        jobs = {solve: partial(solve, setting) for solve in (optimum, generic)}
        times = interleaved({**jobs, "eigenvalues": partial(np.linalg.eigvalsh, setting.Sigma)}, rounds=7)
        ours, theirs = times[optimum], times[generic]
        gap = generic(setting) / optimum(setting).risk - 1.0
        row = {"K=d": size, "optimum_s": ours, "scipy_s": theirs, "eigenvalues_s": times["eigenvalues"]}
        rows.append({**row, "ratio": theirs / ours, "gap": gap})
    return rows


def growth(rng: np.random.Generator, largest: int) -> list[dict[str, float]]:
    """Seconds of the ladder, without building the setting."""
    cases = [(10, 10, n) for n in (1e2, 1e5, 1e9)]
    cases += [(size, 10, 1e3) for size in (100, largest)] + [(10, size, 1e3) for size in (100, largest)]
    cases += [(largest, largest, 1e3)]
    rows = []
    for K, d, n in cases:
        setting = correlated(rng, K, d, n)
        rounds = 5 if max(K, d) < 500 else 1
        rows.append({"K": K, "d": d, "n": n, "ladder_s": median_seconds(partial(ladder, setting), rounds)})
    return rows


def batched(rng: np.random.Generator, batch: int) -> dict[str, float]:
    """A sweep over (r1, r2) with 10 anisotropic features: settings per second, batched and one by one."""
    r, spectrum = rng.uniform(-0.7, 0.7, (batch, 2)), 10 ** rng.uniform(-2.0, 1.0, 10)
    few = min(batch, 300)
    Sigma = np.diag(spectrum)

    def loop() -> list[float]:
        return [optimum(MultitaskSetting([25, 50], np.eye(2), one, Sigma)).risk for one in r[:few]]

    together = batch / median_seconds(lambda: optimum_batch([25, 50], np.eye(2), r, spectrum), 5)
    alone = few / median_seconds(loop, 3)
    np.testing.assert_allclose(optimum_batch([25, 50], np.eye(2), r, spectrum).risk[:few], loop(), rtol=1e-10)
    return {"settings": batch, "batched_per_s": together, "loop_per_s": alone, "ratio": together / alone}


def certificates(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """The paper's ratio Δ_Σ Δ_R / (M + s_min) of random settings, whether they are unique, and who proves it."""
    ratio, slope, unique = np.empty(count), np.empty(count), np.empty(count, dtype=bool)
    for i in range(count):
        K, few = int(rng.integers(2, 5)), rng.random() < 0.5
        weak = int(rng.integers(3, 150))
        n = np.floor(10 ** rng.uniform(0.0, 6.0, K))
        n[0] = np.ceil(10 * rng.random()) if few else n[0]
        Sigma = np.diag([10 ** rng.uniform(0.0, 2.0)] + [10 ** rng.uniform(-3.0, 0.0)] * weak)
        setting = MultitaskSetting(n, np.eye(K), rng.uniform(0.03, 0.3, K), Sigma, 0.01)
        found = uniqueness(setting)
        assert found.verdict != "undecided"
        edge = setting.M + np.diag(Sigma).min()
        ratio[i], slope[i], unique[i] = 1.0 - found.paper_margin / edge, found.slope_bound, found.verdict == "unique"
    assert not (~unique & (ratio < 1)).any()
    assert not (~unique & (slope < 1)).any()
    return {"ratio": ratio, "slope": slope, "unique": unique}


def shares(found: dict[str, np.ndarray]) -> list[dict[str, float]]:
    """By decades of the paper's ratio: settings, and the shares that are unique, and proved so by each certificate."""
    decade = np.clip(np.floor(np.log10(np.maximum(found["ratio"], 1e-9))), -2, 6)
    rows = []
    for at in np.unique(decade):
        inside = decade == at
        rows.append(
            {
                "ratio_from": 10.0**at,
                "settings": int(inside.sum()),
                "unique": float(found["unique"][inside].mean()),
                "by_paper": float((found["ratio"][inside] < 1).mean()),
                "by_slope": float((found["slope"][inside] < 1).mean()),
            }
        )
    return rows


def draw(found: dict[str, np.ndarray], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    unique = found["unique"]
    for axes, values, label in (
        (left, np.log10(np.maximum(found["ratio"], 1e-3)), "paper: log10 of Δ_Σ Δ_R / (M + s_min)"),
        (right, np.log10(np.maximum(found["slope"], 1e-3)), "log10 of the proved bound of the map's slope"),
    ):
        axes.hist([values[unique], values[~unique]], bins=40, stacked=True, label=["unique", "several"])
        axes.axvline(0.0, color="black", linewidth=1.0)
        axes.set_xlabel(label)
    left.set_ylabel("settings")
    left.legend(title="proved unique left of the line")
    figure.savefig(path, dpi=120)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    rng = np.random.default_rng(0)
    found = certificates(rng, options.settings)
    results = {
        "against_scipy": against_scipy(rng, options.sizes),
        "growth": growth(rng, max(options.sizes)),
        "batched": [batched(rng, options.batch)],
        "certificates": shares(found),
    }
    if options.figure is not None:
        draw(found, options.figure)
    if options.json:
        print(json.dumps(results))
        return
    for title, rows in results.items():
        print(f"\n{title}\n" + "".join(f"{name:>15}" for name in rows[0]))
        for row in rows:
            print("".join(f"{value:15.4g}" for value in row.values()))


if __name__ == "__main__":
    main()
