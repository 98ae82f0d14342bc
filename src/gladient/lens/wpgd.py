"""A record as the algorithm that it performs: one step of weighted preconditioned gradient descent."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from gladient.lens import weights
from gladient.lens.recurrence import Recurrence

__all__ = ["WPGDView"]


@dataclass(frozen=True)
class WPGDView:
    r"""One query's output as a gradient step from zero on the weighted least-squares loss of the tokens before it.

    The state is $S_t = \sum_i (\omega_i \odot k_i) v_i^\top$: minus the gradient at S = 0 of
    $\tfrac12 \sum_i \omega_i \lVert v_i - S^\top k_i \rVert^2$ with features $k_i$ and targets $v_i$ (where every key
    channel has its own weights, they weigh the coordinates of that gradient). The output is its prediction
    $S_t^\top q_t$, divided by the layer's normaliser if it has one; token i contributes $\mathrm{attention}_i\, v_i$.

    Attributes:
        omega: weights that the gates give, [T]; [T, K] where every key channel has its own. None for the delta
            rule, which is not one step but one for each token.
        keys: features, [T, K], turned where the layer rotates; the query's own token's with the bonus, where there is
            one.
        targets: values, [T, V].
        query: [K], turned likewise.
        attention: weight of each target in the output, [T].
        contributions: attention times targets, [T, V]; they sum to `prediction`.
        prediction: the output before carry, skip and output gate, [V].

    Source: theorem 1 of arXiv 2504.04308.

    >>> import torch
    >>> from gladient.lens import Record, Recurrence
    >>> ones, gates = torch.ones(1, 3, 1, 1), torch.tensor([1.0, 0.5, 0.25])[None, :, None]
    >>> targets = torch.tensor([8.0, 4.0, 2.0]).view(1, 3, 1, 1)
    >>> x = Recurrence(ones, ones, targets, ones, torch.arange(3), log_gates=gates.log())
    >>> view = Record("mixer", 0, "by hand", 0, x).wpgd_view(head=0, query=2)
    >>> view.omega.float().tolist(), view.contributions[:, 0].float().tolist(), view.prediction.float().tolist()
    ([0.125, 0.25, 1.0], [1.0, 1.0, 2.0], [4.0])
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
        x = x.turned
        attention, targets = weights.implicit_attention(x)[batch, 0, 0], x.v[batch, :, 0]
        contributions = attention[:, None] * targets
        omega = weights.channel_weights(x)[batch, 0, 0] if x.separable else None
        keys, own = x.k[batch, :, 0], x.positions[0]
        if x.bonus is not None:
            keys = keys.index_copy(0, own[None], (x.bonus[0] * keys[own])[None])
        return cls(omega, keys, targets, x.q[batch, 0, 0], attention, contributions, contributions.sum(0))
