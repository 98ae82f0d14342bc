"""The data: multitask settings, their prompts as token matrices, and seeded sampling.

`MultitaskSetting` and `PromptLayout` are NumPy alone; the sampler needs torch and is imported when it is first asked
for, so that the theory, which needs only settings, answers without waiting for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
