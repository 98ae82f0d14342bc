"""The notebooks run, and show what they are stored with."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebooks need gladient[docs]")
pytest.importorskip("nbclient")

from doctools.notebooks import FOLDER, execute, page, shown  # noqa: E402

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SLOW = {"change", "run", "see", "train"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW)) for path in NOTEBOOKS],
)
@pytest.mark.filterwarnings("ignore")  # of the kernel's transport, which stays on this machine
def test_a_notebook_shows_what_is_stored(path: Path, tmp_path: Path) -> None:
    """Cells tagged "varies" may print something else on another machine; they must print something."""
    stored, fresh = nbformat.read(path, as_version=4), execute(path, tmp_path)
    for before, now in zip(stored.cells, fresh.cells, strict=True):
        if before.cell_type == "code":
            kinds = [[sorted(output.get("data", [])) for output in cell.outputs] for cell in (before, now)]
            assert kinds[0] == kinds[1], before.source
            if "varies" in before.metadata.get("tags", []):
                assert shown(now)
            else:
                assert shown(now) == shown(before), before.source


def test_there_is_one_for_each_job() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["change", "predict", "run", "see", "train"]


def test_a_page_holds_text_code_and_pictures() -> None:
    lines = list(page(FOLDER / "predict.ipynb"))
    assert lines[1] == "# Predict what each family of gates can reach"
    assert "scalar_gate      6.5278" in lines
    assert sum(line.startswith("![What the cell draws](data:image/png;base64,") for line in lines) == 1
    assert sum(line.startswith("```") for line in lines) % 2 == 0
