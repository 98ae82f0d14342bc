"""gladient: gated linear attention shown as the gradient descent it performs.

Rooms are imported when they are first asked for, so that the theory (`prompts.MultitaskSetting`, `landscape`) answers
without waiting for torch. `__init__.pyi` lists them, for type checkers too.

>>> import gladient
>>> setting = gladient.prompts.MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)
>>> round(gladient.landscape.optimum(setting).risk, 4)
5.2778
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
