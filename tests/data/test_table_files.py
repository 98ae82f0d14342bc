"""Files as people have them: each is read as its owner means it, or refused in one line that names the cure."""

import bz2
import datetime
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gladient.cli import main
from gladient.data import read_table, table_prompts
from gladient.data.numerals import numerals

X = [1234.5, -3341.08, 0.9054, 12.0, 5.25, 1000000.5, -7.0, 0.125]
Y = [1.0, 2.0, 3.0, 4.0, 5.5, 6.0, 7.0, 8.0]
TASKS = [name for name in ("Å land", "NA") for _ in range(4)]
ROLES = ["None", "None", "query", "query"] * 2
OPTIONS: dict[str, Any] = {"target": "y", "features": ["x"], "task": "task", "role": "role"}


def text(sep: str = ",", *, number: Callable[[float], str] = repr, end: str = "\n", tasks: list[str] = TASKS) -> str:
    rows = [sep.join([t, r, number(y), number(x)]) for t, r, y, x in zip(tasks, ROLES, Y, X, strict=True)]
    return end.join([sep.join(["task", "role", "y", "x"]), *rows, ""])


def spelled(thousands: str, decimal: str) -> Callable[[float], str]:
    """1,234.5 and the like."""
    return lambda value: f'"{value:,}"'.replace(",", "T").replace(".", decimal).replace("T", thousands)


def right(frame: Any, rtol: float = 1e-12, **options: Any) -> None:
    table = table_prompts(frame, **{**OPTIONS, **options})
    assert table.roles == ("None",)
    assert list(table.names) == ["task Å land", "task NA"]
    for k, (examples, first) in enumerate(zip(table.prompts.roles, (0, 2), strict=True)):
        rows = [first, first + 1, first + 4, first + 5]
        np.testing.assert_array_equal(table.rows[k], rows)
        np.testing.assert_allclose(examples.X[:, 0], np.array(X)[rows], rtol=rtol)
        np.testing.assert_allclose(examples.y, np.array(Y)[rows], rtol=rtol)


ENCODED = [
    (sep, encoding, said)
    for sep in (",", ";", "\t", "|")
    for encoding, said in (
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", None),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", None),
        ("cp1252", "cp1252"),
    )
]


