"""The delta rule in context: many settings at once, steps that change, the query that writes too, its relatives.

`landscape` itself has what answers first: `delta_risk`, `delta_rule`, `gated_delta_rule`, `filter_floor` and
`any_key_floor`; what they return is here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
