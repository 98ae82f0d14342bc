from .batch import OptimumBatch
from .gradients import Gradients
from .order import Order
from .result import Certificate
from .stationary import StationaryPoint, Uniqueness

__all__ = ["Certificate", "Gradients", "OptimumBatch", "Order", "StationaryPoint", "Uniqueness"]
