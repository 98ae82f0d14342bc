"""Options that describe a multitask setting, shared by the commands of the theory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gladient.cli.numbers import File, Floats, Whole, Wholes

if TYPE_CHECKING:
    from gladient.prompts import MultitaskSetting

__all__ = ["SettingOptions", "require_memory"]

_KEYS = ("n", "r", "d", "rho", "spectrum", "sigma2", "R", "Sigma")


@dataclass(frozen=True, kw_only=True)
class SettingOptions:
    """A multitask setting, typed on the command line or read from a file."""

    n: Wholes = ()
    """Examples of each task, in prompt order."""
    r: Floats = ()
    """Correlation of each task with the query's task."""
    d: Whole | None = None
    """Number of features; left out when --spectrum is given."""
    rho: Floats = ()
    """Correlations between tasks: one number for every pair, or ρ12 ρ13 … ρ23 … (upper triangle, row by row);
    left out: uncorrelated."""
    spectrum: Floats = ()
    """Eigenvalues of the features' covariance Σ; left out: all 1."""
    sigma2: float = 0.0
    """Variance of the label noise."""
    setting: File | None = None
    """JSON or YAML file with any of n, r, d, rho, spectrum, sigma2, or whole matrices R and Sigma, instead of the
    options above."""

    def load(self) -> "MultitaskSetting":
        """The setting, checked."""
        typed = {name: value for name in _KEYS[:6] if (value := getattr(self, name)) not in ((), None)}
        if self.setting is None:
            return _build(typed)
        if set(typed) > {"sigma2"} or self.sigma2 != 0.0:
            raise ValueError(f"both --setting and --{sorted(typed)[0]} are given; a setting comes from one of them")
        return _build(_read(self.setting))


def require_memory(numbers: float, what: str) -> None:
    """Stop before the work starts if `numbers` floats do not fit into this machine's memory.

    Raises:
        ValueError: if they do not.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 8.0 * numbers > memory:
        raise ValueError(
            f"{what} needs about {8.0 * numbers / 2**30:.3g} GiB and this machine has {memory / 2**30:.3g} GiB: "
            "make it smaller"
        )


def _read(path: Path) -> dict[str, Any]:
    from gladient.cli.read import read_object

    content = read_object(path)
    if not set(content) <= set(_KEYS):
        raise ValueError(f"{path} holds the keys {', '.join(sorted(content))}; they must be among {', '.join(_KEYS)}")
    for name, value in content.items():
        depth = {"d": 0, "sigma2": 0, "R": 2, "Sigma": 2}.get(name, 1)
        if not _is_numbers(value, depth):
            wanted = ("a number", "a list of numbers", "a list of lists of numbers")[depth]
            raise ValueError(f"{path} has {name} = {value!r}; it must be {wanted}")
    return content


def _is_numbers(value: Any, depth: int) -> bool:
    if depth > 0:
        return isinstance(value, list) and all(_is_numbers(entry, depth - 1) for entry in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _build(options: dict[str, Any]) -> "MultitaskSetting":
    import numpy as np

    from gladient.prompts import MultitaskSetting, correlation_matrix

    for name in ("n", "r"):
        if name not in options:
            raise ValueError(f"--{name} is missing; list one number per task, e.g. --n 25 25 --r 0.2 0.8")
    for name, matrix in (("rho", "R"), ("spectrum", "Sigma"), ("d", "Sigma")):
        if name in options and matrix in options:
            raise ValueError(f"both {name} and {matrix} are given; they say the same thing: leave one out")
    K = len(options["n"])
    size = len(options["Sigma"]) if "Sigma" in options else _features(options)
    # Four matrices of that size exist at once, and LAPACK's work space.
    require_memory(6.0 * (float(size) * float(size) + K**2), f"a setting with {K} tasks and {size:g} features")
    return MultitaskSetting(
        n=options["n"],
        R=options["R"] if "R" in options else correlation_matrix(options.get("rho", ()), K),
        r=options["r"],
        Sigma=options["Sigma"] if "Sigma" in options else np.diag(options.get("spectrum") or [1.0] * size),
        sigma2=options.get("sigma2", 0.0),
    )


def _features(options: dict[str, Any]) -> int:
    """How many features --d or --spectrum describe."""
    d, spectrum = options.get("d"), options.get("spectrum", ())
    if d is None and not spectrum:
        raise ValueError(
            "neither --d nor --spectrum is given; one of them must say how many features there are: --d 10"
        )
    if d is not None and not (1 <= d < float("inf") and d == int(d)):
        raise ValueError(f"--d is {d!r}; it must be a whole number ≥ 1")
    if d is not None and spectrum and len(spectrum) != d:
        raise ValueError(f"--d is {d} but --spectrum lists {len(spectrum)} eigenvalues; they must agree: leave --d out")
    if min(spectrum, default=0.0) < 0.0:
        raise ValueError(f"--spectrum lists {min(spectrum)}; the variance along a direction is never below 0")
    return len(spectrum) or int(d or 0)
