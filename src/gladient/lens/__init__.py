"""The lens: the token weights that the gates of a real model induce, proved by rebuilding each layer's own output."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
