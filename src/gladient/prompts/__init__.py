"""The data: multitask settings, their prompts as token matrices, and seeded sampling."""

from gladient.prompts._setting import MultitaskSetting

__all__ = ["MultitaskSetting"]
