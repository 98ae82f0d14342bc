"""Layers whose state turns between tasks: from weights and correlations to the turns that make them, and back."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient._types import Array
from gladient.landscape.delta import rotating_delta_rule
from gladient.nn import InContextRegressor, LayerConfig
from gladient.nn.config import Write
from gladient.prompts import MultitaskSetting, PromptLayout

__all__ = ["construct_rotating_delta", "construct_rotating_gate", "turns"]

# tanh is 1 in float64 from 18.7 on: a half turn. Larger logits would leave fewer digits to the others.
_HALF = 20.0


@outside_autocast
def construct_rotating_gate(
    P: Tensor | Float[Array, "d d"], omega: Tensor | Float[Array, " K"], layout: PromptLayout
) -> InContextRegressor:
    r"""The one-head layer with any weights at all: its state turns at delimiters, and no gate closes.

    $$ \hat y = x^\top P \sum_k \omega_k \sum_{j \in k} x_j y_j, \qquad \omega_k = \max|\omega| \cos \Phi_k,
       \quad \Phi_k = \theta_k + \dots + \theta_K $$

    Each feature has two key channels, keys (x_j, 0) and queries max|ω| ((Pᵀx)_j, 0). Delimiter k turns all pairs by
    $\theta_k = \pi \tanh(W_\theta^\top c_k)$, data tokens by 0.

    Args:
        P: preconditioner, [d, d].
        omega: weight of one example of each task, [K]: of any order, sign and scale.
        layout: where the prompts' examples stand; its delimiters carry contextual features.

    Returns:
        A model of one member in the dtype of P.

    Raises:
        ValueError: if P or omega has another shape or is not finite, or the layout's tokens do not tell delimiters.

    Convention: a half turn is π tanh(±20), which is ±π in float64.
    Source: derived; layers that turn by angles from tokens are those of arXiv 2603.15569.

    >>> layout = PromptLayout(n=(2, 2), d=3)
    >>> model = construct_rotating_gate(torch.eye(3).double(), torch.tensor([1.0, -0.5]).double(), layout)
    >>> turns(model, layout).round(decimals=4).flatten().tolist()  # to a cosine of 1, and of -1/2
    [-2.0944, 2.0944]
    """
    P = torch.as_tensor(P)
    omega = torch.as_tensor(omega).to(P)
    wanted = {"P": (P, (layout.d, layout.d)), "omega": (omega, (len(layout.n),))}
    for name, (value, shape) in wanted.items():
        if tuple(value.shape) != shape or not value.isfinite().all():
            raise ValueError(
                f"{name} has shape {list(value.shape)} and the values {value.tolist()}; the layout's is {list(shape)}, "
                "and all must be finite"
            )
    largest = omega.abs().max()
    # the angles in float64: near a cosine of ±1 an angle has half the digits of its cosine
    later = (omega.double() / torch.where(largest == 0, 1.0, largest)).arccos()
    model = _turning(layout, "plain", later - torch.cat((later[1:], later.new_zeros(1))), P)
    with torch.no_grad():
        model.layer.W_q[0, : layout.d, 0::2] = largest * P
    return model


@outside_autocast
def construct_rotating_delta(setting: MultitaskSetting) -> InContextRegressor:
    r"""The one-head delta rule at the filter floor: its state turns at delimiters; one or two tasks, no noise, Σ ∝ I.

    One step 1/(d + 2) at every token, no decay, two key channels per feature, keys (x_j, 0) / √s for Σ = s I. The
    first delimiter turns by arccos ρ, the last one so that the query's own key lies a quarter turn from what it reads,
    queries (0, -g x_j) / √s: its own step erases nothing of the answer. See `landscape.delta.rotating_delta_rule`.

    Args:
        setting: the data; prompts are `PromptLayout.of(setting)`.

    Returns:
        A model of one member in float64.

    Raises:
        ValueError: if there are more than two tasks, noise, or Σ is not a multiple of I.

    Source: derived. No library that we know has this layer; the nearest published one is that of arXiv 2511.17388.

    >>> setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=5)
    >>> model = construct_rotating_delta(setting)
    >>> turns(model, PromptLayout.of(setting)).round(decimals=3).flatten().tolist()
    [1.571, 0.245]
    """
    best, layout = rotating_delta_rule(setting), PromptLayout.of(setting)
    assert best.turns is not None  # of this rule
    assert best.gain is not None
    eye = torch.eye(layout.d, dtype=torch.float64) / math.sqrt(setting.Sigma[0, 0])
    model = _turning(layout, "delta", torch.as_tensor(best.turns), eye)
    layer = model.layer
    assert layer.step is not None  # of the delta rule
    with torch.no_grad():
        layer.W_q[0, : layout.d, 1::2] = -best.gain * eye
        layer.step.bias.fill_(-math.log(layout.d + 1.0))  # the sigmoid of it is 1/(d + 2)
    return model


@outside_autocast
def turns(model: InContextRegressor, layout: PromptLayout) -> Float[Tensor, "E K P"]:
    r"""The angle by which each delimiter turns each pair of channels, from -π to π, of each member.

    They are those of the layer as it is: an angle between its queries and its keys counts as a part of the last turn,
    and examples that turn as a part of the next delimiter's. The weights that all of them make stand in
    `extract(residual_model(model, layout).member(i), tokens, layout).factors`.

    Args:
        model: one whose state turns; P is 1 where all pairs have one angle.
        layout: where the prompts' delimiters stand.

    Raises:
        ValueError: if nothing turns, the angles are multiplied by a token's Δ, or the layout has no delimiters or does
            not make the model's tokens.

    >>> config = LayerConfig(rotation="fixed", angles=(0.5, 0.25), key_dim=4)
    >>> turns(InContextRegressor(5, config), PromptLayout(n=(3,), d=2)).tolist()
    [[[0.5, 0.25]]]
    """
    layer, config = model.layer, model.layer.config
    width = layer.W_q.shape[1]
    if not layer.pairs or config.write == "trapezoid":
        raise ValueError(
            f"rotation is {config.rotation!r} and write {config.write!r}; turns are those of a layer with rotation "
            "'fixed' or 'token', and another write than 'trapezoid', whose angles are multiplied by Δ"
        )
    if not layout.delimiters or layout.width != width:
        raise ValueError(
            f"the layout has delimiters={layout.delimiters} and tokens of {layout.width} numbers; turns are those of "
            f"delimiters, in tokens of {width}"
        )
    with torch.no_grad():
        found = layer.turns(torch.as_tensor(layout.template).to(layer.W_q)[None])
    assert found is not None
    each = found[0, list(layout.delimiter_places)].unflatten(1, (layer.members, -1))[:, :, 0]
    return (each[..., :1] if config.shared_angle else each).transpose(0, 1)


def _turning(layout: PromptLayout, write: Write, angles: Float[Tensor, " K"], like: Tensor) -> InContextRegressor:
    """Keys (x_j, 0) times the scale of `like`'s first entry for the delta rule, labels as values, and these turns."""
    if not layout.delimiter_columns:
        raise ValueError(
            f"the layout has contextual={layout.contextual} and delimiters={layout.delimiters}; turns are made from "
            "the delimiters' contextual features: take PromptLayout(…, contextual=True, delimiters=True)"
        )
    d = layout.d
    config = LayerConfig(gate="none", write=write, rotation="token", shared_angle=True, key_dim=2 * d, value_dim=1)
    model = InContextRegressor(layout.width, config).to(like)
    layer = model.layer
    assert layer.W_k is not None
    assert layer.angle is not None
    shares = torch.remainder(angles / math.pi + 1, 2) - 1  # of a half turn, in [-1, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer.W_k[0, :d, 0::2] = like if write == "delta" else torch.eye(d).to(like)
        layer.W_v[0, d] = model.readout[0, 0] = 1.0
        layer.angle.weight[0, list(layout.delimiter_columns), 0] = shares.atanh().clamp(-_HALF, _HALF).to(like)
    return model
