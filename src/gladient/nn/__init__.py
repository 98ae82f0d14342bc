"""Networks: gates from tokens, the attention layer, its prediction head, the residual model, the family's presets."""

from gladient.nn import presets
from gladient.nn._config import Gate, LayerConfig
from gladient.nn._gate import TokenGate
from gladient.nn._layer import GatedLinearAttention
from gladient.nn._regressor import InContextRegressor
from gladient.nn._residual import ResidualLayer, ResidualModel

__all__ = [
    "Gate",
    "GatedLinearAttention",
    "InContextRegressor",
    "LayerConfig",
    "ResidualLayer",
    "ResidualModel",
    "TokenGate",
    "presets",
]
