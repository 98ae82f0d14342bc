"""Names for the arrays that cross module borders; shapes are written with jaxtyping."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Array", "ArrayLike", "Bool", "Float", "Int"]

if TYPE_CHECKING:
    Array: TypeAlias = NDArray[np.float64]
    ArrayLike: TypeAlias = NDArray[Any] | Sequence[Any] | float | int
else:  # classes, as jaxtyping needs: numpy 2.5 makes of NDArray a TypeAliasType, on Python 3.12 and later
    Array = np.ndarray
    ArrayLike = np.ndarray | Sequence | float | int

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # its pytest hook checks the shapes
    from jaxtyping import Bool, Float, Int
else:  # nobody checks them; importing jaxtyping takes as long as NumPy

    class Float:
        """An array whose shape is written beside it: `Float[Array, "K K"]` is `Array`."""

        def __class_getitem__(cls, array_and_shape: tuple[Any, str]) -> Any:
            return array_and_shape[0]

    Bool = Int = Float
