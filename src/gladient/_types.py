"""Names for the arrays that cross module borders; shapes are written with jaxtyping."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "ArrayLike"]

Array: TypeAlias = NDArray[np.float64]
ArrayLike: TypeAlias = NDArray[Any] | Sequence[Any] | float | int
