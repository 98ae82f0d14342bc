"""The delta rule in context: many settings at once, steps that change, the query that writes too, and what is returned.

`landscape` itself has what answers first: `delta_risk`, `delta_rule` and `gated_delta_rule`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
