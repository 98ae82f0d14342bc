"""gladient: gated linear attention shown as the gradient descent it performs.

Import the rooms you need: `gladient.ops`, `gladient.prompts`, `gladient.landscape`, `gladient.nn`,
`gladient.wpgd`, `gladient.equivalence`, `gladient.training`, `gladient.experiments`.
The theory (`prompts.MultitaskSetting`, `landscape`) does not import torch.
"""

from importlib.metadata import version as _version

__all__ = ["__version__"]

__version__ = _version("gladient")
