"""Tensors in one safetensors file, its JSON header naming the run or model that they belong to."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from gladient._files import write_atomically

__all__ = ["CheckpointError", "load_tensors", "pack_tensors", "read_run", "save_tensors"]

_KEY = "gladient"


class CheckpointError(ValueError):
    """A file that is not a checkpoint, is damaged, or belongs to another run."""


def pack_tensors(tensors: Mapping[str, Tensor], *, run: Mapping[str, Any], **state: Any) -> bytes:
    """The content of a safetensors file: tensors, the description of their run, further JSON state and a checksum."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described: dict[str, Any] = json.loads(json.dumps({"run": run, "state": state}, allow_nan=False))
    described["sha256"] = _checksum(contiguous, described)
    return save(contiguous, metadata={_KEY: json.dumps(described, sort_keys=True, allow_nan=False)})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, run: Mapping[str, Any], **state: Any) -> None:
    """Write what `pack_tensors` makes of them, whole or not at all."""
    write_atomically(path, pack_tensors(tensors, run=run, **state))


def load_tensors(path: Path, *, run: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote for the same run: the tensors and the JSON state.

    Raises:
        CheckpointError: if the file is truncated, was changed or written by something else, or describes another run.
    """
    try:
        header = _header(path)
        tensors = load(path.read_bytes())
        if header.pop("sha256") != _checksum(tensors, header):
            raise ValueError("its checksum differs")
        found, state = header["run"], header["state"]
    except _DAMAGED as error:
        raise _damaged(path, error) from None
    # through JSON, as what was found has been: tuples are lists then
    expected = json.loads(json.dumps(run, allow_nan=False))
    if found != expected:
        names = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
        raise CheckpointError(
            f"{path} belongs to another run (it differs in {', '.join(names)}); name another file or delete it"
        )
    return tensors, state


def read_run(path: Path) -> dict[str, Any]:
    """The description of the run whose tensors a file holds, by which `load_tensors` reads them.

    Raises:
        CheckpointError: if it is not such a file.
    """
    try:
        return dict(_header(path)["run"])
    except _DAMAGED as error:
        raise _damaged(path, error) from None


_DAMAGED = (SafetensorError, AttributeError, KeyError, RecursionError, TypeError, ValueError)


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
    return header


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is not a whole gladient checkpoint ({error}); delete it, and train or save again")


def _checksum(tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> str:
    """The description's, and every tensor's name, type, shape and bytes; their order in the file does not count."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, allow_nan=False).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
