"""From a network back to the theory's stack of layers: exact, or an error that names what no stack has."""

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient._types import Array
from gladient.equivalence.extraction import check_plain
from gladient.landscape.depth import Stack
from gladient.nn import GatedLinearAttention, ResidualLayer, ResidualModel
from gladient.prompts import PromptLayout

__all__ = ["extract_stack"]

_NOTHING = 1e-12  # of a matrix's largest entry: what rounding of weights may leave


@outside_autocast
def extract_stack(model: ResidualModel, layout: PromptLayout) -> Stack:
    r"""The stack that a network runs on every prompt: a head for each value channel, read off the weights alone.

    It is exact: `landscape.depth.stack_risk` of what comes back is the network's risk for Σ ∝ I. So the network must
    be of the kind that `construct_stack` makes. Keys and queries are multiples of x (or, for marks, delimiters and
    labels), gates read contextual features, values read labels and outputs, and outputs go to the label's channel and
    spare ones. What a trained model runs, and how much of it, says `extract`.

    Args:
        model: one member; `ResidualModel.member` picks it.
        layout: the prompts, with delimiters.

    Raises:
        ValueError: if the model is a stack of members, or a layer does what no stack does.

    Source: derived.

    >>> from gladient.equivalence import construct_stack
    >>> steps = Stack.steps([0.1, 0.3], gates=[[0.0, 0.0], [0.25, 1.0]])
    >>> layout = PromptLayout(n=(4, 4), d=3)
    >>> extract_stack(construct_stack(steps, layout), layout).gates.round(12).tolist()
    [[0.0, 0.0], [0.25, 1.0]]
    """
    width = model.readout.shape[1] - model.spare
    if len(model.readout) != 1:
        raise ValueError(f"the model is a stack of {len(model.readout)} members; pick one: model.member(0)")
    if width != layout.width or not layout.delimiters:
        raise ValueError(
            f"the model reads tokens of width {width}; the layout's have {layout.width} and must have delimiters"
        )
    check_plain(model, bonus=True)
    for number, config in enumerate(model.configs):
        if config.rotation != "none":
            raise ValueError(
                f"layer {number} has rotation={config.rotation!r}; the layers of a stack have none: see extract"
            )
    with torch.no_grad():
        found = _Found(model.spare, layout)
        for number, layer in enumerate(model.layers):
            found.read(layer, number)
        readout = model.readout[0].double().numpy()
        found.only(readout, found.channels, "the read-out", "features", readout)
        return found.stack(readout)


@dataclass
class _Head:
    label: float
    skips: Array
    write: Array
    gates: Array
    own: float
    decay: float


