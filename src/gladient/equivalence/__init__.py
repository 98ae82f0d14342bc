"""Algorithm and network, both ways: WPGD becomes weights, and weights with a prompt become WPGD and what is left."""

from gladient.equivalence.construction import construct, solve_gates
from gladient.equivalence.delta_construction import construct_delta
from gladient.equivalence.delta_extraction import DeltaExtraction, extract_delta
from gladient.equivalence.extraction import Extraction, Factor, extract, residual_model

__all__ = [
    "DeltaExtraction",
    "Extraction",
    "Factor",
    "construct",
    "construct_delta",
    "extract",
    "extract_delta",
    "residual_model",
    "solve_gates",
]
