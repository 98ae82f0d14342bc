from ._layout import PromptLayout
from ._sampling import Prompts, PromptSampler
from ._setting import MultitaskSetting, correlation_matrix

__all__ = ["MultitaskSetting", "PromptLayout", "PromptSampler", "Prompts", "correlation_matrix"]
