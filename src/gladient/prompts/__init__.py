"""The data: multitask settings, their prompts as token matrices, and seeded sampling.

`MultitaskSetting` and `PromptLayout` are NumPy alone; the sampler needs torch and is imported when it is first asked
for, so that the theory, which needs only settings, answers without waiting for torch.
"""

from typing import TYPE_CHECKING, Any

from gladient.prompts._layout import PromptLayout
from gladient.prompts._setting import MultitaskSetting, correlation_matrix

if TYPE_CHECKING:
    from gladient.prompts._sampling import Prompts, PromptSampler

__all__ = ["MultitaskSetting", "PromptLayout", "PromptSampler", "Prompts", "correlation_matrix"]


def __getattr__(name: str) -> Any:
    if name in ("PromptSampler", "Prompts"):
        from gladient.prompts import _sampling

        return getattr(_sampling, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
