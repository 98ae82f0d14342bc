"""How honest `gladient.data` is on simulated prompts: coverage of its standard errors, and what fourth moments change.

    python -m benchmarks.data [--sets 100] [--prompts 120]

Two sources of 8 examples, 4 queries, 2 features. Coverage: the share of data sets whose 95% interval holds the truth.
Fourth moments: the risk that the value gate's best step is predicted to have, and has on 20,000 fresh prompts, with
the features' own fourth moments and with those of Gaussian features, all exact but for the fresh prompts.
"""

import argparse
from collections.abc import Callable

import numpy as np

from gladient.data import Prompt, estimate_setting
from gladient.landscape import optimum, reduce
from gladient.prompts import MultitaskSetting

SETTING = MultitaskSetting([8, 8], [[1, 0.5], [0.5, 1]], [0.4, 0.8], np.diag([0.4, 0.2]), 0.4)
RHO = np.array([[1, 0.5, 0.4], [0.5, 1, 0.8], [0.4, 0.8, 1]])
FEATURES: dict[str, tuple[float, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]]] = {  # E[x⁴], draws
    "signs": (1.0, lambda rng, shape: rng.choice([-1.0, 1.0], shape)),
    "Gaussian": (3.0, lambda rng, shape: rng.standard_normal(shape)),
    "3 in 10 not 0": (10.0, lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.3) / 0.3**0.5),
    "1 in 10 not 0": (30.0, lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.1) / 0.1**0.5),
}


def draw(rng: np.random.Generator, features: str, count: int, queries: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """X [count, n, 2] and y [count, n] of both sources and the query."""
    betas = np.einsum("kl,gld->kgd", np.linalg.cholesky(RHO), rng.standard_normal((count, 3, 2)))
    found = []
    for beta, n in zip(betas, (8, 8, queries), strict=True):
        X = FEATURES[features][1](rng, (count, n, 2)) * np.sqrt(np.diag(SETTING.Sigma))
        noise = np.sqrt(SETTING.sigma2) * rng.standard_normal((count, n))
        found.append((X, np.einsum("gnd,gd->gn", X, beta) + noise))
    return found


def coverage(features: str, sets: int, prompts: int) -> tuple[list[float], int]:
    """Shares for ρ, r₁, r₂ and σ² over the data sets that were estimated, and how many were refused."""
    rng, inside, refused = np.random.default_rng(0), [], 0
    for _ in range(sets):
        parts = draw(rng, features, prompts)
        made = [Prompt([(X[g], y[g]) for X, y in parts[:2]], (parts[2][0][g], parts[2][1][g])) for g in range(prompts)]
        try:
            estimated = estimate_setting(made)
        except ValueError:
            refused += 1
            continue
        setting, errors = estimated.setting, estimated.standard_errors
        found = np.array([setting.R[0, 1], *setting.r, setting.sigma2])
        error = np.array([errors["R"][0, 1], *errors["r"], errors["sigma2"]])
        inside.append(np.abs(found - [0.5, 0.4, 0.8, 0.4]) < 1.96 * error)
    return np.mean(inside, axis=0).tolist(), refused


def fourth_moments(features: str) -> list[str]:
    """Predicted risk and the measured one with its standard error: own fourth moments, then Gaussian ones."""
    Sigma2 = np.diag(np.diag(SETTING.Sigma) ** 2)
    gaussian = 2.0 * Sigma2 + SETTING.M * SETTING.Sigma
    own = gaussian + (FEATURES[features][0] - 3.0) * Sigma2
    (X, y), (Z, w), (Q, t) = draw(np.random.default_rng(1), features, 20_000, queries=20)
    cells = []
    for moments in (own, gaussian):
        best = optimum(reduce(SETTING, moments))
        first, second = (
            np.einsum("gni,gn->gi", *pair) @ W.T for pair, W in zip(((X, y), (Z, w)), best.matrices, strict=True)
        )
        errors = np.mean((t - np.einsum("gnd,gd->gn", Q, first + second)) ** 2, axis=1)
        cells += [f"{best.risk:.4f}", f"{errors.mean():.4f} ± {errors.std() / np.sqrt(len(errors)):.4f}"]
    return cells


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=120)
    options = parser.parse_args()
    print("| features | E[x⁴] | ρ | r₁ | r₂ | σ² | refused |\n|---|---|---|---|---|---|---|")
    for features, (kurtosis, _) in FEATURES.items():
        shares, refused = coverage(features, options.sets, options.prompts)
        print(
            f"| {features} | {kurtosis:g} | {' | '.join(f'{share:.0%}' for share in shares)} | {refused} |", flush=True
        )
    print(
        "\n| features | E[x⁴] | own: predicted | measured | Gaussian: predicted | measured |\n|---|---|---|---|---|---|"
    )
    for features, (kurtosis, _) in FEATURES.items():
        print(f"| {features} | {kurtosis:g} | {' | '.join(fourth_moments(features))} |", flush=True)


if __name__ == "__main__":
    main()
