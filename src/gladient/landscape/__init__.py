"""Exact theory: the risk of weighted preconditioned gradient descent, and the best that each gate family can reach."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
