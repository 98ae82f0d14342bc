"""Closed forms for one task: any number of layers, and the limits of many features and of long prompts."""

from fractions import Fraction
from math import comb, factorial
from typing import Literal

import numpy as np

from gladient.landscape.depth.result import require_layers

__all__ = ["long_prompt_share", "one_task_share", "proportional_share"]


def one_task_share(n: int, d: int, layers: int, *, own: float = 1.0, sigma2: float = 0.0) -> float:
    r"""$(L - \sigma^2) / d$ of the best L causal layers for one task that is the query's, Σ = I, in rational numbers.

    With the coefficients $c_p$ of the powers of causal attention, $c_0 = 1$, the share is $c^\top G c$ and its minimum
    $1 / (G^{-1})_{00}$, where $G_{pq}$ is the coefficient of $a^p b^q$ in the n-th power of one token's polynomial. No
    digit is lost for any L; layers that read before they write (`own` = 0) without noise have the closed form
    $1 / \sum_{k \le L} \binom{n}{k} (d+1)^{-k}$.

    Args:
        n: number of examples.
        d: number of features.
        layers: L.
        own: u, as in `Stack`.
        sigma2: noise variance.

    Raises:
        ValueError: if layers is below 1.

    Source: derived.

    >>> print(f"{one_task_share(10, 10, 2):.4f} {one_task_share(10, 10, 2, own=0.0):.4f}")
    0.4134 0.4384
    >>> print(f"{one_task_share(10, 10, 10):.4f}")
    0.3492
    """
    require_layers(layers)
    if own == 0 and sigma2 == 0:
        return float(1 / sum(Fraction(comb(n, k), (d + 1) ** k) for k in range(layers + 1)))
    u, noise = Fraction(own), Fraction(sigma2)
    mean = [Fraction(1)]  # E ξ^k
    for k in range(2 * layers):
        mean.append(mean[-1] * (d + 2 * k))
    S = range(layers + 1)
    token = [[u ** (max(p, 1) + max(q, 1) - 2) * mean[p + q] / d if p + q else Fraction(0) for q in S] for p in S]
    label = [[u ** (p + q - 2) * mean[p + q - 1] * noise / d if p * q else Fraction(0) for q in S] for p in S]
    power = [[Fraction(p + q == 0) for q in S] for p in S]
    G, before = ([[Fraction(0)] * (layers + 1) for _ in S] for _ in range(2))
    for j in range(2 * layers + 1):  # (1 + token)^n and the sum of all lower powers
        for p in S:
            for q in S:
                G[p][q] += comb(n, j) * power[p][q]
                before[p][q] += comb(n, j + 1) * power[p][q]
        power = _times(power, token)
    for p, row in enumerate(_times(before, label)):
        G[p] = [a + b for a, b in zip(G[p], row, strict=True)]
    return float(_schur(G))


def proportional_share(tau: float, layers: int, *, full: bool = False, nu: float = 0.0) -> float:
    r"""The limit of $(L - \sigma^2) / d$ for one task as n and d grow, n / d → τ, σ² / d → ν.

    Causal layers: $1 / (1 + \tau + \tau^2/2! + \dots + \tau^L/L!)$, full steps $1 / (1 + \tau + \dots + \tau^L)$: the
    causal mask costs a factor L! in long prompts, and layers beyond about τ buy nothing. With noise, for causal layers
    the least $E\,\pi(N)^2 + \nu \int_0^\tau E (\pi(N+1) - \pi(N))^2$ over polynomials π of degree L with π(0) = 1, N
    being Poisson.

    Args:
        tau: τ.
        layers: L.
        full: whether all examples see all.
        nu: ν; full steps have ν = 0 here.

    Raises:
        ValueError: if layers is below 1, or full steps come with noise.

    Source: derived.

    >>> print(f"{proportional_share(2.0, 2):.4f} {proportional_share(2.0, 2, full=True):.4f}")
    0.2000 0.1429
    """
    require_layers(layers)
    if full and nu:
        raise ValueError(f"nu is {nu:g} with full=True; the limit of full steps is for nu = 0: use full_steps")
    if not nu:
        return 1.0 / sum(tau**k / (1 if full else factorial(k)) for k in range(layers + 1))
    G = np.array([[sum(_poisson(p, q, tau)) for q in range(layers + 1)] for p in range(layers + 1)])
    for p in range(layers):
        for q in range(layers):  # the integral of t^j is τ^(j+1) / (j + 1)
            first = max(p, q)
            G[p + 1, q + 1] += nu * sum(tau * each / (j + 1) for j, each in enumerate(_poisson(p, q, tau), first))
    return float(1.0 / np.linalg.inv(G)[0, 0])


