"""Answers for any face, in words and numbers: rungs, layers, what is proved, the risk of all weights, planes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
