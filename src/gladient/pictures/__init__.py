"""What all pictures share: one colour and marker for each gate family, panels, heat maps, and files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