def long_prompt_share(
    n: int, d: int, layers: int, *, sigma2: float = 0.0, kind: Literal["free", "steps", "full"] = "free"
) -> float:
    r"""The leading term of $(L - \sigma^2) / d$ for one task as n grows with d fixed.

    * "free", causal layers with skips, noise: $\frac{\sigma^2}{n} [1 + (d+1) / (\sigma^2 + (L^2 - 1)(d+1))]$; without
      noise, reading before they write: $L!\, ((d+1)/n)^L$.
    * "steps", linear attention without gates or skips, no noise: $\frac{d+1}{n} (z L_L'(z))^2$, z the least zero of the
      Laguerre polynomial: 1/n at any depth, since the query's own token is never masked.
    * "full": $\sigma^2 / n$ from two steps on; without noise $(d^2 + 3d + 4) / n^2$ for two.

    Args:
        n: number of examples.
        d: number of features.
        layers: L.
        sigma2: noise variance.
        kind: what steps.

    Raises:
        ValueError: if layers is below 1, or no such law is known.

    Source: derived; for steps proved for L = 2, else checked.

    >>> print(f"{1e6 * long_prompt_share(10**6, 10, 2, sigma2=1.0):.4f}")
    1.3235
    >>> print(f"{1e4 / 11 * long_prompt_share(10**4, 10, 2, kind='steps'):.4f}")
    0.6863
    """
    require_layers(layers)
    noise = sigma2 > 0.0
    if (kind == "full" and layers == 1) or (kind == "free" and noise):
        return (sigma2 / n) * (1.0 + (d + 1) / (sigma2 + (layers**2 - 1) * (d + 1))) if noise else (d + 1) / n
    if kind == "free":
        return factorial(layers) * ((d + 1) / n) ** layers
    if kind == "steps" and not noise:
        L = np.polynomial.laguerre.Laguerre.basis(layers)
        z = float(np.real(L.roots()).min())
        return float((d + 1) / n * (z * L.deriv()(z)) ** 2)
    if kind == "full" and (noise or layers == 2):
        return sigma2 / n if noise else (d * d + 3 * d + 4) / n**2
    raise ValueError(f"no law of long prompts is known for kind={kind!r}, layers={layers}, sigma2={sigma2:g}")


def _poisson(p: int, q: int, tau: float) -> list[float]:
    """Terms of τ^j, j = max(p, q) … p + q, in the coefficient of a^p b^q of exp(τ (a + b + ab)) = E (1+a)^N (1+b)^N."""
    ways = [factorial(j - p) * factorial(j - q) * factorial(p + q - j) for j in range(max(p, q), p + q + 1)]
    return [tau**j / way for j, way in enumerate(ways, max(p, q))]


def _times(A: list[list[Fraction]], B: list[list[Fraction]]) -> list[list[Fraction]]:
    """Product of two polynomials in a and b, cut after the power L of each."""
    S = range(len(A))
    out = [[Fraction(0)] * len(A) for _ in S]
    for p in S:
        for q in S:
            if A[p][q]:
                for s in range(len(A) - p):
                    for t in range(len(A) - q):
                        out[p + s][q + t] += A[p][q] * B[s][t]
    return out


def _schur(G: list[list[Fraction]]) -> Fraction:
    """1 / (G⁻¹)_00: what eliminating all other rows leaves of G_00."""
    for i in range(len(G) - 1, 0, -1):
        for j in range(i):
            factor = G[j][i] / G[i][i]
            G[j] = [a - factor * b for a, b in zip(G[j], G[i], strict=True)]
    return G[0][0]
