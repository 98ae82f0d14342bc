"""From the algorithm to the network that runs it."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient.nn import Gate, LayerConfig, ResidualModel
from gladient.prompts import PromptLayout
from gladient.wpgd import WPGD, Step, TaskWeights

__all__ = ["SHUT", "construct", "shown_features", "solve_gates"]

# The sigmoid of 40 differs from 1, and that of -40 from 0, by 4e-18; in float64 it is 1 from 53 ln 2 = 36.7 on. Larger
# logits would leave fewer digits to those between, which the same weights make.
SHUT = 40.0


@outside_autocast
def construct(algorithm: WPGD) -> ResidualModel:
    r"""The network whose layers are the algorithm's steps: one residual layer each, with no training.

    With the token $z = [x; y; c]$: $W_k = [P_k; 0]$, $W_q = [-P_q; 0]$, values read y and outputs are added to y, with
    the rows of value gates read by $\omega_{a+1} - \omega_a$. After ℓ layers the label of token i is
    $y_i - x_i^\top b_{i,\ell}$, and the prediction is minus the query's.

    Args:
        algorithm: steps whose weights are `TaskWeights` of one layout with contextual features. `Step.scaled` makes
            one from a preconditioner and task weights of any scale, such as `landscape.optimum` returns.

    Returns:
        A model of one member in the dtype of the steps.

    Raises:
        TypeError: if a step's weights are a tensor.
        ValueError: if the layouts differ or mark examples apart from the query, or their features do not set the
            delimiters apart.

    Convention: gates of 0 and 1 are sigmoids of ∓40, which differ from them by 4e-18.
    Source: arXiv 2504.04308, Theorem 1 (one layer) and the multi-layer theorem; rows and gate logits are derived.

    >>> from gladient.prompts import PromptLayout
    >>> layout = PromptLayout(n=(2, 2), d=3)
    >>> P, I = torch.eye(3).double() / 4, torch.eye(3).double()
    >>> step = Step.scaled(I, P, torch.tensor([0.2, 0.8]).double(), layout)
    >>> model = construct(WPGD((step, step)))
    >>> len(model.layers), model.layers[0].config.gate
    (2, 'scalar')
    """
    each = _task_weights(algorithm)
    layout = each[0].layout
    configs = [
        LayerConfig(gate=cast(Gate, weights.gate), key_dim=step.P_k.shape[1], value_dim=len(weights.rows))
        for step, weights in zip(algorithm.steps, each, strict=True)
    ]
    model = ResidualModel(layout.width, configs).to(algorithm.steps[0].P_k)
    with torch.no_grad():
        for layer, step, weights in zip(model.layers, algorithm.steps, each, strict=True):
            _fill(layer, step, weights)
        model.readout[0, layout.d] = -1.0
    return model


@outside_autocast
def solve_gates(
    features: Float[Tensor, "K1 p"], gates: Float[Tensor, "K C"], data: Float[Tensor, " C"] | None = None
) -> Float[Tensor, "p C"]:
    r"""Weights W of gates that are open on data tokens and take given values on delimiters.

    $$ \mathrm{sigmoid}(W^\top c_0) = 1, \quad \mathrm{sigmoid}(W^\top c_k) = g_k $$

    Args:
        features: the contextual features c_0 … c_K as rows, linearly independent.
        gates: g_1 … g_K for each of C channels, in [0, 1].
        data: the gates of data tokens, a decay per example; 1 if not given.

    Raises:
        ValueError: if the features are linearly dependent: then no weights give every delimiter its own gate.

    Source: derived (arXiv 2504.04308 assumes the independence).

    >>> W = solve_gates(torch.tensor([[1.0, 1.0], [0.0, 2.0]]), torch.tensor([[0.5]]))
    >>> W.abs().round(decimals=4).tolist()  # the delimiter's logit, 2 W[1], is 0
    [[40.0], [0.0]]
    """
    rank = int(torch.linalg.matrix_rank(features)) if features.numel() else 0
    if rank < len(features):
        raise ValueError(
            f"the {len(features)} contextual features c_0 … c_{len(features) - 1} have rank {rank}; gates tell "
            "delimiters apart by linearly independent ones: take PromptLayout(…, contextual=True)"
        )
    data = gates.new_ones(gates.shape[1]) if data is None else data
    logits = torch.cat([data[None], gates]).logit().clamp(-SHUT, SHUT)
    return torch.linalg.pinv(features) @ logits


def _task_weights(algorithm: WPGD) -> list[TaskWeights]:
    found = []
    for number, step in enumerate(algorithm.steps):
        if not isinstance(step.weights, TaskWeights):
            raise TypeError(
                f"step {number} has its weights as a tensor, and gates computed from tokens make weights by task; "
                "give TaskWeights(omega, layout, gate)"
            )
        found.append(step.weights)
    layout = found[0].layout
    if any(weights.layout != layout for weights in found):
        raise ValueError("the steps' weights are of different layouts; one network reads one layout")
    shown_features(layout)
    return found


def shown_features(layout: PromptLayout) -> Float[Tensor, "K1 p"]:
    """The contextual features of a data token, then those of each delimiter."""
    if layout.marks != "shared":
        raise ValueError(f"marks is {layout.marks!r}; the construction's gates read the paper's tokens: use 'shared'")
    return torch.as_tensor(layout.template[[0, *layout.delimiter_places], layout.d + 1 :])


def _fill(layer: Any, step: Step, weights: TaskWeights) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
    attention, layout, d = layer.attention, weights.layout, weights.layout.d
    attention.W_q[0, :d], attention.W_k[0, :d] = -step.P_q, step.P_k
    attention.W_v[0, d] = 1.0
    layer.W_o[0, :, d] = weights.rows
    if attention.gate is not None:
        features = shown_features(layout).to(step.P_k)
        attention.gate.weight[0, d + 1 :] = solve_gates(features, weights.delimiter_gates)
