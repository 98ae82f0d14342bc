"""What weighted steps can reach: the best weights of each gate family, and the landscape that they lie in.

`landscape` has the functions; here is what some of them return.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
