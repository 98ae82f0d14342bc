"""How closely results must agree, in one table."""

from typing import Any

import torch

# dtype of the inputs: relative and absolute tolerance. Absolute ones stand for cancellation in sums of order 1.
TOLERANCES: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-11},
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}
