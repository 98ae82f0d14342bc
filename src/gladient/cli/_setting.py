"""Options that describe a multitask setting, shared by the commands of the theory."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gladient.prompts import MultitaskSetting

__all__ = ["SettingOptions", "require_memory"]

_KEYS = ("n", "r", "d", "rho", "spectrum", "sigma2", "R", "Sigma")


@dataclass(frozen=True, kw_only=True)
class SettingOptions:
    """A multitask setting, typed on the command line or read from a file."""

    n: tuple[int, ...] = ()
    """Examples of each task, in prompt order."""
    r: tuple[float, ...] = ()
    """Correlation of each task with the query's task."""
    d: int | None = None
    """Number of features; left out when --spectrum is given."""
    rho: tuple[float, ...] = ()
    """Correlations between tasks: one number for every pair, or ρ12 ρ13 … ρ23 … (upper triangle, row by row);
    left out: uncorrelated."""
    spectrum: tuple[float, ...] = ()
    """Eigenvalues of the features' covariance Σ; left out: all 1."""
    sigma2: float = 0.0
    """Variance of the label noise."""
    setting: Path | None = None
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
    if not path.is_file():
        raise ValueError(f"--setting is {path}, which is no file; give a JSON or YAML file, or --n, --r and --d")
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml"):
        import yaml

        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    else:
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not set(content) <= set(_KEYS):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} holds {found}; it must be one object with keys among {', '.join(_KEYS)}")
    return content


def _build(options: dict[str, Any]) -> "MultitaskSetting":
    import numpy as np

    from gladient.prompts import MultitaskSetting, correlation_matrix

    for name in ("n", "r"):
        if name not in options:
            raise ValueError(f"--{name} is missing; list one number a task, e.g. --n 25 25 --r 0.2 0.8")
    for name in set(options) & {"n", "r", "rho", "spectrum", "R", "Sigma"}:
        if not isinstance(options[name], list | tuple) or any(isinstance(entry, str) for entry in options[name]):
            raise ValueError(f"{name} is {options[name]!r}; it must be a list of numbers")
    for name, matrix in (("rho", "R"), ("spectrum", "Sigma"), ("d", "Sigma")):
        if name in options and matrix in options:
            raise ValueError(f"both {name} and {matrix} are given; they say the same thing: leave one out")
    K = len(options["n"])
    size = len(options["Sigma"]) if "Sigma" in options else len(options.get("spectrum", ())) or options.get("d", 1)
    if isinstance(size, int) and size > 0:
        require_memory(6.0 * (size**2 + K**2), f"a setting with {K} tasks and {size} features")
    return MultitaskSetting(
        n=options["n"],
        R=options["R"] if "R" in options else correlation_matrix(tuple(options.get("rho", ())), K),
        r=options["r"],
        Sigma=options["Sigma"] if "Sigma" in options else np.diag(_eigenvalues(options)),
        sigma2=options.get("sigma2", 0.0),
    )


def _eigenvalues(options: dict[str, Any]) -> tuple[float, ...]:
    d, spectrum = options.get("d"), tuple(options.get("spectrum", ()))
    if d is None and not spectrum:
        raise ValueError(
            "neither --d nor --spectrum is given; one of them must say how many features there are: --d 10"
        )
    if d is not None and (isinstance(d, bool) or not isinstance(d, int) or d < 1):
        raise ValueError(f"--d is {d!r}; it must be a whole number ≥ 1")
    if d is not None and spectrum and len(spectrum) != d:
        raise ValueError(f"--d is {d} but --spectrum lists {len(spectrum)} eigenvalues; they must agree: leave --d out")
    return spectrum or (1.0,) * (d or 0)
