"""gladient: gated linear attention shown as the gradient descent it performs.

Import the rooms you need: `gladient.ops`, `gladient.prompts`, `gladient.landscape`, `gladient.nn`,
`gladient.wpgd`, `gladient.equivalence`, `gladient.training`, `gladient.experiments`.
The theory (`prompts.MultitaskSetting`, `landscape`) does not import torch.
"""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("gladient")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
