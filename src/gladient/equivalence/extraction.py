"""From a network and prompts to the algorithm that it runs, and what that leaves unexplained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient.nn import GatedLinearAttention, InContextRegressor, ResidualLayer, ResidualModel
from gladient.ops import cumulative_angles
from gladient.prompts import PromptLayout
from gladient.wpgd import WPGD, Estimates, Step, gate_weights

__all__ = ["Extraction", "Factor", "check_plain", "extract", "residual_model", "unexplained"]


@dataclass(frozen=True, eq=False)
class Factor:
    r"""The best single pair for a step at the query: $P_q\,\mathrm{diag}(\Omega_j)\,P_k^\top \approx \omega_j P$.

    Attributes:
        P: preconditioner, [d, d]; trace ≥ 0.
        omega: weight of each task's examples, their mean, [K]; max |ω_k| = 1 (scale and sign are in P).
        examples: weight of each example, in order, [n].
        share: share of the squares that the pair holds; 1 where all directions have the same weights.
    """

    P: Float[Tensor, "d d"]
    omega: Float[Tensor, " K"]
    examples: Float[Tensor, " n"]
    share: float


@dataclass(frozen=True, eq=False)
class Extraction:
    r"""A network's algorithm on a batch of prompts, and how much of the network it is.

    The shares are of the variance of the network's predictions; `explained + moving_gates + cross_blocks` is 1.

    Attributes:
        algorithm: its steps with weights Ω averaged over the prompts, so that they depend on no x and y.
        estimates: what the steps with each prompt's own Ω estimate on the prompts, every token and layer.
        factors: each step's single pair (P, ω) at the query.
        prediction: the network's predictions, [B].
        explained: share that the algorithm explains.
        moving_gates: further share that it explains with each prompt's own Ω: gates that move with x and y.
        cross_blocks: the rest: blocks of the matrices that WPGD has not.
        blocks: for each such matrix, how much predictions change when its cross block alone is set to 0.
        gain: what a prediction xᵀb is multiplied by in the read-out; 1 for constructed networks.
    """

    algorithm: WPGD
    estimates: Estimates
    factors: tuple[Factor, ...]
    prediction: Float[Tensor, " B"]
    explained: float
    moving_gates: float
    cross_blocks: float
    blocks: dict[str, float]
    gain: float


@outside_autocast
def extract(model: ResidualModel, tokens: Float[Tensor, "1 B T D"], layout: PromptLayout) -> Extraction:
    r"""The algorithm in a network: per layer $P_k$, $P_q$ and the token weights that its gates induce on the prompts.

    From each layer it takes the blocks that WPGD has: queries and keys from features, values from the label, outputs
    to the label, the read-out of the label. A head and key channel is a direction; its weights are the products of
    gates, mixed over value channels v by $W_v[y, v]\,W_o[v, y]$. A channel of a layer whose state turns is two
    directions: their weights are those products times the cosine and the sine of the turns between, so that task k
    weighs $\Gamma_k \cos \Phi_k$ in `factors`. Everything else is left to `cross_blocks`.

    Args:
        model: one member; `ResidualModel.member` picks it, `residual_model` makes it from an `InContextRegressor`.
        tokens: prompts; Ω holds B·T² numbers for each direction with its own gates.
        layout: where the prompts' examples stand.

    Raises:
        ValueError: if the model is a stack, the tokens do not fit the layout, or a layer has what no WPGD step has:
            a norm, an output gate, gated writes, a bonus, keys of length 1.

    Source: arXiv 2504.04308, Theorem 1, read backwards; the shares are ours.

    >>> from gladient.equivalence import construct
    >>> from gladient.prompts import MultitaskSetting, PromptSampler
    >>> setting = MultitaskSetting.isotropic(n=[2, 2], r=[0.2, 0.8], d=3)
    >>> sampler = PromptSampler([setting], dtype=torch.float64)
    >>> eye, omega = torch.eye(3).double(), torch.tensor([0.25, 1.0]).double()
    >>> model = construct(WPGD((Step.scaled(eye, eye, omega, sampler.layout),)))
    >>> found = extract(model, sampler.draw(50, [torch.Generator().manual_seed(0)]).tokens, sampler.layout)
    >>> round(found.explained, 6), found.factors[0].omega.round(decimals=6).tolist()
    (1.0, [0.25, 1.0])
    """
    _check(model, tokens, layout)
    with torch.no_grad():
        hidden = model.hidden(tokens)
        prediction = model.read(hidden[-1])[0, :, -1]
        own = WPGD(tuple(_step(layer, z, layout.d) for layer, z in zip(model.layers, hidden, strict=False)))
        mean = WPGD(tuple(Step(step.P_k, step.P_q, step.matrix.mean(0, keepdim=True)) for step in own.steps))
        x, y = tokens[0, ..., : layout.d], tokens[0, ..., layout.d]
        gain = -model.readout[0, layout.d].item()
        estimates = own(x, y)
        with_own = unexplained(prediction, gain * estimates.prediction)
        with_mean = unexplained(prediction, gain * mean(x, y).prediction)
        return Extraction(
            algorithm=mean,
            estimates=estimates,
            factors=tuple(_factor(step, layout) for step in mean.steps),
            prediction=prediction,
            explained=1.0 - with_mean,
            moving_gates=with_mean - with_own,
            cross_blocks=with_own,
            blocks={name: unexplained(prediction, _without(model, name, layout.d)(tokens)[0]) for name in _CROSS},
            gain=gain,
        )


def residual_model(regressor: InContextRegressor, layout: PromptLayout) -> ResidualModel:
    """The one-layer residual model with the regressor's predictions, its read-out written to the label.

    >>> layout = PromptLayout(n=(2, 2), d=3)
    >>> regressor, tokens = InContextRegressor(layout.width), torch.randn(1, 4, layout.length, layout.width)
    >>> tokens[..., -1, 3] = 0  # the query has no label
    >>> torch.testing.assert_close(residual_model(regressor, layout)(tokens), regressor(tokens))
    """
    members = len(regressor.readout)
    model = ResidualModel(layout.width, [regressor.layer.config], seeds=[0] * members).to(regressor.readout)
    layer = model.layers[0]
    # Outputs are added to the label and the read-out is minus the label, so that queries take the other sign.
    with torch.no_grad():
        layer.attention.load_state_dict(regressor.layer.state_dict())
        layer.attention.W_q.neg_()
        layer.W_o.zero_()[:, :, layout.d] = regressor.readout
        model.readout.zero_()[:, layout.d] = -1.0
    return model


def _step(layer: ResidualLayer, z: Float[Tensor, "1 B T D"], d: int) -> Step:
    """The layer's step on these tokens, with each prompt's own weights."""
    attention = layer.attention
    P_k, P_q = cast(Tensor, attention.W_k)[0, :d], -attention.config.scale * attention.W_q[0, :d]
    mix = (attention.W_v[0, d] * layer.W_o[0, :, d]).unflatten(0, (attention.config.heads, -1))
    Omega = _mixed_weights(attention, z, mix)
    turns = attention.turns(z)
    return Step(P_k, P_q, Omega) if turns is None else _turned(P_k, P_q, Omega, turns)


def _turned(P_k: Tensor, P_q: Tensor, Omega: Tensor, turns: Float[Tensor, "B T H turned"]) -> Step:
    """The same of a state that turns by Φ between a key and a query: twice the directions.

    R(-Φ) k · q is cos Φ k · q + sin Φ k · q', with q' a quarter turn ahead of q.
    """
    phase = cumulative_angles(turns)
    phase = (phase[:, :, None] - phase[:, None]).repeat_interleave(2, 4)  # [B, T, T, H, channels]
    still = P_k.shape[1] // phase.shape[3] - phase.shape[4]
    phase = functional.pad(phase, (0, still)).flatten(3)
    across = torch.stack((-P_q[:, 1::2], P_q[:, 0::2]), 2).flatten(1)
    weights = torch.cat((Omega * phase.cos().to(Omega), Omega * phase.sin().to(Omega)), 3)
    return Step(torch.cat((P_k, P_k), 1), torch.cat((P_q, across), 1), weights)


def _mixed_weights(
    attention: GatedLinearAttention, z: Float[Tensor, "1 B T D"], mix: Float[Tensor, "H V"]
) -> Float[Tensor, "b T T m"]:
    r"""$\Omega = \sum_v \mathrm{mix}_v \Gamma_v$ of each head and key channel; one for all if they share it."""
    log_gates = attention.gates(z).combined()
    H, K = attention.config.heads, attention.W_q.shape[2] // attention.config.heads
    if log_gates is None:
        log_gates = z.new_zeros(1, z.shape[2], H, 1, 1)
    Gamma = gate_weights(log_gates.flatten(2)).unflatten(3, log_gates.shape[2:])
    # Where all value channels have the same gates, their mix is one number.
    Omega = (Gamma * mix[:, None] if Gamma.shape[-1] > 1 else Gamma * mix.sum(1)[:, None, None]).sum(-1)
    return Omega[..., 0] if H == 1 and Omega.shape[-1] == 1 else Omega.expand(-1, -1, -1, H, K).flatten(3)


def _factor(step: Step, layout: PromptLayout) -> Factor:
    weights = step.matrix[0, -1].expand(-1, step.P_k.shape[1])
    blocks = torch.cat([weights[block] for block in layout.blocks])
    moves = torch.einsum("dm,jm,em->jde", step.P_q, blocks, step.P_k)
    # The best ω_j P for all examples' matrices is the first singular pair of their flattened stack (Eckart, Young).
    U, s, Vh = torch.linalg.svd(moves.flatten(1), full_matrices=False)
    examples, P = U[:, 0] * s[0], Vh[0].unflatten(0, moves.shape[1:])
    omega = torch.stack([part.mean() for part in examples.split(layout.n)])
    # A pair is known up to a factor: the largest weight becomes 1 in size, and the trace of P decides the sign.
    c = omega[omega.abs().argmax()] if omega.any() else omega.new_ones(())
    c = c * torch.where((c * P).trace() < 0, -1.0, 1.0)
    share = (s[0] ** 2 / (s**2).sum()).item() if s[0] > 0 else 1.0
    return Factor(P=c * P, omega=omega / c, examples=examples / c, share=share)


def unexplained(prediction: Tensor, other: Tensor) -> float:
    """Share of the prediction's variance that another misses."""
    return ((prediction - other).square().mean() / prediction.var(correction=0)).item()


