"""The folder a figure is written to: its config first, then each unit of work as soon as it is done."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gladient._files import sha256, write_atomically
from gladient._text import finite
from gladient.experiments.work import Measurement, Outcome, Work

__all__ = ["Finished", "OutputFolder", "open_output"]


@dataclass(frozen=True)
class Finished:
    """Work whose outcome is kept: its measurements, and the seconds that it took."""

    measurements: list[Measurement]
    seconds: float


@dataclass(frozen=True)
class OutputFolder:
    """Where a figure's files are.

    Args:
        path: the folder, absolute.
        config: SHA-256 of config.json, by which a worker knows the folder when it sees it.
    """

    path: Path
    config: str

    @property
    def checkpoints(self) -> Path:
        """Where unfinished work is kept."""
        return self.path / "checkpoints"

    def save(self, work: Work, outcome: Outcome, *, seconds: float) -> None:
        """Keep the outcome of finished work and drop its checkpoints."""
        for name, content in outcome.weights.items():
            write_atomically(self._weights(name), content)
        described = {
            "config": self.config,
            "work": _content(work),
            "records": finite(outcome.measurements),  # losses of a training that diverged are not
            "seconds": seconds,
            "weights": {name: sha256(content) for name, content in outcome.weights.items()},
        }
        write_atomically(
            self._point(work), json.dumps({"sha256": _digest(described), **described}, indent=1, allow_nan=False)
        )
        shutil.rmtree(self.checkpoints / work.name, ignore_errors=True)

    def finished(self, work: Work) -> bool:
        """Whether its outcome is kept."""
        return self._point(work).exists()

    def load(self, work: Work) -> Finished:
        """Finished work's measurements and seconds.

        Raises:
            ValueError: if its file, or one of its weights, is damaged, or belongs to another config.
        """
        path = self._point(work)
        content = _read_json(path)
        if content.pop("sha256", None) != _digest(content) or not content.get("records"):
            raise ValueError(f"{path} is damaged (its checksum differs); {_ANEW}")
        if (content.get("config"), content.get("work")) != (self.config, _content(work)):
            raise ValueError(f"{path} belongs to another config; {_ANEW}, or choose another --out")
        for name, digest in content["weights"].items():
            weights = self._weights(name)
            if not weights.is_file() or sha256(weights.read_bytes()) != digest:
                raise ValueError(f"{weights} is missing or damaged; delete {path} and --resume: both are made again")
        return Finished(content["records"], content["seconds"])

    def write_checksums(self) -> None:
        """Write SHA256SUMS, which `sha256sum --check` reads, for all that the folder holds."""
        files = sorted(path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith("."))
        lines = [
            f"{sha256(path.read_bytes())}  {path.relative_to(self.path)}\n" for path in files if path.name != _SUMS
        ]
        write_atomically(self.path / _SUMS, "".join(lines))

    def _weights(self, name: str) -> Path:
        return self.path / "weights" / f"{name}.safetensors"

    def _point(self, work: Work) -> Path:
        return self.path / "points" / f"{work.name}.json"


_SUMS = "SHA256SUMS"
_ANEW = "delete it and --resume: it is made again"
_OWN = {"points", "weights", "checkpoints", "results.csv", "exact.csv", "results.parquet"}
_OWN |= {"figure.png", "figure.svg", "report.html", _SUMS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def _content(work: Work) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(asdict(work), allow_nan=False))
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())


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
            _check_config(path, json.loads(json.dumps(config, allow_nan=False)), resume=resume)
            for folder in ("points", "weights", "checkpoints"):
                (path / folder).mkdir(exist_ok=True)
            yield OutputFolder(path.resolve(), sha256((path / "config.json").read_bytes()))
    except Timeout:
        raise ValueError(f"{path} is in use by another run; wait for it or choose another --out") from None
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = error.filename or path
        raise OSError(
            f"{where}: {os.strerror(error.errno)}; what is done is kept in {path}: make room, and --resume"
        ) from None


def _check_config(path: Path, config: dict[str, Any], *, resume: bool) -> None:
    file = path / "config.json"
    if not file.exists():
        _check_rest(path, resume=resume)
        write_atomically(file, json.dumps(config, indent=1, allow_nan=False))
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


def _check_rest(path: Path, *, resume: bool) -> None:
    """Whether a folder without config.json may get one: parts that are done name their config, checkpoints do not."""
    found = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    own = "points" in found and found <= _OWN
    if found and not (resume and own):
        also = "; add --resume to go on with its results" if own else ""
        raise ValueError(f"{path} is not empty and holds no config.json; choose a new folder for --out{also}")
    if "checkpoints" in found and any((path / "checkpoints").iterdir()):
        raise ValueError(
            f"{path} holds no config.json that its checkpoints belong to; delete {path / 'checkpoints'} and --resume"
        )


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
    except RecursionError:
        raise ValueError(f"{path} is damaged (it is nested too deeply); {_ANEW}") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number with more digits than Python reads
        raise ValueError(f"{path} is damaged ({error}); {_ANEW}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (it holds no object); {_ANEW}")
    return content
