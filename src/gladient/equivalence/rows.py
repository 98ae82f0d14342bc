"""Stacks whose heads write as much at some tasks as at others: what a network's rows of gates make of any stack."""

from functools import lru_cache

import numpy as np

from gladient.landscape.depth import Stack

__all__ = ["evenly_written"]

_Value = tuple[float, tuple[tuple[int, float], ...]]  # what a head takes of the label, and of other heads' outputs


def evenly_written(stack: Stack) -> Stack:
    r"""A stack of the same depth and the same predictions whose heads write 1 at every task and the query.

    Let $P_k$ be a head's twin that forgets at every delimiter before task k and has the head's gates after. On the
    tokens of task m > k, $P_k - P_{k+1}$ holds what it read in task k alone, and $P_m$ what it read in task m. So

    $$ o = \sum_{k \le m} t_k P_k - \sum_{k < m} t_k P_{k+1}, $$

    where those of task k get the value that the head has there. Where t does not change, twins cancel; a stack that
    writes 1 everywhere stays as it is.

    >>> masked = Stack([0.1, 0.2], [[0, 0], [0, 0]], gates=[[1, 1], [1, 1]], write=[[1, 0, 0], [0, 1, 0]])
    >>> even = evenly_written(masked)  # 0.1 (s - s_2) + 0.2 s_2: all tasks, and the second alone
    >>> even.readout.tolist(), even.gates.tolist()
    ([0.1, 0.1], [[1.0, 1.0], [0.0, 1.0]])
    """
    twins = _Twins(stack)
    readout: dict[int, float] = {}
    for h, f in enumerate(stack.readout.tolist()):
        _add(readout, twins.read(h, stack.gates.shape[1]), f)
    return twins.stack(readout)


class _Twins:
    """Heads that are made when they are first read, each once."""

    def __init__(self, stack: Stack) -> None:
        self.of, self.write = stack, stack.write.copy()
        labels = ~stack.skips.any(axis=1)  # the query has none, so that what its write counts there is free
        self.write[labels, -1] = self.write[labels, -2]
        self.places: dict[tuple[_Value, tuple[float, ...], float, float], int] = {}
        self.read = lru_cache(maxsize=None)(self._read)  # many heads read the same ones

    def _read(self, h: int, m: int) -> dict[int, float]:
        """Weights of the twins whose outputs at the tokens of task m, or the query, sum to that of head h."""
        found: dict[int, float] = {}
        for k, t in enumerate(self.write[h, : m + 1].tolist()):
            if t:
                value = self._value(h, k)
                _add(found, {self._place(h, value, k): t}, 1.0)
                if k < m:
                    _add(found, {self._place(h, value, k + 1): t}, -1.0)
        return {place: weight for place, weight in found.items() if weight}

    def _value(self, h: int, k: int) -> _Value:
        """What head h takes at the tokens of task k."""
        found: dict[int, float] = {}
        for other in np.flatnonzero(self.of.skips[h]).tolist():
            _add(found, self.read(other, k), float(self.of.skips[h, other]))
        return float(self.of.label[h]), tuple(sorted(found.items()))

    def _place(self, h: int, value: _Value, first: int) -> int:
        gates = (0.0,) * first + tuple(self.of.gates[h, first:].tolist())
        key = value, gates, float(self.of.own[h]), float(self.of.decay[h])
        return self.places.setdefault(key, len(self.places))

    def stack(self, readout: dict[int, float]) -> Stack:
        """The twins that are read, by one another or at the end."""
        keys = list(self.places) or [((0.0, ()), tuple(self.of.gates[0].tolist()), 1.0, 1.0)]  # nothing is written
        read = [False] * len(keys)
        for h in reversed(range(len(keys))):
            read[h] = h in readout or any(read[i] and h in dict(keys[i][0][1]) for i in range(h + 1, len(keys)))
        kept = [h for h in range(len(keys)) if read[h]] or [0]
        f, skips = np.zeros(len(keys)), np.zeros((len(keys), len(keys)))
        for h, ((_, taken), *_) in enumerate(keys):
            f[h] = readout.get(h, 0.0)
            for other, weight in taken:
                skips[h, other] = weight
        label, gates, own, decay = zip(*((keys[h][0][0], *keys[h][1:]) for h in kept), strict=True)
        return Stack(f[kept], skips[np.ix_(kept, kept)], gates=gates, label=label, own=own, decay=decay)


def _add(into: dict[int, float], other: dict[int, float], times: float) -> None:
    for place, weight in other.items():
        into[place] = into.get(place, 0.0) + times * weight
