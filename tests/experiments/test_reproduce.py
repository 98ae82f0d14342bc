"""`gladient reproduce`: the real figure in its quick size, damage to a run, and what it refuses."""

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_figure import Tiny

from gladient.cli import main
from gladient.experiments import make


def test_everything_is_written(finished: Path) -> None:
    with (finished / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "figure",
        "panel",
        "n",
        "model",
        "risk",
        "standard_error",
        "seeds",
        "exact",
        "gap",
        "z",
        "outcome",
    ]
    assert len(rows) == 4 * 2 * 4
    assert (finished / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (finished / "figure.svg").read_text()
    assert len(list((finished / "weights").glob("*.safetensors"))) == 8
    assert not any((finished / "checkpoints").iterdir())
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=finished, check=True)


def test_report_stands_alone_and_marks_what_misses(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    addresses = re.findall(r'(?:href|src)\s*=\s*"([^"]*)"|url\(([^)]*)\)', page)
    assert all(address.startswith(("#", "data:")) for pair in addresses for address in pair if address)
    with (finished / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    judged = [row for row in rows if row["model"] != "without_context"]
    assert {row["outcome"] for row in judged} <= {"reached", "missed", "undecided"}
    assert {row["outcome"] for row in rows if row not in judged} == {""}
    others = [row for row in judged if row["outcome"] != "reached"]
    head, table = page.split("<h2>Points</h2>")
    for outcome in ("reached", "missed", "undecided"):
        assert table.count(f'<tr class="{outcome}">') == sum(row["outcome"] == outcome for row in rows)
    for panel in {row["panel"] for row in rows}:
        own, lost = (sum(row["panel"] == panel for row in some) for some in (judged, others))
        assert f'<td class="text">{panel}</td><td class="text">{own - lost} of {own}; largest' in head
    assert re.search(r'<p class="made">\d{4}-\d\d-\d\d · <code>', head)
    assert "linear attention" in table
    assert "&#34;checkpoint_every&#34;: 20" in page


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["reproduce", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gladient: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_finished_folder_is_not_overwritten(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="add --resume"):
        remake(finished, resume=False)
    with pytest.raises(ValueError, match=r"another config \(it differs in seeds\)"):
        remake(finished, seeds=2)
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


def test_resuming_what_is_finished_changes_no_result(finished: Path) -> None:
    before = (finished / "results.csv").read_bytes()
    remake(finished)
    assert (finished / "results.csv").read_bytes() == before


def remake(out: Path, *, seeds: int | None = None, **options: Any) -> None:
    config = Tiny().config(quick=False, seeds=seeds, device="cpu")
    make(Tiny(), config, out, command="test", **{"resume": True} | options)


def test_out_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert "must name a folder" in refused(capsys, "--out", str(file))
    assert "must name a folder" in refused(capsys, "--out", str(file / "below"))
    assert file.read_text() == "mine"


def test_out_holds_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert "not empty and holds no config.json" in refused(capsys, "--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["thesis.tex"]


def test_out_is_not_writable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not bind a test run as root
    assert "not writable" in refused(capsys, "--out", str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"figure": "other"}'])
def test_config_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    refused(capsys, "--out", str(tmp_path), "--resume")
    assert (tmp_path / "config.json").read_text() == content


def test_a_temporary_file_that_a_kill_left_does_not_block(tmp_path: Path) -> None:
    from gladient.experiments.engine.output import open_output

    (tmp_path / ".config.json.1a2b").write_text("{")
    with open_output(tmp_path, config={"figure": "f"}, resume=True):
        pass


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"risk": 0', '"risk": 1', 1),
        lambda text: text.replace('"risk": 0', '"risk": NaN0', 1),
        lambda text: "{}",
        lambda text: '{"records": []}',
    ],
)
def test_a_changed_point_is_found(finished: Path, tmp_path: Path, damage: Callable[[str], str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    point = next((out / "points").iterdir())
    point.write_text(damage(point.read_text()))
    with pytest.raises(ValueError, match=f"{point} is damaged"):
        remake(out)


def test_changed_weights_are_found(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    weights = next((out / "weights").iterdir())
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=f"{weights} is missing or damaged"):
        remake(out)
    weights.unlink()
    with pytest.raises(ValueError, match=f"{weights} is missing or damaged"):
        remake(out)


def test_damaged_point_is_named(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    point = next((out / "points").iterdir())
    point.write_text(point.read_text()[:50])
    results = (out / "results.csv").read_bytes()
    with pytest.raises(ValueError, match=f"{point} is damaged"):
        remake(out)
    assert (out / "results.csv").read_bytes() == results


def test_foreign_checkpoint_is_named_when_all_other_parts_are_done(
    finished: Path, tmp_path: Path, scheduler: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / "points" / "value_gate-n6.json").unlink()
    (out / "points" / "linear_attention-n6.json").unlink()
    checkpoint = out / "checkpoints" / "value_gate-n6" / "checkpoint.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"not a checkpoint")
    said = "is not a whole gladient checkpoint.*all other parts are done: --resume does what is left"
    with pytest.raises(ValueError, match=f"{checkpoint} {said}"):  # the damaged one is begun first: it costs more
        remake(out, scheduler=scheduler)
    assert checkpoint.read_bytes() == b"not a checkpoint"
    assert (out / "points" / "linear_attention-n6.json").exists()
    checkpoint.unlink()
    remake(out, scheduler=scheduler)
    assert (out / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figure", "mona-lisa"], "no figure 'mona-lisa'; choose one of multitask, weights, depth, marks"),
        (["--workers", "0"], "workers is 0"),
        (["--seeds", "0"], "seeds is 0"),
        (["--device", "abacus"], "device is 'abacus'"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    out = tmp_path / "out"
    assert message in refused(capsys, "--out", str(out), *arguments)
    assert not out.exists()


@pytest.mark.slow
def test_quick_figure_reaches_the_exact_values(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["reproduce", "--quick", "--workers", "2", "--out", str(out)]) == 0
    with (out / "results.csv").open() as file:
        judged = [row for row in csv.DictReader(file) if row["model"] != "without_context"]
    assert len(judged) == 24
    for row in judged:
        assert abs(float(row["gap"])) + 3 * float(row["standard_error"]) / float(row["exact"]) <= 0.03, row
