"""The folder a figure is written to: its config first, then each unit of work as soon as it is done."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from gladient._files import write_atomically
from gladient.experiments._work import Record, Work

__all__ = ["OutputFolder", "open_output"]


@dataclass(frozen=True)
class OutputFolder:
    """Where a figure's files are.

    Args:
        path: the folder.
    """

    path: Path

    def checkpoint(self, work: Work) -> Path:
        """Where unfinished work is kept."""
        return self.path / "checkpoints" / f"{work.name}.safetensors"

    def weights(self, work: Work) -> Path:
        """Where trained parameters are kept."""
        return self.path / "weights" / f"{work.name}.safetensors"

    def save(self, work: Work, records: list[Record], *, seconds: float) -> None:
        """Keep finished work and drop its checkpoint."""
        content = {"stack": _content(work), "records": records, "seconds": seconds}
        write_atomically(self._point(work), json.dumps(content, indent=1))
        self.checkpoint(work).unlink(missing_ok=True)

    def finished(self, work: Work) -> bool:
        """Whether its records are kept."""
        return self._point(work).exists()

    def load(self, work: Work) -> dict[str, Any]:
        """Finished work's records and seconds."""
        content = _read_json(self._point(work))
        if content.get("stack") != _content(work):
            raise ValueError(f"{self._point(work)} belongs to another config; delete it or choose another --out")
        return content

    def _point(self, work: Work) -> Path:
        return self.path / "points" / f"{work.name}.json"


def _content(work: Work) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(asdict(cast(Any, work))))
    return content


@contextmanager
def open_output(path: Path, *, config: Mapping[str, Any], resume: bool) -> Iterator[OutputFolder]:
    """A figure's folder, made if absent and locked while it is open.

    Args:
        path: the folder.
        config: what decides the results, as JSON values. A folder of another config is refused.
        resume: whether to go on with what the folder already holds.

    Raises:
        ValueError: if the folder holds anything but this figure with this config, or holds it and `resume` is off.
        OSError: if the path is a file or cannot be written.
    """
    _make_folder(path)
    try:
        with FileLock(path / ".lock", timeout=0):
            _check_config(path, json.loads(json.dumps(config)), resume=resume)
            for folder in ("points", "weights", "checkpoints"):
                (path / folder).mkdir(exist_ok=True)
            yield OutputFolder(path)
    except Timeout:
        raise ValueError(f"{path} is in use by another run; wait for it or choose another --out") from None


def _check_config(path: Path, config: dict[str, Any], *, resume: bool) -> None:
    file = path / "config.json"
    if not file.exists():
        if any(entry.name != ".lock" for entry in path.iterdir()):
            raise ValueError(f"{path} is not empty and holds no config.json; choose a new folder for --out")
        write_atomically(file, json.dumps(config, indent=1))
        return
    found = _read_json(file)
    if found != config:
        names = sorted(k for k in {*found, *config} if found.get(k) != config.get(k))
        raise ValueError(
            f"{path} holds results of another config (it differs in {', '.join(names)}); "
            "choose another --out, or delete the folder"
        )
    if not resume:
        raise ValueError(f"{path} already holds this figure; add --resume to go on, or choose another --out")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"{path} is, or lies under, a file; --out must name a folder") from None
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is not writable; choose another --out")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and resume") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} was not written by gladient; choose another --out")
    return content
