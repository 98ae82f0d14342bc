"""A record as the algorithm that it performs: one step of weighted preconditioned gradient descent."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens import _weights
from gladient.lens._recurrence import Recurrence

__all__ = ["WPGDView"]


@dataclass(frozen=True)
class WPGDView:
    r"""One query's output as a gradient step from zero on the weighted least-squares loss of the tokens before it.

    The state is $S_t = \sum_i (\omega_i \odot k_i) v_i^\top$: minus the gradient at S = 0 of
    $\tfrac12 \sum_i \omega_i \lVert v_i - S^\top k_i \rVert^2$ with features $k_i$ and targets $v_i$; the output is its
    prediction $S_t^\top q_t$, to which token i contributes $\mathrm{attention}_i\, v_i$.

    Attributes:
        omega: weights that the gates give, [T]; [T, K] where every key channel has its own. None for the delta
            rule, which is not one step but one for each token.
        keys: features, [T, K].
        targets: values, [T, V].
        query: [K].
        attention: weight of each target in the output, [T].
        contributions: attention times targets, [T, V]; they sum to `prediction`.
        prediction: the output before carry, skip and output gate, [V].

    Source: theorem 1 of arXiv 2504.04308.
    """

    omega: Tensor | None
    keys: Float[Tensor, "T K"]
    targets: Float[Tensor, "T V"]
    query: Float[Tensor, " K"]
    attention: Float[Tensor, " T"]
    contributions: Float[Tensor, "T V"]
    prediction: Float[Tensor, " V"]

    @classmethod
    def of(cls, x: Recurrence, batch: int) -> "WPGDView":
        """The view of a recurrence of one head and one query."""
        attention, targets = _weights.implicit_attention(x)[batch, 0, 0], x.v[batch, :, 0]
        contributions = attention[:, None] * targets
        channels = x.q.shape[3] if x.family == "key" else 1
        each = [_weights.gate_weights(x, channel=c if channels > 1 else None)[batch, 0, 0] for c in range(channels)]
        omega = None if not x.separable else each[0] if channels == 1 else torch.stack(each, 1)
        return cls(omega, x.k[batch, :, 0], targets, x.q[batch, 0, 0], attention, contributions, contributions.sum(0))
