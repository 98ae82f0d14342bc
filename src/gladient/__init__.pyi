from . import (
    answers,
    data,
    equivalence,
    experiments,
    explore,
    integrations,
    landscape,
    lens,
    nn,
    ops,
    pictures,
    prompts,
    training,
    wpgd,
)

__all__ = [
    "answers",
    "data",
    "equivalence",
    "experiments",
    "explore",
    "integrations",
    "landscape",
    "lens",
    "nn",
    "ops",
    "pictures",
    "prompts",
    "training",
    "wpgd",
]
__version__: str
