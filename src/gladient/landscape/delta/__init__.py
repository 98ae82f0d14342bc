"""The delta rule in context: its exact risk, the best steps and decays, and the cases with a closed form."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
