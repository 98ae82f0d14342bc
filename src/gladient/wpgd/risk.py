"""The risk of an algorithm given the features alone: tasks and noise are averaged exactly."""

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient.prompts import MultitaskSetting, PromptLayout
from gladient.wpgd.delta import DeltaRule
from gladient.wpgd.steps import WPGD, Step

__all__ = ["conditional_risk", "label_weights", "risk_given_features"]


@outside_autocast
def label_weights(algorithm: WPGD | DeltaRule, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T"]:
    r"""What each label counts in the query's prediction, $\hat y = \sum_j w_j y_j$: both algorithms are linear in y.

    For WPGD,

    $$ e_{\ell+1} = (I - A_\ell)\,e_\ell, \quad A_{\ell,ij} = (P_q^\top x_i \odot \Omega_{ij})^\top P_k^\top x_j,
       \quad w = \mathbb 1_T - \mathbb 1_T (I - A_L) \cdots (I - A_1) $$

    Source: derived: the label channel of the residual layers, read backwards.

    >>> step = Step(torch.eye(1), torch.eye(1) / 4, torch.ones(3, 3).tril()[None, :, :, None])
    >>> label_weights(WPGD((step,)), torch.ones(1, 3, 1)).tolist()
    [[0.25, 0.25, 0.25]]
    """
    if isinstance(algorithm, DeltaRule):
        return algorithm.label_weights(x)
    query = torch.zeros_like(x[..., 0])
    query[:, -1] = 1.0
    # a row of T numbers goes through the product from the left: the T by T matrices are never multiplied
    row = query
    for step in reversed(algorithm.steps):
        row = row - _pulled_back(step, x, row)
    return query - row


@outside_autocast
def risk_given_features(
    weights: Float[Tensor, "B T"], x: Float[Tensor, "B T d"], setting: MultitaskSetting
) -> Float[Tensor, " B"]:
    r"""The expected squared error of $\hat y = \sum_j w_j y_j$ given the features, over tasks and noise.

    $$ \|x\|^2 + \sigma^2 - 2\sum_k r_k\, s_k^\top x + \sum_{kl} R_{kl}\, s_k^\top s_l + \sigma^2 \|w\|^2,
       \quad s_k = \sum_{j \in k} w_j x_j $$

    Args:
        weights: w; only those of examples count.
        x: features of a prompt's tokens, the query last.
        setting: the tasks' correlations and the noise.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[1], r=[0.5], d=1)
    >>> x = torch.tensor([[[2.0], [0.0], [1.0]]])  # example, delimiter, query
    >>> risk_given_features(torch.tensor([[0.25, 0.0, 0.0]]), x, setting).tolist()  # 1 - 2 · ½ · ½ + ¼
    [0.75]
    """
    blocks = PromptLayout.of(setting).blocks
    R, r = (torch.tensor(value, dtype=x.dtype, device=x.device) for value in (setting.R, setting.r))
    s = torch.stack([(weights[:, block, None] * x[:, block]).sum(1) for block in blocks], 1)
    query = x[:, -1]
    told = torch.einsum("k,bkd,bd->b", r, s, query)
    noise = setting.sigma2 * (1.0 + sum(weights[:, block].square().sum(1) for block in blocks))
    return query.square().sum(1) + noise - 2 * told + torch.einsum("kl,bkd,bld->b", R, s, s)


def conditional_risk(
    algorithm: WPGD | DeltaRule, x: Float[Tensor, "B T d"], setting: MultitaskSetting
) -> Float[Tensor, " B"]:
    """The algorithm's expected squared error on each prompt given its features; its mean over prompts is the risk."""
    return risk_given_features(label_weights(algorithm, x), x, setting)


def _pulled_back(step: Step, x: Float[Tensor, "B T d"], row: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The row times the step's matrix A."""
    queries, keys, Omega = row[..., None] * (x @ step.P_q), x @ step.P_k, step.matrix
    # one weight for all directions: two products of matrices, no array [B, T, T, m]
    if Omega.shape[3] == 1:
        return (Omega[..., 0] * (queries @ keys.mT)).sum(1)
    return torch.einsum("bim,bijm,bjm->bj", queries, Omega.expand(len(x), -1, -1, -1), keys)