@dataclass
class _Found:
    """What every channel holds: shares of the label, task by task, and outputs of heads."""

    spare: int
    layout: PromptLayout
    heads: list[_Head] = field(default_factory=list)

    def __post_init__(self) -> None:
        d, width = self.layout.d, self.layout.width
        self.channels = [d, *range(width, width + self.spare)]
        self.labels = np.zeros((width + self.spare, len(self.layout.n)))
        self.labels[d] = 1.0
        self.outputs = np.zeros((width + self.spare, 0))
        tokens = torch.as_tensor(self.layout.template)
        self.template = functional.pad(tokens, (0, self.spare))[None, None]

    def only(self, weight: Array, rows: list[int], what: str, other: str, whole: Array) -> None:
        """Raises ValueError if other rows than these are not 0."""
        rest = np.delete(weight, rows, axis=0)
        if rest.size and np.abs(rest).max() > _NOTHING * np.abs(whole).max():
            raise ValueError(f"{what} reads or writes {other}, which no stack of layers does; see extract")

    def read(self, layer: ResidualLayer, number: int) -> None:
        """Takes a layer's heads; all of them read what the layers before it left."""
        labels, outputs = self.labels.copy(), self.outputs.copy()
        for h in range(layer.config.heads):
            what, part = f"layer {number}, head {h}", _parts(layer, h)
            self.only(part[3], self.channels, f"{what}: W_o", "features", part[3])
            if not part[3].any():
                continue
            if part[1][: self.layout.d].any():
                outputs = self._step(layer.attention, h, part, what, outputs, labels)
            else:
                self._mark(layer.attention, h, part, what, labels)
        self.labels, self.outputs = labels, outputs

    def _step(
        self, attention: GatedLinearAttention, h: int, part: "_Part", what: str, outputs: Array, labels: Array
    ) -> Array:
        """Heads with keys and queries x."""
        W_q, W_k, W_v, W_o = part
        d = self.layout.d
        for name, weight in (("W_q", W_q), ("W_k", W_k)):
            self.only(weight, list(range(d)), f"{what}: {name}", "more than x", weight)
        self.only(W_v, self.channels, f"{what}: W_v", "features", W_v)
        P = W_k[:d] @ W_q[:d].T
        p = float(np.trace(P)) / d
        if np.abs(P - p * np.eye(d)).max() > _NOTHING * np.abs(P).max():
            raise ValueError(f"{what}: W_k W_qᵀ is no multiple of I, and P of a stack's layers is; see extract")
        own = 1.0 if attention.u is None else _same(attention.u[0, h].double().numpy(), f"{what}: the bonus")
        decay, gates = self._gates(attention, h, what)
        for v in range(W_v.shape[1]):
            label, skips = W_v[:, v] @ self.labels, W_v[:, v] @ self.outputs
            for write, taken in _values(label, skips):
                even = np.ptp(write) == 0.0
                marks = np.ones(len(write) + 1) if even else np.append(write, 0.0)
                self.heads.append(_Head(float(write[0]) if even else 1.0, taken, marks, gates[v], own, float(decay[v])))
                outputs = np.column_stack((outputs, p * W_o[:, v]))
        return outputs

    def _mark(self, attention: GatedLinearAttention, h: int, part: "_Part", what: str, labels: Array) -> None:
        """A head that asks with labels and finds delimiters: what it adds is a share of the label in each task."""
        W_q, W_k, W_v, W_o = part
        shown = self.layout.template
        self.only(W_q, self.channels, f"{what}: W_q", "features", W_q)
        self.only(W_k, list(range(self.layout.d + 1, self.layout.width)), f"{what}: W_k", "labels", W_k)
        keys, values = (shown @ weight[: shown.shape[1]] for weight in (W_k, W_v))
        asked, others = W_q.T @ self.labels, W_q.T @ self.outputs  # [keys, tasks]
        decay, gates = self._gates(attention, h, what)
        places = list(self.layout.delimiter_places)
        held, open_ = np.delete(keys, places, axis=0), min(decay.min(), gates.min()) == 1.0
        if np.abs(held).max() > _NOTHING * np.abs(keys).max() or others.any() or not open_:
            raise ValueError(f"{what}: keys are not x; marks have delimiters as keys, labels as queries and no gates")
        each = keys[places][:, :, None] * values[places][:, None]
        before = np.cumsum(each, axis=0) - each  # a task's own delimiter comes after it
        labels += np.einsum("ik,kiv,cv->ck", asked, before, W_o)

    def _gates(self, attention: GatedLinearAttention, h: int, what: str) -> tuple[Array, Array]:
        """Decay of each value channel, [V], and its delimiters' gates, [V, K]."""
        K, V, width = len(self.layout.n), attention.config.value_dim or self.template.shape[3], self.layout.width
        if attention.gate is not None:
            weight = attention.gate.weight[0].double().numpy()
            self.only(weight, list(range(self.layout.d + 1, width)), f"{what}: a gate", "labels or x", weight)
        found = attention.gates(self.template.to(attention.W_q)).combined()
        if found is None:
            return np.ones(V), np.ones((V, K))
        one = found[0, :, min(h, found.shape[2] - 1)].exp().double().numpy()  # [T, keys, values], 1 where shared
        if one.shape[1] > 1 and np.abs(one - one[:, :1]).max() > 0.0:
            raise ValueError(f"{what}: gates differ from key to key, and those of a stack's layers do not; see extract")
        one = np.broadcast_to(one[:, 0], (len(one), V))
        places = list(self.layout.delimiter_places)
        data = np.delete(one, places, axis=0)
        if np.ptp(data, axis=0).max() > 0.0:
            raise ValueError(f"{what}: gates of data tokens differ, and a stack's layer has one decay")
        return data[0], one[places].T

    def stack(self, readout: Array) -> Stack:
        """All heads with what the prediction takes of them."""
        K, H = len(self.layout.n), len(self.heads)
        if not H:
            return Stack([0.0], [[0.0]], gates=np.ones((1, K)))
        skips = np.zeros((H, H))
        for h, head in enumerate(self.heads):
            skips[h, : len(head.skips)] = head.skips
        return Stack(
            readout @ self.outputs,
            skips,
            **{
                name: [getattr(head, name) for head in self.heads]
                for name in ("gates", "write", "label", "own", "decay")
            },
        )


_Part = tuple[Array, Array, Array, Array]


def _parts(layer: ResidualLayer, h: int) -> _Part:
    """W_q, W_k and W_v of one attention head, and its rows of W_o times the scale."""
    attention, H = layer.attention, layer.config.heads
    W = [cast(Tensor, weight)[0].double().unflatten(1, (H, -1))[:, h].numpy() for weight in
         (attention.W_q, attention.W_k, attention.W_v)]  # fmt: skip
    out = layer.config.scale * layer.W_o[0].double().unflatten(0, (H, -1))[h].numpy()
    return W[0], W[1], W[2], out.T


def _values(label: Array, skips: Array) -> list[tuple[Array, Array]]:
    """One head, two where a value takes an uneven share of the label beside outputs, none where it holds nothing."""
    if not (label.any() or skips.any()):
        return []
    if np.ptp(label) == 0.0 or not skips.any():
        return [(label, skips)]
    return [(label, 0.0 * skips), (0.0 * label, skips)]


def _same(values: Array, what: str) -> float:
    if np.ptp(values) > 0.0:
        raise ValueError(f"{what} differs from key to key, and a stack's layer has one weight of its own write")
    return float(values[0])
