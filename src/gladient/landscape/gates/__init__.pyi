from .batch import OptimumBatch
from .fixed_rotation import FixedRotation
from .gradients import Gradients
from .order import Order
from .result import Certificate
from .rotating_gate import RotatingGate
from .stationary import StationaryPoint, Uniqueness

__all__ = [
    "Certificate",
    "FixedRotation",
    "Gradients",
    "OptimumBatch",
    "Order",
    "RotatingGate",
    "StationaryPoint",
    "Uniqueness",
]
