"""The folder of a run, damaged in every way: each error says what to do, and what it says works."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gladient.experiments import NamedSetting, TrainedStack
from gladient.experiments.engine.output import open_output
from gladient.training import TrainingConfig

CONFIG = {"figure": "f", "seeds": 1}
PANEL = NamedSetting.isotropic((2, 2), (0.2, 0.8), 2)
WORKS = [
    TrainedStack(name, name, (PANEL,), (0,), TrainingConfig(steps=4, batch_size=4, checkpoint_every=2), 10)
    for name in ("scalar_gate", "linear_attention")
]


class StoppedError(Exception):
    pass


def run(out: Path, *, resume: bool, stop: bool = False) -> list[object]:
    """All records; or, with `stop`, the first part and half of the second."""
    with open_output(out, config=CONFIG, resume=resume) as output:
        for work in WORKS:
            if not output.finished(work):
                scratch = output.checkpoints / work.name
                scratch.mkdir(exist_ok=True)

                def on_step(done: int, last: bool = work is WORKS[-1]) -> None:
                    if stop and last and done == 3:
                        raise StoppedError

                output.save(work, work.run(scratch, on_step), seconds=1.0)
        return [output.load(work).measurements for work in WORKS]


def obey(out: Path, error: Exception, spare: Iterator[Path]) -> tuple[Path, bool]:
    """What a reader does who takes the error at its word: the folder and whether to resume."""
    told = str(error)
    assert str(out) in told
    if deleted := re.search(r"delete (/[^\s,;:]+)", told):
        path = Path(deleted[1])
    elif re.search(r"delete it", told):
        path = Path(re.search(r"/[^\s,;:]+", told)[0])  # type: ignore[index]
    else:
        assert "choose a" in told
        assert "--out" in told
        return next(spare), False
    assert "--resume" in told or "starts again" in told or "train or save again" in told
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return out, True


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was ended: one part done, a checkpoint of the other."""
    out = tmp_path_factory.mktemp("run") / "out"
    with pytest.raises(StoppedError):
        run(out, resume=False, stop=True)
    return out


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """What the run ends with if nothing happens."""
    return run(tmp_path_factory.mktemp("whole") / "out", resume=False)


FILES = [
    "config.json",
    "points/scalar_gate.json",
    "weights/scalar_gate.safetensors",
    "checkpoints/linear_attention/checkpoint.safetensors",
]
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "a bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "deep": lambda content: b"[" * 100_000,
    "NaN": lambda content: b'{"figure": NaN}',
    "digits": lambda content: b'{"seeds": ' + b"9" * 10_000 + b"}",
    "not UTF-8": lambda content: b"\xff\xfe\xff",
    "null bytes": lambda content: bytes(len(content)),
    "list": lambda content: b"[1]",
    "another": lambda content: b'{"figure": "g"}',
    "object": lambda content: b"{}",
}
NOT_JSON = ("missing", "empty", "half", "a bit", "list")  # to a file of tensors, any text is the same damage


CASES = [(file, damage) for file in FILES for damage in DAMAGES if file.endswith("json") or damage in NOT_JSON]


@pytest.mark.parametrize(("file", "damage"), CASES)
def test_every_advice_works(broken_off: Path, expected: list[object], tmp_path: Path, file: str, damage: str) -> None:
    """It is followed until the run is done, and then the run is as if nothing had happened."""
    spare = iter([tmp_path / "second"])
    out, resume = tmp_path / "out", True
    shutil.copytree(broken_off, out)
    content = DAMAGES[damage]((out / file).read_bytes())
    (out / file).unlink() if content is None else (out / file).write_bytes(content)
    for _ in range(4):
        try:
            assert run(out, resume=resume) == expected
            return
        except (ValueError, OSError) as error:
            out, resume = obey(out, error, spare)
    pytest.fail("the advice leads nowhere")


@pytest.mark.parametrize("name", ["config.json", "points", "weights", "checkpoints", "points/scalar_gate.json"])
def test_a_file_for_a_folder_and_the_reverse(broken_off: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(broken_off, out)
    if (out / name).is_dir():
        shutil.rmtree(out / name)
        (out / name).touch()
    else:
        (out / name).unlink()
        (out / name).mkdir()
    with pytest.raises((ValueError, OSError), match=f"{out / name}"):
        run(out, resume=True)


def test_a_part_of_another_version_is_not_taken_for_this_ones(
    broken_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its work is the same and nothing but config.json, which is gone, told the versions."""
    out = tmp_path / "out"
    shutil.copytree(broken_off, out)
    (out / "config.json").unlink()
    shutil.rmtree(out / "checkpoints")
    monkeypatch.setitem(CONFIG, "torch", "1.0")
    with pytest.raises(ValueError, match=r"scalar_gate\.json belongs to another config; delete it and --resume"):
        run(out, resume=True)


def test_a_folder_of_somebody_elses_is_left_alone(broken_off: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(broken_off, out)
    (out / "config.json").unlink()
    with pytest.raises(ValueError, match="choose a new folder for --out; add --resume to go on with its results"):
        run(out, resume=False)
    (out / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"choose a new folder for --out$"):
        run(out, resume=True)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_full_disk_names_the_folder_and_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    out = tmp_path / "out"

    def full(number: int) -> None:
        raise OSError(code, os.strerror(code))

    with open_output(out, config=CONFIG, resume=False):
        pass
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"^{out}/.*: {os.strerror(code)}; what is done is kept in {out}.* and --resume"):
        run(out, resume=True)
    monkeypatch.undo()
    assert run(out, resume=True)
    assert not [path for path in out.rglob(".*") if path.name != ".lock"]