@pytest.mark.parametrize(("sep", "encoding", "said"), ENCODED)
def test_encodings_and_separators(sep: str, encoding: str, said: str | None, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(text(sep).encode(encoding))
    frame = read_table(tmp_path / "t.csv")
    right(frame)
    assumed = " ".join(frame.attrs["assumed"])
    assert ("encoding" in assumed) == (said is not None)
    assert said is None or said in assumed
    assert ("separator" in assumed) == (sep != ",")
    right(read_table(tmp_path / "t.csv", sep="tab" if sep == "\t" else sep, encoding=encoding))


def zipped(content: str, *names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


WRITTEN: dict[str, tuple[str | bytes, dict[str, Any]]] = {
    "Windows lines": (text(end="\r\n"), {}),
    "old Mac lines": (text(end="\r"), {}),
    "comments first": ("# of 2020\n# made by hand\n" + text(), {}),
    "sep= of Excel": ("sep=;\n" + text(";"), {}),
    "empty lines": (text().replace("\n", "\n\n"), {}),
    "rows of separators": (text() + ",,,\n,,,\n", {}),
    "names with spaces": (text().replace("task,role,y,x", " task , role,y , x"), {}),
    "spaces after commas": (text().replace(",", ", "), {}),
    "quoted": ("\n".join('"' + line.replace(",", '","') + '"' for line in text().splitlines()), {}),
    "a column more": (text().replace("\n", ",u\n"), {}),
    "a comma in a name": (text(tasks=[f'"{t}"' for t in TASKS]), {}),
    "packed by gzip": (gzip.compress(text().encode()), {"name": "t.csv.gz"}),
    "packed by bzip2": (bz2.compress(text().encode()), {"name": "t.CSV.BZ2"}),
    "packed by xz": (lzma.compress(text().encode()), {"name": "t.csv.xz"}),
    "packed by zip": (zipped(text(), "inside.csv"), {"name": "t.csv.zip"}),
    "packed on a Mac": (zipped(text(), "inside.csv", "__MACOSX/._inside.csv"), {"name": "t.zip"}),
    "tsv": (text("\t"), {"name": "t.TSV"}),
    "spaces alone": (text(" ").replace("Å land", "Å_land"), {}),
    "comma": (text(";", number=spelled("", ",")), {}),
    "comma, quoted": (text(number=spelled("", ",")), {}),
    "comma, said": (text(";", number=spelled("", ",")), {"decimal": ","}),
    "1,234.5": (text(number=spelled(",", ".")), {}),
    "1,234.5, said": (text(number=spelled(",", ".")), {"thousands": ","}),
    "1.234,5": (text(";", number=spelled(".", ",")), {}),
    "1.234,5, said": (text("\t", number=spelled(".", ",")), {"decimal": ",", "thousands": "."}),
    "1 234,5": (text(";", number=spelled(" ", ",")), {}),
    "1 234.5": (text(number=spelled(" ", ".")), {}),
    "no-break space": (text(";", number=spelled("\u00a0", ",")), {}),
    "narrow space": (text(";", number=spelled("\u202f", ",")), {}),
    "1'234.5": (text(number=spelled("'", ".")), {}),
    "1’234.5": (text(number=spelled("’", ".")), {}),
    "a true minus": (text().replace("-", "−"), {}),
    "plus signs": (text(number=lambda v: f"{v:+}"), {}),
    "exponents": (text(number=lambda v: f"{v:.9e}"), {}),
    "exponents with a comma": (text(";", number=lambda v: f"{v:.9e}".replace(".", ",")), {}),
    "dollars": (text(number=lambda v: f"${v}"), {}),
    "euros behind": (text(";", number=lambda v: f"{v} €".replace(".", ",")), {}),
    "percent": (text(number=lambda v: f"{100 * v!r}%"), {}),
    "percent with a space": (text(number=lambda v: f"{100 * v!r} %"), {}),
    "percent with a comma": (text(";", number=lambda v: f"{100 * v!r}%".replace(".", ",")), {}),
    "Latin, said": (text().encode("latin-1"), {"encoding": "latin-1"}),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_ways_to_write(name: str, tmp_path: Path) -> None:
    content, options = WRITTEN[name]
    path = tmp_path / options.get("name", "t.csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    frame = read_table(path, **{key: value for key, value in options.items() if key != "name"})
    if name == "spaces alone":
        frame["task"] = frame["task"].replace("Å_land", "Å land")
    right(frame)


def test_numbers_that_read_both_ways_take_the_sign_of_the_others(tmp_path: Path) -> None:
    """1.234 beside 0,5 is 1234; beside nothing that tells, 1,234 is refused and 1.234 is what float() says."""
    for content, expected in (
        ("a;b\n1.234;0,5\n2.500;1,5\n", [1234.0, 2500.0]),
        ("a;b\n1,234;0.5\n2,500;1.5\n", [1234.0, 2500.0]),
        ("a;b\n1.234;5\n2.500;1\n", [1.234, 2.5]),
    ):
        (tmp_path / "t.csv").write_text(content)
        assert read_table(tmp_path / "t.csv")["a"].tolist() == expected
    (tmp_path / "t.csv").write_text("a;b\n1,234;5\n2,500;1\n")
    assert read_table(tmp_path / "t.csv")["a"].tolist() == ["1,234", "2,500"]
    assert read_table(tmp_path / "t.csv", thousands=",")["a"].tolist() == [1234.0, 2500.0]
    assert read_table(tmp_path / "t.csv", decimal=",")["a"].tolist() == [1.234, 2.5]


FRAME = pd.DataFrame({"task": TASKS, "role": ROLES, "y": Y, "x": X})


def stored(frame: pd.DataFrame, kind: str) -> bytes:
    file = io.BytesIO()
    getattr(frame, f"to_{kind}")(file)
    return file.getvalue()


def excel(*frames: pd.DataFrame, **options: Any) -> bytes:
    pytest.importorskip("openpyxl")
    file = io.BytesIO()
    with pd.ExcelWriter(file, engine="openpyxl") as book:
        for i, frame in enumerate(frames):
            frame.to_excel(book, sheet_name=f"sheet {i}", index=False, **options)
    return file.getvalue()


TYPED: dict[str, tuple[Callable[[], bytes], str]] = {
    "parquet": (lambda: stored(FRAME, "parquet"), "t.parquet"),
    "PARQUET": (lambda: stored(FRAME, "parquet"), "t.PARQUET"),
    "parquet called csv": (lambda: stored(FRAME, "parquet"), "t.csv"),
    "parquet without a name": (lambda: stored(FRAME, "parquet"), "t"),
    "names in the index": (lambda: stored(FRAME.set_index(["task", "role"]), "parquet"), "t.parquet"),
    "an index of its own": (lambda: stored(FRAME.set_index(np.arange(8) * 7), "parquet"), "t.parquet"),
    "categories": (lambda: stored(FRAME.astype({"task": "category", "role": "category"}), "parquet"), "t.parquet"),
    "nullable numbers": (lambda: stored(FRAME.astype({"x": "Float64", "y": "Float64"}), "parquet"), "t.parquet"),
    "decimals": (lambda: stored(FRAME.assign(x=[Decimal(str(x)) for x in X]), "parquet"), "t.parquet"),
    "text": (lambda: stored(FRAME.assign(x=[str(x) for x in X]), "parquet"), "t.parquet"),
    "text with a comma": (
        lambda: stored(FRAME.assign(x=[str(x).replace(".", ",") for x in X]), "parquet"),
        "t.parquet",
    ),
    "float32": (lambda: stored(FRAME.astype({"x": "float32"}), "parquet"), "t.parquet"),
    "feather": (lambda: stored(FRAME, "feather"), "t.feather"),
    "arrow": (lambda: stored(FRAME, "feather"), "t.arrow"),
    "excel": (lambda: excel(FRAME), "t.xlsx"),
    "XLSX": (lambda: excel(FRAME), "t.XLSX"),
    "excel called csv": (lambda: excel(FRAME), "t.csv"),
    "two sheets": (lambda: excel(FRAME, FRAME[["x"]]), "t.xlsx"),
    "empty rows above": (lambda: excel(FRAME, startrow=3), "t.xlsx"),
    "numbers as text": (lambda: excel(FRAME.assign(x=[str(x) for x in X])), "t.xlsx"),
    "numbers and text": (lambda: excel(FRAME.assign(x=[str(X[0]), *X[1:]])), "t.xlsx"),
}


@pytest.mark.parametrize("name", TYPED)
def test_files_with_types(name: str, tmp_path: Path) -> None:
    make, path = TYPED[name]
    (tmp_path / path).write_bytes(make())
    frame = read_table(tmp_path / path)
    right(frame, rtol=1e-6 if name == "float32" else 1e-12)
    assert bool(frame.attrs["assumed"]) == (name in ("two sheets", "text with a comma"))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        buffer = io.BytesIO(text(";").encode())

    monkeypatch.setattr("sys.stdin", Stream())
    right(read_table(Path("-")))


@pytest.mark.parametrize("mark", ["", "NA", "n/a", "NaN", "null", "None", "?", "-", ".", "#N/A"])
def test_what_stands_for_missing_numbers(mark: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text().replace("Å", "A") + f"NA,query,3,{mark}\n")
    frame = read_table(tmp_path / "t.csv")
    with pytest.raises(
        ValueError, match=r"column 'x' misses 1 of 9 values; drop those rows \(--drop-missing\).* row 9 is"
    ):
        table_prompts(frame, **OPTIONS)
    table = table_prompts(frame, **OPTIONS, drop_missing=True)
    assert len(table.prompts.query.y) == 4
    assert table.said == ("left out 1 of 9 rows with missing values (x 1)",)


@pytest.mark.parametrize(("mark", "na"), [("-999", "-999"), ("-999.0", "-999"), ("missing", "missing"), ("inf", "inf")])
def test_what_is_said_to_mean_missing(mark: str, na: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text().replace("Å", "A") + f"NA,query,3,{mark}\n")
    table = table_prompts(read_table(tmp_path / "t.csv", na=[na]), **OPTIONS, drop_missing=True)
    assert table.said == ("left out 1 of 9 rows with missing values (x 1)",)
    pd.read_csv(tmp_path / "t.csv", keep_default_na=False).to_parquet(tmp_path / "t.parquet")
    typed = table_prompts(read_table(tmp_path / "t.parquet", na=[na]), **OPTIONS, drop_missing=True)
    assert typed.said == table.said


def lines(*rows: str) -> bytes:
    return "\n".join(["task,role,y,x", *rows]).encode()


GOOD = [f"{t},{r},{y},{x}" for t, r, y, x in zip("aaaabbbb", ROLES, Y, X, strict=True)]


def with_x(*values: Any) -> bytes:
    return lines(*[f"{row.rsplit(',', 1)[0]},{value}" for row, value in zip(GOOD, values, strict=True)])


REFUSED: dict[str, tuple[bytes, str, list[str], str]] = {
    "empty": (b"", "t.csv", [], "cannot be read as CSV: No columns to parse"),
    "empty xlsx": (b"", "t.xlsx", [], "cannot be read as Excel"),
    "header alone": (lines(), "t.csv", [], "has 0 rows and 4 columns; it is not a table"),
    "one column": (b"y\n1\n2\n", "t.csv", [], "2 rows and 1 columns; it is not a table"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "t.csv", [], "holds bytes of 0, which no text does"),
    "a zip file": (b"PK\x03\x04not a book", "t.csv", [], "cannot be read as Excel"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1", "t.xls", [], "Excel 2003 or older; save it as .xlsx or CSV"),
    "broken parquet": (b"PAR1 but not really", "t.parquet", [], "cannot be read as Parquet"),
    "broken gzip": (b"\x1f\x8bno", "t.csv.gz", [], "cannot be unpacked"),
    "two tables": (zipped("a,b\n1,2\n", "a.csv", "b.csv"), "t.zip", [], "holds 2 files (a.csv, b.csv …)"),
    "no header": (b"1,2,3,4\n5,6,7,8\n9,1,2,3\n", "t.csv", [], "put a row with names of columns first"),
    "a row too long": (lines(*GOOD, "a,query,1,2,3"), "t.csv", [], "in line 10, saw 5, separated by ','; --sep"),
    "wrong encoding": (text().encode("cp1252"), "t.csv", ["--encoding", "utf-8"], "is 0xc5, which is not utf-8; say"),
    "no encoding": (lines(*GOOD), "t.csv", ["--encoding", "utf-99"], "there is no encoding 'utf-99'; --encoding takes"),
    "wrong separator": (lines(*GOOD), "t.csv", ["--sep", ";"], "8 rows and 1 columns; it is not a table"),
    "bad decimal": (lines(*GOOD), "t.csv", ["--decimal", "x"], "decimal is 'x'; it is '.' or ','"),
    "bad thousands": (lines(*GOOD), "t.csv", ["--thousands", "x"], "thousands is 'x'; it is"),
    "both commas": (lines(*GOOD), "t.csv", ["--decimal", ",", "--thousands", ","], "are both ','; they differ"),
    "x twice": (lines(*GOOD).replace(b"role,y", b"role,x"), "t.csv", ["--target", "x"],
                "column 'x' stands in the places 3 and 4 of the table"),
    "no column": (lines(*GOOD), "t.csv", ["--target", "Y"], "the table has task, role, y, x; perhaps 'y'"),
    "no column, near": (lines(*GOOD), "t.csv", ["--task", "tasks"], "perhaps 'task'"),
    "an open quote": (with_x(1, 2, '"3', 4, 5, 6, '7"', 8), "t.csv", [], "a quotation mark in or before that row"),
    "words": (with_x(1, 2, 3, "abc", 5, 6, 7, 8), "t.csv", [],
              "column 'x' holds 'abc' in row 4 (task a, role query), which is not a number; code categories "
              "as 0 and 1; if it means missing, say --na abc"),
    "both signs": (with_x(1.5, '"2,5"', 3.5, 4, 5, 6, 7, 8), "t.csv", [], "column 'x' holds '2,5' in row 2"),
    "reads both ways": (with_x(*['"1,234"', '"2,500"'] * 4).replace(b"5.5", b"5").replace(b".0", b""), "t.csv", [],
                        "which is not a number; it reads both ways: say --decimal , or --thousands ,"),
    "some percent": (with_x("12%", "13%", 0.5, "1%", "2%", "3%", "4%", "5%"), "t.csv", [], "holds '0.5' in row 3"),
    "infinite": (with_x(1, 2, "inf", 4, 5, 6, 7, 8), "t.csv", [],
                 "column 'x' holds inf in row 3 (task a, role query), which is not a number; leave that row"),
    "minus infinity": (with_x(1, 2, "-Infinity", 4, 5, 6, 7, 8), "t.csv", [], "column 'x' holds -inf in row 3"),
    "dates": (with_x(*[f"2020-01-0{i}" for i in range(1, 9)]), "t.csv", [],
              "'2020-01-01' in row 1 (task a, role None), which is not a number; it is a date: --elapsed x"),
    "dates that nothing tells": (with_x(*[f"0{i}/02/2020" for i in range(1, 9)]), "t.csv", ["--elapsed", "x"],
                                 "date '01/02/2020' nothing tells which is the month; write dates as 2010-01-31"),
    "no dates": (with_x(*range(8)), "t.csv", ["--elapsed", "x"], "column 'x' holds '0' in row 1, which is no date"),
    "one word": (with_x(*["red"] * 8), "t.csv", [], "column 'x' is 'red' in every row; leave it out"),
    "words as labels": (lines(*GOOD).replace(b",query,", b",query,z"), "t.csv", [], "column 'y' holds 'z3.0' in row 3"),
    "all missing": (with_x(*["NA"] * 8), "t.csv", ["--drop-missing"], "each of the 8 rows misses a value in y, x"),
    "one group": (lines(*GOOD[:4]), "t.csv", [], "column 'task' has one value"),
    "no query": (lines(*GOOD).replace(b"query", b"q"), "t.csv", [], "some rows must be 'query': --query"),
    "no sources": (lines(*GOOD).replace(b"None", b"query"), "t.csv", [], "every row of column 'role' is 'query'"),
    "a role lacks": (lines(*GOOD[:6]), "t.csv", [], "task b has no row of role 'query'; each prompt needs every role"),
    "a name lacks": (lines(*GOOD[:7], ",query,1,2"), "t.csv", [], "column 'task' misses 1 of 8 values"),
    "panel and task": (lines(*GOOD), "t.csv", ["--time", "y"], "--time and --task are both given"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, path, options, message = REFUSED[name]
    if path.endswith(".xlsx") or content.startswith(b"PK"):
        pytest.importorskip("openpyxl")
    (tmp_path / path).write_bytes(content)
    given = {"--target": "y", "--features": "x", "--task": "task", "--role": "role"}
    given |= dict(zip(options[::2], options[1::2], strict=False)) if len(options) % 2 == 0 else {}
    extra = options if len(options) % 2 else []
    code = main(
        ["data", str(tmp_path / path), *(part for pair in given.items() for part in pair), *extra, "--show-prompts"]
    )
    captured = capsys.readouterr()
    assert code == 2, captured.out
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_folder_and_nothing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(
            ValueError, match="does not exist, or is a folder; give a CSV, Parquet, Feather, Excel or Stata"
        ):
            read_table(path)


def test_codes_and_long_numbers_stay_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c\n0014,12345678901234567,1\n0015,12345678901234568,2\n")
    frame = read_table(tmp_path / "t.csv")
    assert frame["a"].tolist() == ["0014", "0015"]
    assert frame["b"].tolist() == ["12345678901234567", "12345678901234568"]
    assert frame["c"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("roles", "query"), [("0.0 1.0", "1"), ("0 1", "1.0"), ("0014 0015", "0015"), ("None NA", "NA")]
)
def test_names_as_they_are_typed(roles: str, query: str, tmp_path: Path) -> None:
    first, second = roles.split()
    (tmp_path / "t.csv").write_bytes(lines(*GOOD).replace(b"None", first.encode()).replace(b"query", second.encode()))
    table = table_prompts(read_table(tmp_path / "t.csv"), **OPTIONS, query=query)
    assert table.roles == (first.removesuffix(".0"),)
    assert table.prompts.query.y.tolist() == [3.0, 4.0, 7.0, 8.0]


def test_categories_become_levels_beside_the_commonest() -> None:
    frame = FRAME.assign(x=["b", "a", "b", "c", "b", "a", "c", "b"])
    table = table_prompts(frame, **OPTIONS)
    assert table.features == ("x=a", "x=c")
    np.testing.assert_array_equal(table.prompts.roles[0].X, [[0, 0], [1, 0], [0, 0], [1, 0]])
    assert table.said == ("x is a, c beside b, 1 or 0 each",)
    many = FRAME.loc[FRAME.index.repeat(8)].assign(x=[f"k{i}" for i in range(64)])
    with pytest.raises(
        ValueError, match=r"column 'x' holds 64 categories \(k0, k1, k2 …\); 25 are the most: leave it out"
    ):
        table_prompts(many, **OPTIONS)


@pytest.mark.parametrize(
    "write",
    [
        lambda d: d.isoformat(),
        lambda d: d.strftime("%Y/%m/%d"),
        lambda d: d.strftime("%d.%m.%Y"),
        lambda d: d.strftime("%d/%m/%Y"),
        lambda d: d.strftime("%m/%d/%Y"),
        lambda d: d.strftime("%d/%m/%y"),
        lambda d: d.strftime("%d %b %Y"),
        lambda d: d.strftime("%b %d, %Y"),
        lambda d: d.strftime("%Y-%m-%d %H:%M"),
        lambda d: d.strftime("%Y-%m-%dT%H:%M:%SZ"),
        pd.Timestamp,
        lambda d: pd.Timestamp(d, tz="UTC"),
    ],
)
def test_dates_as_elapsed_days(write: Callable[[datetime.date], Any]) -> None:
    days = [0, 3, 14, 31, 60, 90, 200, 400]
    dates = [write(datetime.date(2019, 12, 30) + datetime.timedelta(days=day)) for day in days]
    table = table_prompts(FRAME.assign(x=dates), **OPTIONS, elapsed=["x"])
    assert table.prompts.roles[0].X[:, 0].tolist() == [0.0, 3.0, 60.0, 90.0]


def test_cells_that_hold_several_values(tmp_path: Path) -> None:
    FRAME.assign(x=[[1.0, 2.0]] * 8, y=[{"a": 1}] * 8).to_parquet(tmp_path / "t.parquet")
    frame = read_table(tmp_path / "t.parquet")
    for options, message in (
        ({}, "'x' holds a ndarray"),
        ({"features": ["y"]}, "'y' holds a dict in each row; give one"),
    ):
        with pytest.raises(ValueError, match=message):
            table_prompts(frame, **{**OPTIONS, **options})
    with pytest.raises(ValueError, match="column 'x' holds complex numbers; give one number or name a row"):
        table_prompts(FRAME.assign(x=np.array(X) + 1j), **OPTIONS)


def test_features_with_a_comma_between_them() -> None:
    frame = FRAME.assign(**{"a,b": X, "b": Y})
    assert table_prompts(frame, **{**OPTIONS, "features": ["x, b"]}).features == ("x", "b")
    assert table_prompts(frame, **{**OPTIONS, "features": ["a,b", "b"]}).features == ("a,b", "b")


def test_it_is_only_said_what_was_assumed() -> None:
    for texts, said in (
        (["12.5%", "-3.25%"], ["took % for hundredths"]),
        (["$12.5", "$1,234.5"], ["took ',' for the sign of thousands (--thousands)"]),
        (["0,5", "1.234,5"], ["took ',' for the decimal sign (--decimal)"]),
    ):
        assert numerals(pd.DataFrame({"x": texts}), None, ())[1] == said
