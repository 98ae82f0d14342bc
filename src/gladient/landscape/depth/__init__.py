"""Several layers: the exact risk of any stack, the best stack of each kind of gate, and what no depth goes below."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
