"""Seeded, batched sampling of multitask prompts in torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient._linalg import psd_factor
from gladient._types import Array
from gladient.prompts.layout import PromptLayout
from gladient.prompts.setting import MultitaskSetting

__all__ = ["PromptSampler", "Prompts"]


@dataclass(frozen=True)
class Prompts:
    """G groups of prompts, each drawn by its own generator and read under P settings.

    Attributes:
        tokens: the prompts, [G, B, T, D]; the query's token is the last.
        targets: the query's y, [G·P, B]; rows g·P … g·P + P - 1 belong to group g, one for each setting.
    """

    tokens: Float[Tensor, "G B T D"]
    targets: Float[Tensor, "GP B"]


class PromptSampler:
    r"""Draws prompts of settings that differ in r alone.

    The P settings see the same contexts, since only the query's task depends on r:
    $\beta = \sum_k (R^+ r)_k \beta_k + \sqrt{1 - r^\top R^+ r}\; \xi$ with $\xi \sim N(0, I)$ shared too. Each
    setting's prompts have exactly the distribution that it states; prompts of different settings are correlated.

    Args:
        settings: one or more settings with equal n, R, Sigma and sigma2.
        contextual: whether tokens carry contextual features and so can tell delimiters apart.
        marks: which feature the examples carry; see `PromptLayout`.
        delimiters: whether a delimiter follows each task.
        dtype: floating type of the tokens.
        device: where prompts are drawn.

    Raises:
        ValueError: if there is no setting, or they differ in more than r.

    Source: the data model of arXiv 2504.04308, section 4; the shared contexts are ours.

    >>> setting = MultitaskSetting.isotropic(n=[3, 2], r=[0.2, 0.8], d=4)
    >>> prompts = PromptSampler([setting]).draw(8, [torch.Generator().manual_seed(0)])
    >>> tuple(prompts.tokens.shape), tuple(prompts.targets.shape)
    ((1, 8, 8, 8), (1, 8))
    """

    def __init__(
        self,
        settings: Sequence[MultitaskSetting],
        *,
        contextual: bool = True,
        marks: str = "shared",
        delimiters: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        _check_shared(settings)
        first = settings[0]
        self.layout = PromptLayout.of(first, contextual=contextual, marks=marks, delimiters=delimiters)
        self.noise = float(np.sqrt(first.sigma2))

        def place(array: Array) -> Tensor:
            return torch.as_tensor(array, dtype=dtype, device=device)

        self.template = place(self.layout.template)
        # Of the identity, a product per batch is saved.
        self.feature_factor, self.task_factor = (
            None if np.array_equal(matrix, np.eye(len(matrix))) else place(psd_factor(matrix))
            for matrix in (first.Sigma, first.R)
        )
        self.query_weights = place(_query_weights(first.R, np.stack([setting.r for setting in settings])))

    @outside_autocast
    def draw(self, batch: int, generators: Sequence[torch.Generator]) -> Prompts:
        """Draw `batch` prompts per generator; a generator's state alone decides which."""
        groups = [self._draw_group(batch, generator) for generator in generators]
        if len(groups) == 1:
            tokens, targets = groups[0]
            return Prompts(tokens[None], targets)  # a view: no copy in the usual case
        return Prompts(torch.stack([tokens for tokens, _ in groups]), torch.cat([targets for _, targets in groups]))

    def _draw_group(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        d, tasks = self.layout.d, len(self.layout.n)
        # Draw in this order: features, tasks, then each task's noise. In another, a seed gives other prompts.
        features = self._features(batch, generator)
        betas = self._normal((batch, tasks + 1, d), generator)
        if self.task_factor is not None:
            betas[:, :tasks] = self.task_factor @ betas[:, :tasks]
        tokens = self.template.repeat(batch, 1, 1)
        for k, (block, x) in enumerate(zip(self.layout.blocks, features.split([*self.layout.n, 1], 1), strict=False)):
            tokens[:, block, :d] = x
            tokens[:, block, d] = self._labels(torch.bmm(x, betas[:, k, :, None])[..., 0], generator)
        query = features[:, -1]
        tokens[:, -1, :d] = query
        by_task = torch.bmm(betas, query[:, :, None])[..., 0]
        return tokens, self._labels(self.query_weights @ by_task.T, generator)

    def _labels(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return clean + self.noise * self._normal(clean.shape[-2:], generator) if self.noise else clean

    def _features(self, batch: int, generator: torch.Generator) -> Tensor:
        white = self._normal((batch, sum(self.layout.n) + 1, self.layout.d), generator)
        return white if self.feature_factor is None else white @ self.feature_factor

    def _normal(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=self.template.dtype, device=self.template.device)


def _check_shared(settings: Sequence[MultitaskSetting]) -> None:
    if not settings:
        raise ValueError("no setting was given; a sampler needs at least one")
    for setting in settings[1:]:
        for name in ("n", "R", "Sigma", "sigma2"):
            if not np.array_equal(getattr(setting, name), getattr(settings[0], name)):
                raise ValueError(f"the settings differ in {name}; settings that share contexts may differ in r alone")


def _query_weights(R: Float[Array, "K K"], r: Float[Array, "P K"]) -> Float[Array, "P K1"]:
    """Weights of the K tasks and of ξ in the query's task, for each setting."""
    # R may be singular, as where two tasks are one. Eigenvalues below 1e-12 are rounding, and their inverse would be
    # noise.
    weights = r @ np.linalg.pinv(R, rcond=1e-12, hermitian=True)
    spread = np.sqrt(np.clip(1.0 - (weights * r).sum(1), 0.0, None))
    return np.column_stack([weights, spread])
