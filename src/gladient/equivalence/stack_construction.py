"""From the theory's stacks of layers, with their skips, rows and marks, to the network that runs them."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from gladient._autocast import outside_autocast
from gladient._types import Array
from gladient.equivalence.construction import shown_features, solve_gates
from gladient.equivalence.rows import evenly_written
from gladient.landscape.depth import Stack
from gladient.nn import Gate, LayerConfig, ResidualModel
from gladient.prompts import PromptLayout

__all__ = ["construct_stack"]


@outside_autocast
def construct_stack(stack: Stack, layout: PromptLayout, *, marks: bool = False) -> ResidualModel:
    r"""The network that runs a stack of `landscape.depth`, one residual layer for each of its layers, with no training.

    Keys and queries are x, and each head is a value channel. Values read the label and the outputs of lower heads,
    which stand in spare channels; what all later heads and the prediction take alike, as in plain steps, is taken off
    the label itself. Gates come from the contextual features: none, scalar, or value gates where heads of a layer
    differ. Heads that write at some tasks more than at others become rows of value gates (0 and 1 beside the stack's
    own), or, with `marks`, need no gate: in one more layer in front keys are the delimiters and a token's label is the
    query, so that every label is marked with its task.

    Args:
        stack: gates and decays in [0, 1], no erasing. Where a best risk is a limit, take `BestStack.finite`.
        layout: the prompts, with contextual features, delimiters and the query marked like an example.
        marks: whether labels are marked. Heads that write differently from task to task must then read labels alone,
            and stand in the second layer.

    Returns:
        A model of one member in float64.

    Raises:
        ValueError: if no such network has the stack's numbers, or the layout is for other tasks.

    Convention: gates of 0 and 1 are sigmoids of ∓40, which differ from them by 4e-18.
    Source: derived; marks as in `landscape.depth.marked_layers`.

    >>> from gladient.landscape.depth import depth_bound, marked_layers
    >>> from gladient.prompts import MultitaskSetting
    >>> setting = MultitaskSetting.isotropic(n=[5, 5], r=[0.8, 0.2], d=3)
    >>> layout = PromptLayout.of(setting)
    >>> for stack, marks in ((depth_bound(setting, 3).stack, False), (marked_layers(setting).stack, True)):
    ...     model = construct_stack(stack, layout, marks=marks)
    ...     print([config.gate for config in model.configs], model.spare)
    ['value', 'value', 'value'] 6
    ['none', 'none'] 3
    """
    _check(stack, layout)
    stack = _with_marks(stack) if marks else evenly_written(stack)
    uneven = (stack.write[:, :-1] != 1.0).any(axis=1)
    level = _levels(stack, uneven)
    skipping = _skipping(stack, level)
    layers = [np.flatnonzero(level == number).tolist() for number in range(int(level.max()) + 1)]
    spare = {h: layout.width + i for i, h in enumerate(np.flatnonzero(skipping).tolist())}
    marked = {h: layout.width + len(spare) + i for i, h in enumerate(np.flatnonzero(uneven).tolist())}
    groups = [_by_own(stack, heads) for heads in layers]
    channels = [max([1, *map(len, group), len(marked) if not i else 0]) for i, group in enumerate(groups)]
    configs = [
        LayerConfig(
            heads=len(group) + (not i and bool(marked)),
            key_dim=layout.d,
            value_dim=channels[i],
            gate=_gate(stack, group),
            bonus=bool((stack.own[heads] != 1.0).any()),
        )
        for i, (heads, group) in enumerate(zip(layers, groups, strict=True))
    ]
    model = ResidualModel(layout.width, configs, spare=len(spare) + len(marked)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for layer, group in zip(model.layers, groups, strict=True):
            for place, heads in enumerate(group):
                _fill(layer, place, heads, stack, layout, spare, marked)
            _fill_gates(layer, group, stack, layout)
        if marked:
            _mark(model.layers[0], len(groups[0]), stack, layout, marked)
        model.readout[0, layout.d] = -1.0
        for h, channel in spare.items():
            model.readout[0, channel] = float(stack.readout[h])
    return model


def _check(stack: Stack, layout: PromptLayout) -> None:
    if stack.gates.shape[1] != len(layout.n):
        raise ValueError(f"the stack has gates for {stack.gates.shape[1]} tasks and the layout {len(layout.n)} tasks")
    if not layout.delimiters:
        raise ValueError("the layout has no delimiters, where the stack's gates stand: use delimiters=True")
    shown_features(layout)
    if stack.erase.any():
        h = int(np.flatnonzero(stack.erase)[0])
        raise ValueError(f"head {h} erases {stack.erase[h]:g}; layers of the delta rule are made by construct_delta")
    for name, value in (("gates", stack.gates), ("decay", stack.decay[:, None])):
        if ((value < 0.0) | (value > 1.0)).any():
            h, k = np.argwhere((value < 0.0) | (value > 1.0))[0].tolist()
            where = f" after task {k}" if name == "gates" else ""
            raise ValueError(
                f"{name} of head {h}{where} is {value[h, k]:g}; a network's gates lie in [0, 1]. Where a best risk is "
                "a limit, take the steps of BestStack.finite()"
            )
    both = (stack.own != 1.0) & (stack.decay != 1.0)
    if both.any():
        h = int(np.flatnonzero(both)[0])
        raise ValueError(
            f"head {h} has own {stack.own[h]:g} and decay {stack.decay[h]:g}; layers with a bonus read before the "
            "decay, the theory after it: take own 1 or decay 1"
        )


def _with_marks(stack: Stack) -> Stack:
    """The stack with writes of 1 wherever they are the same at all tasks."""
    labels = ~stack.skips.any(axis=1)  # the query has none, so that what its write counts there is free
    write, first = stack.write.copy(), stack.write[:, :1]
    write[labels, -1] = write[labels, -2]
    even = (write == first).all(axis=1)
    for h in np.flatnonzero(~even & ~labels).tolist():
        raise ValueError(
            f"head {h} reads other heads and writes {stack.write[h].tolist()} at the tasks and the query; marks set "
            "labels apart alone: use marks=False"
        )
    factor = np.where(even, first[:, 0], 1.0)
    write[even] = 1.0
    arrays = stack.heads._replace(write=write, label=stack.label * factor, skips=stack.skips * factor[:, None])
    return Stack(**arrays._asdict())


def _levels(stack: Stack, uneven: Array) -> Array:
    """The layer of each head, from 0; labels must have been marked before they are read."""
    level = uneven.astype(int)
    for h in range(len(level)):
        level[h] = max([level[h], *(level[np.flatnonzero(stack.skips[h])] + 1)])
    return level


def _skipping(stack: Stack, level: Array) -> Array:
    """Heads whose output stands in a spare channel: a later head takes it otherwise than steps do."""
    alike = stack.skips == -stack.label[:, None] * stack.readout
    return ~(alike | (level[:, None] <= level)).all(axis=0)


def _by_own(stack: Stack, heads: Sequence[int]) -> list[list[int]]:
    """A layer's heads by the weight of their own write, which an attention head has for all its values."""
    return [[h for h in heads if stack.own[h] == own] for own in sorted({float(stack.own[h]) for h in heads})]


