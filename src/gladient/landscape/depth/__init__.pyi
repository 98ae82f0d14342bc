from .best import StackGates, best_stack
from .bound import depth_bound, depth_floor, marked_layers
from .diagonal import DiagonalSteps, best_two_layers_diagonal, two_layers_diagonal
from .full import FullSteps, full_steps
from .laws import long_prompt_share, one_task_share, proportional_share
from .pair import TwoLayersBatch, two_layers_batch
from .result import BestStack, Bound, StackCertificate
from .risk import StackRisk, best_readout, stack_risk
from .stack import Stack

__all__ = [
    "stack_risk",
    "best_readout",
    "best_stack",
    "depth_bound",
    "depth_floor",
    "full_steps",
    "marked_layers",
    # two layers: many settings, and other features
    "two_layers_batch",
    "two_layers_diagonal",
    "best_two_layers_diagonal",
    # one task
    "one_task_share",
    "proportional_share",
    "long_prompt_share",
    # what they take and return
    "Stack",
    "StackGates",
    "StackRisk",
    "BestStack",
    "StackCertificate",
    "Bound",
    "FullSteps",
    "DiagonalSteps",
    "TwoLayersBatch",
]
