"""What a sweep goes through: a grid of settings, models and seeds, from a YAML file or from Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from gladient.experiments.engine.experiment import Config
from gladient.experiments.models.kinds import check_model
from gladient.experiments.models.stack import NamedSetting, spaced
from gladient.training import TrainingConfig

__all__ = ["AXES", "SweepConfig", "read_grid"]

_MOST_FEATURES = 10_000  # a model's keys read each of them
AXES = ("n", "r", "d", "spectrum", "rho", "sigma2")
"""The parts of a setting that a sweep may vary."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig(Config):
    """What decides a sweep's numbers: every combination of these values is a setting, and every model is trained on it.

    Args:
        n: examples of each task, for each kind of prompt.
        r: correlations of each task with the query's.
        d: numbers of features, of variance 1.
        spectrum: variances of the features, in place of d.
        rho: correlations between tasks: none, one for every pair, or the upper triangle.
        sigma2: noise variances.
        models: names in `experiments.MODELS`.

    Raises:
        ValueError: if an axis has no value, a model is unknown or has no exact risk for a spectrum, d and spectrum are
            both given, or no combination of correlations can occur.
    """

    n: tuple[tuple[int, ...], ...]
    r: tuple[tuple[float, ...], ...]
    d: tuple[int, ...] = ()
    spectrum: tuple[tuple[float, ...], ...] = ()
    rho: tuple[tuple[float, ...], ...] = ((),)
    sigma2: tuple[float, ...] = (0.0,)
    models: tuple[str, ...] = ("linear_attention", "scalar_gate", "value_gate")
    test_prompts: int = 2**17

    def __post_init__(self) -> None:
        super().__post_init__()
        for model, spectrum in product(self.models, self.spectrum or ((1.0,),)):
            check_model(model, spectrum)
        if bool(self.d) == bool(self.spectrum):
            raise ValueError("a sweep needs d (numbers of features) or spectrum (their variances), and not both")
        for name in ("n", "r", "rho", "sigma2", "models"):
            if not getattr(self, name):
                raise ValueError(f"{name} lists nothing; give at least one value")
        tasks = {len(one) for one in (*self.n, *self.r)}
        if len(tasks) > 1:
            raise ValueError(f"n and r list {sorted(tasks)} tasks; all of a sweep must have the same number of tasks")
        if not all(1 <= d <= _MOST_FEATURES for d in self.d):
            raise ValueError(f"d is {list(self.d)}; each must be a whole number from 1 to {_MOST_FEATURES}")
        if not self.grid():
            raise ValueError("no combination of r and rho can occur: [[R, r], [rᵀ, 1]] must be positive semidefinite")

    def grid(self) -> list[tuple[NamedSetting, ...]]:
        """The settings that can occur; those that differ in r alone stand together."""
        spectra = self.spectrum or tuple((1.0,) * d for d in self.d)
        found = []
        for n, spectrum, rho, sigma2 in product(self.n, spectra, self.rho, self.sigma2):
            panels = [NamedSetting(spaced(r), n, r, spectrum, rho, sigma2) for r in self.r]
            if possible := tuple(panel for panel in panels if _occurs(panel)):
                found.append(possible)
        return found

    @property
    def left_out(self) -> int:
        """How many settings cannot occur, as their correlations contradict one another."""
        every = len(self.n) * len(self.r) * len(self.spectrum or self.d) * len(self.rho) * len(self.sigma2)
        return every - sum(map(len, self.grid()))


def read_grid(content: Mapping[str, Any], **changes: Any) -> SweepConfig:
    """A sweep's config from the content of its file.

    Args:
        content: keys are those of `SweepConfig`. An axis holds one value or a list of values. n, r and spectrum are
            lists themselves, so theirs is one list, or a list of lists; rho's are numbers, one for every pair of
            tasks, or lists.
        changes: fields that are set in place of the file's.

    Raises:
        ValueError: if a key is unknown, a value has another type, or `SweepConfig` refuses it.

    >>> grid = read_grid({"n": [[5, 5], [10, 10]], "r": [0.2, 0.8], "d": 4, "models": ["scalar_gate"]})
    >>> grid.n, grid.r, grid.d
    (((5, 5), (10, 10)), ((0.2, 0.8),), (4,))
    """
    known = [one.name for one in fields(SweepConfig)]
    for key in content:
        if key not in known:
            raise ValueError(f"a sweep has no {key!r}; it may have {', '.join(known)}")
    for key in ("n", "r"):
        if key not in content:
            raise ValueError(f"the sweep lacks {key}; list one number for each task, e.g. {key}: [[25, 25], [50, 50]]")
    read: dict[str, Any] = {**content, **changes}
    for name in set(read) & {"n", "r", "spectrum", "rho"}:
        listed = _listed(name, read[name])
        several = name == "rho" or any(isinstance(one, Sequence) for one in listed)
        read[name] = tuple(_numbers(name, one) for one in (listed if several else [listed]))
    for name in set(read) & {"d", "sigma2"}:
        read[name] = _numbers(name, _listed(name, read[name]))
    if "models" in read:
        read["models"] = tuple(map(str, _listed("models", read["models"])))
    if "training" in read:
        read["training"] = _training(read["training"])
    for name in ("seeds", "test_prompts"):
        if not isinstance(read.get(name, 1), int):
            raise ValueError(f"{name} is {read[name]!r}; it must be a whole number")
    return SweepConfig(**read)


def _listed(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    if isinstance(value, str) and name != "models":
        raise ValueError(f"{name} is {value!r}; it must be a number, or a list of numbers")
    return [value]


def _numbers(name: str, values: Any) -> tuple[Any, ...]:
    listed = _listed(name, values)
    kind: type[int] | type[float] = int if name in ("n", "d") else float
    for value in listed:
        if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and value % 1):
            raise ValueError(f"{name} holds {value!r}; it must hold {'whole ' if kind is int else ''}numbers")
    return tuple(map(kind, listed))


def _training(content: Any) -> TrainingConfig:
    if not isinstance(content, Mapping):
        raise ValueError(f"training is {content!r}; it must be a mapping, e.g. training: {{steps: 800}}")
    known = [one.name for one in fields(TrainingConfig)]
    for key in content:
        if key not in known:
            raise ValueError(f"training has no {key!r}; it may have {', '.join(known)}")
    return TrainingConfig(**content)


def _occurs(panel: NamedSetting) -> bool:
    try:
        panel.setting  # noqa: B018  (it checks itself)
    except ValueError as error:
        if "positive semidefinite" in str(error):
            return False
        raise
    return True
