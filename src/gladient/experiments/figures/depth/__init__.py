"""Depth: layers as steps of the algorithm."""
