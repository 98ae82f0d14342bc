"""Moments of the delta rule's keys on isotropic features: all that its risk knows of them."""

from dataclasses import dataclass

import numpy as np

__all__ = ["KeyMoments", "key_moments", "mean_length"]


@dataclass(frozen=True)
class KeyMoments:
    r"""One token's moments for x ~ N(0, I): key k, value v = signal-part + noise.

    Attributes:
        erase: $e_1 = E|k|^2 / d$, how much of b one erase of strength 1 takes away on average.
        square: $e_2 = E|k|^4 / d$.
        signal: how much of the task a value carries: b tends to signal · β.
        extra: noise of the write that is there without label noise (values that are not normalised with the key).
        noise: noise of the write per unit of σ².
    """

    erase: float
    square: float
    signal: float
    extra: float
    noise: float

    @property
    def spread(self) -> float:
        """e_2 - e_1²: variance of the erase."""
        return self.square - self.erase**2


def key_moments(keys: str, d: int) -> KeyMoments:
    """Moments of `keys` in d dimensions.

    Raises:
        ValueError: if keys is unknown, or is "nlms" with d ≤ 2, where the noise E[σ²/|x|²] has no bound.
    """
    if keys == "gaussian":
        return KeyMoments(1.0, d + 2.0, 1.0, 0.0, 1.0)
    if keys == "unit":
        mu = mean_length(d)
        return KeyMoments(1.0 / d, 1.0 / d, mu, max(1.0 - mu * mu / d, 0.0), 1.0 / d)
    if keys == "nlms":
        if d <= 2:
            raise ValueError(f'keys is "nlms" and d is {d}; E[1/|x|²] is infinite for d ≤ 2: use "unit" or "gaussian"')
        return KeyMoments(1.0 / d, 1.0 / d, 1.0, 0.0, 1.0 / (d * (d - 2.0)))
    raise ValueError(f'keys is {keys!r}; it must be "gaussian" (k = x), "unit" (k = x/|x|) or "nlms" (v = y/|x| too)')


def mean_length(d: int) -> float:
    r"""E|x| of x ~ N(0, I_d): $\sqrt 2\, \Gamma((d+1)/2) / \Gamma(d/2)$, as a product, which keeps all digits."""
    # E|x| for d is (1 + 1/(d-2)) times that for d - 2, from d = 1 or 2. Γ itself overflows above 170, and lgamma loses
    # digits.
    start = np.arange(1.0 if d % 2 else 2.0, d, 2.0)
    return float((np.sqrt(2.0 / np.pi) if d % 2 else np.sqrt(np.pi / 2.0)) * np.prod(1.0 + 1.0 / start))
