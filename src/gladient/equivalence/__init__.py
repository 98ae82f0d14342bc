"""Algorithm and network, both ways: WPGD becomes weights, and weights with a prompt become WPGD and what is left."""

from gladient.equivalence._construct import construct, solve_gates
from gladient.equivalence._construct_delta import construct_delta
from gladient.equivalence._delta import DeltaExtraction, extract_delta
from gladient.equivalence._extract import Extraction, Factor, extract, residual_model

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
