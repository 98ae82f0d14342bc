"""What is typed on the page: a setting, or one sentence about what is wrong with it."""

from dataclasses import dataclass

import numpy as np

from gladient.prompts import MultitaskSetting, correlation_matrix

__all__ = ["MOST_FEATURES", "MOST_TASKS", "Fields", "split"]

MOST_TASKS = 8  # each has two sliders
MOST_FEATURES = 1000  # the page answers while a slider moves


@dataclass(frozen=True)
class Fields:
    """A setting as text, the way `gladient risk` takes it.

    Args:
        n: examples of each task, in prompt order.
        r: correlation of each task with the query's task.
        rho: correlations between tasks: none, one number for every pair, or the upper triangle row by row.
        d: number of features.
        decay: the variances of the features are j^-decay.
        spectrum: these variances one by one; then `d` and `decay` do not count.
        sigma2: variance of the label noise.

    >>> Fields(n="25 25", r="0.2, 0.8").setting().r.tolist()
    [0.2, 0.8]
    >>> Fields(r="0.9 x").setting()
    Traceback (most recent call last):
    ValueError: r holds 'x', which is not a number; type numbers with spaces between them, such as 0.5 1e-3
    """

    n: str = "25 25"
    r: str = "0.8 0.2"
    rho: str = "0"
    d: str = "10"
    decay: str = "0"
    spectrum: str = ""
    sigma2: str = "0"

    def setting(self) -> MultitaskSetting:
        """The setting.

        Raises:
            ValueError: if a field cannot be read, a number is out of its range, or the correlations cannot occur
                together.
        """
        n, r = self.counts(), self.correlations()
        if len(n) > MOST_TASKS:
            raise ValueError(f"n lists {len(n)} tasks; the page has room for {MOST_TASKS}, gladient risk for more")
        if len(r) != len(n):
            raise ValueError(f"n lists {len(n)} tasks but r lists {len(r)}; give one correlation per task")
        R = correlation_matrix(_numbers("rho", self.rho), len(n))
        return MultitaskSetting(n, R, r, np.diag(self._variances()), _one("sigma2", self.sigma2))

    def counts(self) -> list[float]:
        """The numbers in `n`; ValueError if it holds none, or something else."""
        return _some("n", self.n)

    def correlations(self) -> list[float]:
        """The numbers in `r`; ValueError if it holds none, or something else."""
        return _some("r", self.r)

    def command(self) -> str:
        """The same setting for `gladient risk`."""
        given = {"n": self.n, "r": self.r, "rho": self.rho, "spectrum": self.spectrum, "sigma2": self.sigma2}
        if not self.spectrum.strip():
            given["d"] = self.d
            if float(self.decay or 0) != 0.0:
                given["spectrum"] = " ".join(f"{variance:g}" for variance in self._variances())
                del given["d"]
        plain = {"rho": {"", "0"}, "spectrum": {""}, "sigma2": {"", "0"}}
        options = [
            f"--{name} {' '.join(split(text))}"
            for name, text in given.items()
            if " ".join(split(text)) not in plain.get(name, set())
        ]
        return f"gladient risk {' '.join(options)}"

    def _variances(self) -> list[float]:
        listed = _numbers("spectrum", self.spectrum)
        d = len(listed) if listed else _one("d", self.d)
        if not 1 <= d <= MOST_FEATURES or d != round(d):
            raise ValueError(f"d is {d:g}; the page takes a whole number from 1 to {MOST_FEATURES} of features")
        if listed and min(listed) < 0.0:
            raise ValueError(f"spectrum lists {min(listed):g}; the variance along a direction is never below 0")
        decay = _one("decay", self.decay)
        if not 0.0 <= decay <= 10.0:
            raise ValueError(f"the decay of the spectrum is {decay:g}; it lies between 0 (all variances 1) and 10")
        return listed or [j**-decay for j in range(1, int(d) + 1)]


def split(text: str) -> list[str]:
    """The numbers of a field as they are typed, with spaces or commas between them."""
    return text.replace(",", " ").split()


def _numbers(name: str, text: str) -> list[float]:
    return [_number(name, part) for part in split(text)]


def _some(name: str, text: str) -> list[float]:
    found = _numbers(name, text)
    if not found:
        raise ValueError(f"{name} is empty; type one number per task, such as 25 25 for n and 0.8 0.2 for r")
    return found


def _one(name: str, text: str) -> float:
    found = _numbers(name, text)
    if len(found) != 1:
        raise ValueError(f"{name} is {text!r}; type one number")
    return found[0]


def _number(name: str, part: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise ValueError(
            f"{name} holds {part!r}, which is not a number; type numbers with spaces between them, such as 0.5 1e-3"
        ) from None
