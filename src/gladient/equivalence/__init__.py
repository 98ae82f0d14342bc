"""Algorithm and network, both ways: WPGD becomes weights, and weights with a prompt become WPGD and what is left."""

from gladient.equivalence.construction import construct, solve_gates
from gladient.equivalence.delta_construction import construct_delta
from gladient.equivalence.delta_extraction import DeltaExtraction, extract_delta
from gladient.equivalence.extraction import Extraction, Factor, extract, residual_model
from gladient.equivalence.rotation import construct_rotating_delta, construct_rotating_gate, turns
from gladient.equivalence.stack_construction import construct_stack
from gladient.equivalence.stack_extraction import extract_stack

__all__ = [
    "DeltaExtraction",
    "Extraction",
    "Factor",
    "construct",
    "construct_delta",
    "construct_rotating_delta",
    "construct_rotating_gate",
    "construct_stack",
    "extract",
    "extract_delta",
    "extract_stack",
    "residual_model",
    "solve_gates",
    "turns",
]