def _gate(stack: Stack, groups: Sequence[Sequence[int]]) -> Gate:
    rows = [np.column_stack((stack.decay[heads], stack.gates[heads])) for heads in groups]
    if all((one == 1.0).all() for one in rows):
        return "none"
    return "scalar" if all((one == one[0]).all() for one in rows) else "value"


def _fill(
    layer: Any,
    place: int,
    heads: Sequence[int],
    stack: Stack,
    layout: PromptLayout,
    spare: dict[int, int],
    marked: dict[int, int],
) -> None:
    """An attention head whose value channels are these heads."""
    attention, d, V = layer.attention, layout.d, layer.config.value_dim
    keys = slice(place * d, (place + 1) * d)
    attention.W_q[0, :d, keys] = attention.W_k[0, :d, keys] = torch.eye(d)
    if attention.u is not None:
        attention.u[0, place] = float(stack.own[heads[0]])
    for column, h in enumerate(heads, start=place * V):
        attention.W_v[0, d, column] = float(stack.label[h] * stack.write[h, 0])
        if h in marked:
            attention.W_v[0, marked[h], column] = float(stack.label[h])
        for other, channel in spare.items():
            attention.W_v[0, channel, column] = float(stack.skips[h, other])
        if h in spare:
            layer.W_o[0, column, spare[h]] = 1.0
        else:
            layer.W_o[0, column, d] = -float(stack.readout[h])


def _fill_gates(layer: Any, groups: Sequence[Sequence[int]], stack: Stack, layout: PromptLayout) -> None:
    gate, config = layer.attention.gate, layer.config
    if gate is None:
        return
    each = 1 if config.gate == "scalar" else config.value_dim
    wanted = np.ones((config.heads * each, 1 + len(layout.n)))
    for place, heads in enumerate(groups):
        for i, h in enumerate(heads[:each]):
            wanted[place * each + i] = stack.decay[h], *stack.gates[h]
    rows = torch.tensor(wanted.T)
    gate.weight[0, layout.d + 1 : layout.width] = solve_gates(shown_features(layout), rows[1:], rows[0])


def _mark(layer: Any, place: int, stack: Stack, layout: PromptLayout, marked: dict[int, int]) -> None:
    """An attention head that asks with labels and finds delimiters, which hold how the write changes after them."""
    attention, V = layer.attention, layer.config.value_dim
    attention.W_q[0, layout.d, place * layout.d] = 1.0
    cast(Any, attention.W_k)[0, layout.delimiter_columns, place * layout.d] = 1.0
    if attention.u is not None:
        attention.u[0, place] = 1.0
    for column, (h, channel) in enumerate(marked.items(), start=place * V):
        changes = np.append(np.diff(stack.write[h, :-1]), 0.0)
        attention.W_v[0, layout.delimiter_columns, column] = torch.tensor(changes)
        layer.W_o[0, column, channel] = 1.0
