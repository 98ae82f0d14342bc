from . import (
    data,
    equivalence,
    experiments,
    explore,
    integrations,
    landscape,
    lens,
    nn,
    ops,
    prompts,
    training,
    wpgd,
)

__all__ = [
    "data",
    "equivalence",
    "experiments",
    "explore",
    "integrations",
    "landscape",
    "lens",
    "nn",
    "ops",
    "prompts",
    "training",
    "wpgd",
]
__version__: str
