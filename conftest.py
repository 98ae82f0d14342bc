"""Imports tyro before any doctest: it hashes `builtins._`, and fails where a doctest has left a list there."""

import tyro

__all__ = ["tyro"]
