"""Tables from files as people have them: text of any kind, Parquet, Feather, Excel, Stata, standard input."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gladient._optional import require
from gladient.data.numerals import decimal_sign, numerals

__all__ = ["read_table"]

PANDAS = {"needed_for": "reading a table", "install": "pip install 'gladient[data]'"}

_SEPARATORS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'", r"\s+": "spaces"}
_MARKS = [
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
_KINDS = {  # how a file begins, whatever it is called
    b"PAR1": "Parquet",
    b"ARROW1": "Feather",
    b"PK\x03\x04": "Excel",
    b"\xd0\xcf\x11\xe0": "old Excel",
    b"<stata_dta>": "Stata",
}
_SUFFIXES = {
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".feather": "Feather",
    ".arrow": "Feather",
    ".xlsx": "Excel",
    ".xlsm": "Excel",
    ".xls": "old Excel",
    ".dta": "Stata",
}
_LOOK = 1 << 16  # characters in which the separator is looked for: hundreds of rows


def read_table(
    path: Path,
    *,
    sep: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    encoding: str | None = None,
    na: Sequence[str] = (),
    sheet: str | None = None,
) -> Any:
    """A table of pandas from a file: text, Parquet, Feather, Excel or Stata; packed by gzip, bzip2, xz or zip.

    Columns of text in which every value is a number become numbers: 1,234.5, 1.234,5, 1 234, 12% and $5 are read as
    people mean them. Codes such as 0014 stay text. An empty cell is missing; NA and None are names where a name stands.

    Args:
        path: the file; - is standard input.
        sep: what separates columns; "tab" for a tab. Found in the first rows if not given.
        decimal: "." or ",".
        thousands: what separates thousands: ",", ".", a space or an apostrophe.
        encoding: of text; UTF-8, or what the file begins with, else cp1252 if not given.
        na: cells that mean missing, as they are written.
        sheet: of a workbook of Excel, by its name or its number from 1; the first if not given.

    Returns:
        The table; its index is the row in the file, counted from 1 below the header. `attrs["assumed"]` lists what was
        found out, in sentences.

    Raises:
        ValueError: if there is no such file, or it is not a table.
        ImportError: if pandas (or pyarrow for Parquet and Feather, openpyxl for Excel) is absent.
    """
    pandas = require("pandas", **PANDAS)
    sign = decimal_sign(decimal, thousands)
    content = _bytes(path)
    kind = next((kind for mark, kind in _KINDS.items() if content.startswith(mark)), None)
    kind = kind or _SUFFIXES.get(_suffix(path), "CSV")
    if sheet is not None and not kind.endswith("Excel"):
        raise ValueError(f"sheet is {sheet!r} and {path} is {kind}; only a workbook of Excel has sheets")
    assumed: list[str] = []
    try:
        if kind == "CSV":
            frame = _text(pandas, content, sep, encoding, assumed)
        else:
            frame = _binary(pandas, content, kind, sheet, assumed)
    except (ValueError, OSError, KeyError) as error:  # pandas' and pyarrow's own are among them
        raise ValueError(f"{path} cannot be read as {kind}: {' '.join(str(error).split())}") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    frame.index = range(1, len(frame) + 1)
    frame = frame.dropna(how="all")
    if len(frame) == 0 or len(frame.columns) < 2:
        shape = f"{len(frame)} rows and {len(frame.columns)} columns"
        raise ValueError(f"{path} has {shape}; it is not a table of examples")
    frame, found = numerals(frame, sign, tuple(na))
    frame.attrs["assumed"] = (*assumed, *found)
    return frame


def _bytes(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read()
    if not path.is_file():
        kinds = "CSV, Parquet, Feather, Excel or Stata"
        raise ValueError(f"{path} does not exist, or is a folder; give a {kinds} file, or - for standard input")
    content = path.read_bytes()
    unpack = _UNPACK.get(path.suffix.lower())
    if unpack is None:
        return content
    try:
        return unpack(content)
    except (OSError, EOFError, RuntimeError, lzma.LZMAError, zipfile.BadZipFile) as error:  # RuntimeError: encrypted
        raise ValueError(f"{path} cannot be unpacked: {error}") from None


def _unzipped(content: bytes) -> bytes:
    """The one file of a zip archive; a workbook of Excel, which is an archive too, stays as it is."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if len(names) > 1 and "[Content_Types].xml" not in names:
            raise ValueError(f"the archive holds {len(names)} files ({', '.join(names[:3])} …); unpack the table first")
        return archive.read(names[0]) if len(names) == 1 else content


_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zip": _unzipped,
}


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() in _UNPACK else path.name).suffix.lower()


