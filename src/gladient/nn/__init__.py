"""Networks: gates from tokens, the attention layer, and its prediction head."""

from gladient.nn._gate import TokenGate
from gladient.nn._layer import GatedLinearAttention
from gladient.nn._regressor import InContextRegressor

__all__ = ["GatedLinearAttention", "InContextRegressor", "TokenGate"]
