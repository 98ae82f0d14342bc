"""Tensors in one safetensors file, its JSON header naming the run or model that they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gladient._files import write_atomically

__all__ = ["CheckpointError", "load_tensors", "save_tensors"]

_KEY = "gladient"


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or belongs to another run."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, run: Mapping[str, Any], **state: Any) -> None:
    """Write tensors with the description of their run and further JSON state, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {_KEY: json.dumps({"run": run, "state": state}, sort_keys=True)}
    write_atomically(path, save(contiguous, metadata=header))


def load_tensors(path: Path, *, run: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote for the same run: the tensors and the JSON state.

    Raises:
        CheckpointError: if the file is truncated, was written by something else, or describes another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a whole gladient checkpoint ({error}); delete it, and train or save again"
        ) from None
    expected = json.loads(json.dumps(run))
    if header["run"] != expected:
        names = sorted(k for k in {*header["run"], *expected} if header["run"].get(k) != expected.get(k))
        raise CheckpointError(
            f"{path} belongs to another run (it differs in {', '.join(names)}); name another file or delete it"
        )
    return tensors, header["state"]
