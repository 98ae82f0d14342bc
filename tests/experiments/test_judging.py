"""`gladient worth`: what it finds, that it goes on where it was stopped, and what it refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diary import Diary, texts
from gladient import lens
from gladient.cli import main
from gladient.experiments import judging
from gladient.lens.load import Loaded


def encode(text: str) -> tuple[Tensor, list[str]]:
    return torch.tensor([[int(word) for word in text.split()]]), text.split()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _here: None) -> list[str]:
    """A command about the diary, whose passes are read in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judging, "load_models", lambda name, **options: [Loaded("diary", Diary(), encode)])
    judging._module.cache_clear()
    for name, count, seed in (("judged", 12, 0), ("others", 6, 1)):
        words = torch.cat(texts(count, seed, (24,))).tolist()
        (tmp_path / f"{name}.txt").write_text(" ".join(map(str, words)), "utf-8")
    return ["worth", "owner/diary", "--file", "judged.txt", "--calibrate", "others.txt", "--length", "24"]


def test_the_table_is_that_of_the_function(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*asked, "--steps", "2", "--json", "--out", "found.csv"]) == 0
    found = json.loads(capsys.readouterr().out)["diary"]
    wanted = lens.worth(Diary(), texts(12, 0, (24,)), calibrate=texts(6, 1, (24,)), steps=2)
    for row, told in zip((wanted.together, *wanted.heads), found["rows"], strict=True):
        assert (row.layer, row.head) == (told["layer"], told["head"])
        for name in ("no_gate", "fixed", "ablated"):
            assert told[name]["mean"] == pytest.approx(getattr(row, name).mean, abs=1e-6)
            assert told[name]["error"] == pytest.approx(getattr(row, name).error, abs=1e-6)
    rows = list(csv.DictReader(Path("found.csv").read_text("utf-8").splitlines()))
    assert [(row["model"], row["layer"], row["head"]) for row in rows] == [
        ("diary", "", ""),
        ("diary", "0", "0"),
        ("diary", "0", "1"),
    ]
    assert float(rows[2]["alone"]) == found["rows"][2]["alone"]["mean"]


def test_a_constant_gate_and_a_needed_one(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*asked, "--steps", "0", "--json"]) == 0
    _, constant, needed = json.loads(capsys.readouterr().out)["diary"]["rows"]
    assert abs(constant["fixed"]["mean"]) <= constant["fixed"]["error"] + 1e-7
    assert needed["fixed"]["mean"] > 5 * needed["fixed"]["error"] > 0
    assert Path("results/worth-owner-diary.csv").is_file()


def test_what_was_read_is_not_read_again(
    asked: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, count, most = judging.read_losses, list[Any](), [4]

    def stopped(*arguments: Any) -> Tensor:
        count.append(arguments[2])
        if len(count) > most[0]:
            raise ValueError("stopped")
        return read(*arguments)

    whole = ["--steps", "1", "--json", "--out"]
    assert main([*asked, *whole, "whole.csv"]) == 0
    monkeypatch.setattr(judging, "read_losses", stopped)
    assert main([*asked, *whole, "part.csv"]) == 2
    assert not Path("part.csv").exists()
    done = len(list(Path("part/points").iterdir())) - 1
    count.clear()
    most[0] = 12
    assert main([*asked, *whole, "part.csv", "--resume"]) == 0
    assert len(count) == 12 - done
    assert Path("part.csv").read_bytes() == Path("whole.csv").read_bytes()
    capsys.readouterr()
    assert main([*asked, *whole, "part.csv"]) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main([*asked, "--steps", "3", "--out", "part.csv", "--resume"]) == 2
    assert "another config (it differs in fit_steps)" in capsys.readouterr().err


def test_a_table_for_parquet(asked: list[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([*asked, "--steps", "0", "--heads", "1", "--out", "found.parquet"]) == 0
    rows = parquet.read_table("found.parquet").to_pylist()
    assert [(row["layer"], row["head"]) for row in rows] == [(None, None), (0, 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--file": None}, "--file must be given: a text on which gates are judged"),
        ({"--calibrate": "judged.txt"}, r"texts[0] is calibrate[0]; decays are fitted on other texts"),
        ({"--file": "absent.txt"}, "absent.txt"),
        ({"--length": "1"}, "--length is 1; it must be at least 2"),
        ({"--length": "200"}, "judged.txt has 288 tokens, which make 1 texts of 200"),
        ({"--out": "found.txt"}, "out is found.txt; it names the table to write, .csv or .parquet"),
        ({"--layers": "3"}, "layer 3 is not a gated layer"),
        ({"--heads": "7"}, "there is no head 7"),
        ({"--device": "abacus"}, "device is 'abacus'"),
    ],
)
def test_bad_input_is_one_line(
    asked: list[str], capsys: pytest.CaptureFixture[str], change: dict[str, str | None], message: str
) -> None:
    given = dict(zip(asked[2::2], asked[3::2], strict=True)) | change
    words = [word for pair in given.items() if pair[1] is not None for word in pair]
    assert main([*asked[:2], *map(str, words)]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert message in told[-1]
    assert not Path("results/worth-owner-diary.csv").exists()