def _clear_rows(weight: Tensor, keep: slice) -> None:
    kept = weight[:, keep].clone()
    weight.zero_()[:, keep] = kept


_CROSS: dict[str, Callable[[ResidualLayer, int], None]] = {
    "W_k": lambda layer, d: _clear_rows(cast(Tensor, layer.attention.W_k), slice(0, d)),
    "W_q": lambda layer, d: _clear_rows(layer.attention.W_q, slice(0, d)),
    "W_v": lambda layer, d: _clear_rows(layer.attention.W_v, slice(d, d + 1)),
    "W_o": lambda layer, d: _clear_rows(layer.W_o.mT, slice(d, d + 1)),
}


def _without(model: ResidualModel, name: str, d: int) -> ResidualModel:
    """A copy whose matrices of that name have no cross block."""
    copy = model.member(0)
    for layer in copy.layers:
        _CROSS[name](layer, d)
    return copy


def _check(model: ResidualModel, tokens: Tensor, layout: PromptLayout) -> None:
    if len(model.readout) != 1:
        raise ValueError(f"the model is a stack of {len(model.readout)} members; pick one: model.member(0)")
    if tokens.shape[2:] != (layout.length, layout.width) or tokens.shape[1] < 2:
        wanted = f"[1, B, {layout.length}, {layout.width}]"
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}; the layout makes {wanted}, and B must be at least 2"
        )
    check_plain(model)


def check_plain(model: ResidualModel, *, bonus: bool = False) -> None:
    """Raises ValueError for layers that do more than write what they read; a bonus may be allowed."""
    for number, config in enumerate(model.configs):
        found = {"norm": config.norm, "output_gate": config.output_gate, "bonus": config.bonus and not bonus}
        found[f"write={config.write!r}"] = config.write != "plain"
        found[f"normalise={config.normalise!r}"] = config.normalise != "none"
        found["key_bias"] = config.key_bias
        for name, present in found.items():
            if present:
                raise ValueError(f"layer {number} has {name}, which no WPGD step has; extract plain layers")
