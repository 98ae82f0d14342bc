"""The delta rule in context: the query that writes too, the critical step, and what the searches return.

`landscape` itself has what answers first: `delta_risk`, `delta_rule`, `gated_delta_rule`, `delta_rule_batch` and
`delta_schedule`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
