"""Options that describe a multitask setting, shared by the commands of the theory."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gladient._text import did_you_mean
from gladient.answers import SETTING_KEYS, described
from gladient.cli.numbers import AnyFile, AnyReal, AnyWhole, Floats, Real, Wholes

if TYPE_CHECKING:
    from gladient.prompts import MultitaskSetting

__all__ = ["SettingOptions"]


@dataclass(frozen=True, kw_only=True)
class SettingOptions:
    """A multitask setting, typed on the command line or read from a file."""

    n: Wholes = ()
    """Examples of each task, in prompt order."""
    r: Floats = ()
    """Correlation of each task with the query's task."""
    d: AnyWhole = None
    """Number of features; left out with --spectrum."""
    rho: Floats = ()
    """Correlations between tasks: one for every pair, or the upper triangle, row by row; left out: 0."""
    spectrum: Floats = ()
    """Eigenvalues of the features' covariance Σ; left out: 1."""
    sigma2: Real = 0.0
    """Variance of the label noise."""
    drift: AnyReal = None
    """One task that moves, in place of --n --r --rho: what is left of it after each example, from 0 to 1."""
    T: AnyWhole = None
    """Examples of that task."""
    setting: AnyFile = None
    """JSON or YAML file with these, with matrices R and Sigma, or of gladient data --json."""

    def load(self) -> "MultitaskSetting":
        """The setting, checked."""
        typed = {name: value for name in SETTING_KEYS[:8] if (value := getattr(self, name)) not in ((), None)}
        if self.setting is None:
            return described(typed)
        if set(typed) > {"sigma2"} or self.sigma2 != 0.0:
            raise ValueError(f"both --setting and --{sorted(typed)[0]} are given; a setting comes from one of them")
        return described(_read(self.setting))


def _read(path: Path) -> dict[str, Any]:
    from gladient.cli.read import read_object

    content = read_object(path)
    if isinstance(content.get("setting"), dict):  # what `gladient data --json` prints
        content = content["setting"]
    for key in content:
        if key not in SETTING_KEYS:
            near = did_you_mean(key, SETTING_KEYS) or f"; its keys must be among {', '.join(SETTING_KEYS)}"
            raise ValueError(f"{path} holds the key {key!r}, which no setting has{near}")
    for name, value in content.items():
        depth = {"d": 0, "sigma2": 0, "drift": 0, "T": 0, "R": 2, "Sigma": 2}.get(name, 1)
        if not _is_numbers(value, depth):
            wanted = ("a number", "a list of numbers", "a list of lists of numbers")[depth]
            raise ValueError(f"{path} has {name} = {value!r}; it must be {wanted}")
    return content


def _is_numbers(value: Any, depth: int) -> bool:
    if depth > 0:
        return isinstance(value, list) and all(_is_numbers(entry, depth - 1) for entry in value)
    return isinstance(value, int | float) and not isinstance(value, bool)
