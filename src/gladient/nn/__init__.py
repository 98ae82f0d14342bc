"""Networks: gates from tokens, the attention layer, its prediction head, the residual model, the family's presets."""

from gladient.nn import presets
from gladient.nn.config import Gate, LayerConfig
from gladient.nn.gate import TokenGate
from gladient.nn.layer import GatedLinearAttention
from gladient.nn.regressor import InContextRegressor
from gladient.nn.residual import ResidualLayer, ResidualModel

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
