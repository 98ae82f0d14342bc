"""What a search over the delta rule's steps asks of a setting, and which of the two models answers."""

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias, runtime_checkable

from gladient._types import Array, Float
from gladient.landscape.delta.decays import best_decays
from gladient.landscape.delta.diagonal import Diagonal
from gladient.landscape.delta.isotropic import Isotropic, is_isotropic
from gladient.landscape.gates.reduced import Reduced

__all__ = ["Model", "Score", "model_of"]

Score: TypeAlias = Callable[[Array], tuple[Array, Array]]  # steps [G, K] → risks [G] and decays [G, K]


@runtime_checkable
class Model(Protocol):
    """The exact risk of a setting, its steps in units in which the features' variances are about 1."""

    @property
    def n(self) -> Float[Array, " K"]:
        """Examples of each task."""

    @property
    def d(self) -> int:
        """Number of features."""

    @property
    def step_unit(self) -> float:
        """What a step of 1 is in the units of the setting."""

    @property
    def bound(self) -> float:
        """Largest stable step; near half of it the error of one noiseless task shrinks most."""

    def risks(self, steps: Float[Array, "G K"], decays: Float[Array, "G K"]) -> Float[Array, " G"]:
        """Risk after the best read-out, of many steps and decays at once."""


def model_of(reduced: Reduced, keys: str) -> tuple[Model, Score | None]:
    """The model of a setting, and what gives rows of steps their best decays: None where these have to be searched.

    Raises:
        ValueError: if the keys are unknown, or Σ is not a multiple of I and the keys are not gaussian.
    """
    if keys == "gaussian" and not is_isotropic(reduced):
        return Diagonal.of(reduced), None
    model = Isotropic.of(reduced, keys, f'keys="{keys}" have an exact risk for Σ ∝ I alone: use keys="gaussian"')
    return model, partial(best_decays, model)
