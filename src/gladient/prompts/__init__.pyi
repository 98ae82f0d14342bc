from .layout import PromptLayout
from .sampling import Prompts, PromptSampler
from .setting import MultitaskSetting, correlation_matrix

__all__ = ["MultitaskSetting", "PromptLayout", "PromptSampler", "Prompts", "correlation_matrix"]