def _binary(pandas: Any, content: bytes, kind: str, sheet: str | None, assumed: list[str]) -> Any:
    if kind == "old Excel":
        raise ValueError("it is a workbook of Excel 2003 or older; save it as .xlsx or CSV")
    file = io.BytesIO(content)
    if kind == "Stata":
        return pandas.read_stata(file, convert_categoricals=False)
    if kind != "Excel":
        require("pyarrow", **PANDAS)
        frame = pandas.read_parquet(file) if kind == "Parquet" else pandas.read_feather(file)
        return frame.reset_index() if any(name is not None for name in frame.index.names) else frame
    require("openpyxl", **PANDAS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl's, about styles that it leaves out
        try:
            book = pandas.ExcelFile(file, engine="openpyxl")
            place = _sheet(book.sheet_names, sheet)
            cells = book.parse(place, header=None, keep_default_na=False, na_values=[""])
        except (ValueError, OSError):
            raise
        except Exception as error:  # a zip file of another kind
            raise ValueError(f"it is no workbook ({error}); save it as .xlsx or CSV") from None
    if sheet is None and len(book.sheet_names) > 1:
        assumed.append(f"took the first sheet of {', '.join(map(repr, book.sheet_names))} (--sheet)")
    return _headed(cells.dropna(how="all")).infer_objects()


def _sheet(names: Sequence[str], wanted: str | None) -> int:
    """The place of a sheet from 0, by its name or its number from 1."""
    if wanted is None or wanted in names:
        return 0 if wanted is None else names.index(wanted)
    if wanted.isdigit() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    raise ValueError(f"there is no sheet {wanted!r}; it has {', '.join(map(repr, names))}, or give a number from 1")


def _text(pandas: Any, content: bytes, sep: str | None, encoding: str | None, assumed: list[str]) -> Any:
    encoding = encoding or _encoding(content, assumed)
    try:
        start = codecs.getincrementaldecoder(encoding)().decode(content[: 4 * _LOOK])[:_LOOK]
    except LookupError:
        raise ValueError(
            f"there is no encoding {encoding!r}; --encoding takes utf-8, cp1252, latin-1, utf-16 …"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{_undecoded(error)}; say which it is with --encoding") from None
    if "\0" in start:
        raise ValueError("it holds bytes of 0, which no text does; say --encoding utf-16 if it is text")
    lines = start.splitlines()
    before = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
    if lines[before : before + 1] and lines[before].lower().startswith("sep=") and len(lines[before].strip()) == 5:
        sep, before = sep or lines[before][4], before + 1  # as Excel writes it
    found = _separator(lines[before:])
    sep = {"tab": "\t", r"\t": "\t", "space": r"\s+", " ": r"\s+"}.get(sep, sep) if sep else None
    if sep is None and found != ",":
        assumed.append(f"took {_SEPARATORS[found]} for the separator (--sep)")
    try:
        cells = pandas.read_csv(
            io.BytesIO(content),
            sep=sep or found,
            header=None,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            skipinitialspace=True,
            skiprows=before,
            encoding=encoding,
            engine="c" if len(sep or found) == 1 or (sep or found) == r"\s+" else "python",
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"{_undecoded(error)}; say which it is with --encoding") from None
    except pandas.errors.ParserError as error:
        taken = _SEPARATORS.get(sep or found, repr(sep))
        raise ValueError(
            f"{str(error).split('C error: ')[-1].strip()}, separated by {taken}; --sep sets another"
        ) from None
    return _headed(cells)


def _undecoded(error: UnicodeDecodeError) -> str:
    return f"byte {error.start} is {error.object[error.start]:#04x}, which is not {error.encoding}"


def _headed(cells: Any) -> Any:
    """The table below its first row, which names the columns."""
    if len(cells) == 0:
        raise ValueError("it is empty")
    header = ["" if name != name or name is None else str(name) for name in cells.iloc[0].tolist()]
    if len(header) > 1 and all(_is_number(name) for name in header):
        raise ValueError(f"its first row, {', '.join(header[:4])} …, is numbers: put a row with names of columns first")
    found = cells.iloc[1:]
    return found.set_axis(header, axis=1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _encoding(content: bytes, assumed: list[str]) -> str:
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        if b"\0" not in content[:_LOOK]:
            return "utf-8"
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):  # Latin letters have a 0 in every other byte
        if content[start:200:2].count(0) > 0.6 * len(content[start:200:2]):
            assumed.append(f"took {name} for the encoding (--encoding)")
            return name
    assumed.append("took cp1252 for the encoding, as it is not UTF-8 (--encoding)")
    return "cp1252"


def _separator(lines: Sequence[str]) -> str:
    """The separator by which the first rows have as many columns as the header, and the most."""
    rows = [line for line in lines if line.strip()][:50]
    rows = rows[:-1] if len(rows) == 50 else rows  # the last may be cut
    widths = {}
    for sep in _SEPARATORS:
        try:
            cells = [line.split() for line in rows] if sep == r"\s+" else list(csv.reader(rows, delimiter=sep))
        except csv.Error:
            continue
        counts = [len(row) for row in cells]
        if counts and max(counts) > 1:
            agreeing = sum(count == counts[0] for count in counts) / len(counts)
            widths[sep] = (counts[0] > 1, round(agreeing, 1), counts[0])
    # spaces stand in names too: only where nothing else does, and in every row alike
    if len(widths) > 1 or widths.get(r"\s+", (True, 1.0))[1] < 1.0:
        widths.pop(r"\s+", None)
    return max(widths, key=lambda sep: widths[sep], default=",")
