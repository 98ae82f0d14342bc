"""Fails if shapes are not checked at run time: the jaxtyping hook is off or no longer wraps the package."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from gladient.landscape.delta.decays import ratios
from gladient.prompts import PromptLayout
from gladient.prompts.sampling import _query_weights


def test_wrong_shapes_are_caught() -> None:
    with pytest.raises(TypeCheckError):
        _query_weights(np.ones((2, 3)), np.ones((1, 2)))


def test_shapes_of_the_theory_are_caught() -> None:
    with pytest.raises(TypeCheckError):
        ratios(np.ones(3))


def test_wrong_types_are_caught() -> None:
    with pytest.raises(TypeCheckError):
        PromptLayout(n="two", d=1)  # type: ignore[arg-type]
