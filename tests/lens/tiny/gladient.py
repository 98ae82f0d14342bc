"""This package's own layers: the presets, what they leave out, stacks of members, and the last query alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from gladient.nn import GatedLinearAttention, InContextRegressor, LayerConfig, ResidualModel, presets
from tiny._tiny import Tiny, perturb

_WIDTH = 8
_MOVED = ("gate.bias", "gate.weight", "log_A", ".u", "readout")


class _SideBySide(nn.Module):
    """Several models of the same tokens, in groups; the cache is the list of their states."""

    def __init__(self, *models: ResidualModel, groups: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, groups * _WIDTH)
        self.models: Any = nn.ModuleList(models)

    def forward(self, input_ids: Tensor, states: Sequence[Any] | None = None, use_cache: bool = False) -> Any:
        tokens = self.embedding(input_ids).unflatten(2, (-1, _WIDTH)).movedim(2, 0)
        before = states or [None] * len(self.models)
        z, after = zip(*(m.decode(tokens, state) for m, state in zip(self.models, before, strict=True)), strict=True)
        return ModelOutput(z=torch.stack(z), states=after)


class _LastQuery(nn.Module):
    """Regressors of several families, whose layers run without their forward."""

    def __init__(self, *regressors: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, _WIDTH)
        self.regressors = nn.ModuleList(regressors)

    def forward(self, input_ids: Tensor) -> Any:
        tokens = self.embedding(input_ids)[None]
        return ModelOutput(y=torch.stack([regressor(tokens) for regressor in self.regressors]))


class _KeyTimesValue(GatedLinearAttention):
    """All four families of gates at once, which the operator takes and no layer of ours has."""

    def _families(self, tokens: Tensor, log_gates: Tensor) -> dict[str, Any]:
        gk = torch.cat([log_gates, log_gates[..., :1]], 3)
        return {"g": log_gates[..., 0], "gk": gk, "gv": log_gates, "G": -gk[..., None] * log_gates[..., None, :]}


def _presets(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [replace(make(_WIDTH, heads=2), scale=0.25) for make in presets.PRESETS.values()]
    return perturb(_SideBySide(*(ResidualModel(_WIDTH, [layer]) for layer in layers)), *_MOVED)


def _stacked(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [LayerConfig(gate="value", key_dim=3, value_dim=4, heads=2, norm=True), presets.rwkv6(_WIDTH, heads=2)]
    return perturb(_SideBySide(ResidualModel(_WIDTH, layers, seeds=range(4)), groups=2), *_MOVED)


def _last_query(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    options: list[dict[str, Any]] = [{"gate": gate} for gate in ("scalar", "key", "value", "full")]
    options += [{"gate": "fixed", "decays": (0.9,)}]
    options += [{"gate": "key", "bonus": True}, {"gate": "scalar", "heads": 2}, {"gate": "full", "write": "step"}, {}]
    regressors = [
        InContextRegressor(_WIDTH, LayerConfig(key_dim=4, value_dim=3, scale=0.25, **each)) for each in options
    ]
    regressors[-1].layer = _KeyTimesValue(_WIDTH, LayerConfig(key_dim=4, value_dim=3, gate="full"))
    return perturb(_LastQuery(*regressors), *_MOVED)


_NOTE = "layers take no attention mask"
MODELS = {
    "gladient": Tiny(_presets, cache="states", padding=False, note=_NOTE),
    "gladient, stacked": Tiny(_stacked, cache="states", padding=False, note=_NOTE),
    "gladient, last": Tiny(_last_query, cache=None, padding=False, note=f"{_NOTE}; the last query alone has no cache"),
}
