"""Sheets of a workbook, and files of Stata."""

import io
from pathlib import Path

import pytest
from test_table_files import FRAME, excel, right, text

from gladient.data import read_table


@pytest.mark.parametrize("sheet", ["sheet 1", "2"])
def test_a_sheet_by_name_or_number(sheet: str, tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    path.write_bytes(excel(FRAME[["x"]], FRAME))
    frame = read_table(path, sheet=sheet)
    right(frame)
    assert frame.attrs["assumed"] == ()
    with pytest.raises(ValueError, match=r"no sheet '3'; it has 'sheet 0', 'sheet 1', or give a number from 1"):
        read_table(path, sheet="3")


def test_the_sheet_that_is_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    path.write_bytes(excel(FRAME, FRAME[["x"]]))
    assert read_table(path).attrs["assumed"] == ("took the first sheet of 'sheet 0', 'sheet 1' (--sheet)",)
    (tmp_path / "t.csv").write_text(text())
    with pytest.raises(ValueError, match=r"sheet is '1' and .* is CSV; only a workbook of Excel has sheets"):
        read_table(tmp_path / "t.csv", sheet="1")


@pytest.mark.parametrize("name", ["t.dta", "t.csv"])
def test_stata(name: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    FRAME.to_stata(file, write_index=False, version=118)
    (tmp_path / name).write_bytes(file.getvalue())
    right(read_table(tmp_path / name))
