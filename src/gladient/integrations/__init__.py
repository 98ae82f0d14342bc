"""This package's kernels inside other people's models."""

__all__: list[str] = []
