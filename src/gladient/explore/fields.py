"""What is typed on the page: a setting, or one sentence about what is wrong with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gladient.answers import described, numbers, parts, real, whole
from gladient.prompts import MultitaskSetting

__all__ = ["MOST_FEATURES", "MOST_TASKS", "Fields"]

Read = TypeVar("Read")

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
    ValueError: r: 'x' is not a number; type 0.5 or 1e-3
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
        n = self.read("n", whole)
        if len(n) > MOST_TASKS:
            raise ValueError(f"n lists {len(n)} tasks; the page has room for {MOST_TASKS}, gladient risk for more")
        return described(
            {"n": n, "spectrum": self._spectrum(), "sigma2": self._one("sigma2", real)}
            | {name: self.read(name, real) for name in ("r", "rho")}
        )

    def read(self, name: str, kind: Callable[[str], Read]) -> tuple[Read, ...]:
        """The numbers in a field; ValueError that names the field if one cannot be read."""
        try:
            return numbers(getattr(self, name), kind)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def command(self) -> str:
        """The same setting for `gladient risk`."""
        given = {"n": self.n, "r": self.r, "rho": self.rho, "spectrum": self.spectrum, "sigma2": self.sigma2}
        if not self.spectrum.strip():
            given["d"] = self.d
            if float(self.decay or 0) != 0.0:
                given["spectrum"] = " ".join(f"{variance:g}" for variance in self._spectrum())
                del given["d"]
        plain = {"rho": {"", "0"}, "spectrum": {""}, "sigma2": {"", "0"}}
        options = [
            f"--{name} {spelled}"
            for name, text in given.items()
            if (spelled := " ".join(parts(text))) not in plain.get(name, set())
        ]
        return f"gladient risk {' '.join(options)}"

    def _spectrum(self) -> list[float]:
        listed = list(self.read("spectrum", real))
        d = len(listed) if listed else self._one("d", whole)
        if not 1 <= d <= MOST_FEATURES:
            raise ValueError(f"d is {d}; the page takes a whole number from 1 to {MOST_FEATURES} of features")
        decay = self._one("decay", real)
        if not 0.0 <= decay <= 10.0:
            raise ValueError(f"the decay of the spectrum is {decay:g}; it lies between 0 (all variances 1) and 10")
        return listed or [j**-decay for j in range(1, d + 1)]

    def _one(self, name: str, kind: Callable[[str], Read]) -> Read:
        found = self.read(name, kind)
        if len(found) != 1:
            raise ValueError(f"{name} is {getattr(self, name)!r}; type one number")
        return found[0]
