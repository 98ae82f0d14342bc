"""This package's kernels inside other people's models."""

from gladient.integrations import transformers

__all__ = ["transformers"]
