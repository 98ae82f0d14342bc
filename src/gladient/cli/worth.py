"""`gladient worth`: by how many nats per token a language model's loss rises without each of its gates."""

import csv
import io
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gladient._optional import PARQUET, require
from gladient._text import json_text, printable
from gladient.cli.numbers import AnyFile, Whole, Wholes
from gladient.cli.progress import reporting
from gladient.cli.run import RunOptions

if TYPE_CHECKING:
    from torch import Tensor

    from gladient.lens import Worth as Found
    from gladient.lens.load import Loaded

__all__ = ["Worth"]

_TABLES = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Worth(RunOptions):
    """By how many nats per token a language model's loss rises without each head's gate, with standard errors.

    Example: gladient worth path/to/model --file corpus.txt --calibrate other.txt

    The table has all heads together and each by itself, in nats per token:

        no_gate   gates of 1: not what it was trained for, and may cost more
                  than no head at all
        fixed     a decay for all tokens, fitted on the other file: what
                  data-dependent gating is worth
        no_erase  a delta rule that does not erase
        ablated   without the head
        alone     what its gate gives back where all gates are fixed

    Rises do not add up: heads stand in for one another. Files are cut into texts of one length; errors are those of the
    mean over texts. After Ctrl-C, --resume goes on and ends with the same numbers.
    """

    model: Annotated[str, tyro.conf.Positional]
    """A folder with a causal language model of transformers, its name on the hub, weights of the study (a .safetensors
    file of `gladient reproduce --figure worth`), or demo."""
    file: AnyFile = None
    """UTF-8 text on which gates are judged; demo has texts of its own."""
    calibrate: AnyFile = None
    """Other UTF-8 text, on which fixed decays are fitted."""
    length: Whole = 256
    """Tokens in a text."""
    texts: Whole = 64
    """The most texts of each file, evenly spread over it."""
    layers: Wholes = ()
    """Layers to judge; left out: all."""
    heads: Wholes = ()
    """Heads to judge in each of them; left out: all."""
    steps: Whole = 60
    """Steps of the fit."""
    seed: Whole = 0
    """Of the texts that the fit takes."""
    out: AnyFile = None
    """The table, .csv or .parquet; left out: results/worth-MODEL.csv. Passes are kept in a folder beside it, without
    the suffix."""
    json: bool = False
    """Print the table as one JSON object."""

    def run(self) -> int:
        """Judge the gates and print the table."""
        out = self._out()
        texts = self._texts()
        engine = self.engine()  # options are checked before anything large is imported
        from rich.console import Console

        from gladient.experiments.judging import Judged, judge, load_models

        console, found = Console(stderr=True), {}
        with reporting() as report:
            models = load_models(self.model, on_step=lambda name, done, of: report(f"training {name}", done, of))
        for loaded in models:
            judged, calibrate = self._split(loaded, *texts)
            asked = Judged(
                model=self.model,
                texts=judged,
                calibrate=calibrate,
                layers=self.layers or None,
                heads=self.heads or None,
                fit_steps=self.steps,
                seed=self.seed,
                device=self.device,
            )
            folder = out.with_suffix("") / loaded.name if self.model == "demo" else out.with_suffix("")
            found[loaded.name] = judge(asked, loaded, folder, **engine, console=console)
        _write(out, found)
        self._print(found, out)
        return 0

    def _out(self) -> Path:
        for name, least in (("length", 2), ("texts", 2), ("steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be at least {least}")
        name = Path(self.model).expanduser().resolve().name if Path(self.model).exists() else self.model
        out = self.out or Path("results") / f"worth-{name.replace('/', '-').removesuffix('.safetensors')}.csv"
        if out.suffix.lower() not in _TABLES or out.is_dir():
            raise ValueError(f"out is {out}; it names the table to write, {' or '.join(_TABLES)}")
        if out.suffix.lower() == ".parquet":
            require("pyarrow.parquet", **PARQUET)
        return out

    def _texts(self) -> tuple[str | None, str | None]:
        if self.model != "demo" and not self.model.endswith(".safetensors"):
            from gladient.lens.names import find_folder

            find_folder(self.model)  # a mistyped path is refused before anything large is imported
        given = {"--file": self.file, "--calibrate": self.calibrate}
        lacking = [name for name, path in given.items() if path is None]
        if lacking and not (self.model == "demo" and len(lacking) == 2):
            raise ValueError(
                f"{' and '.join(lacking)} must be given: a text on which gates are judged (--file), and another one on "
                "which fixed decays are fitted (--calibrate)"
            )
        return _read(self.file), _read(self.calibrate)

    def _split(self, loaded: "Loaded", *texts: str | None) -> "tuple[list[Tensor], list[Tensor]]":
        """The tokens of the texts to judge and to calibrate."""
        from gladient.experiments.judging import demo_texts, split_texts

        judged, calibrate = (
            demo_texts(self.length, self.texts, seed)
            if text is None
            else split_texts(loaded.encode(text)[0], self.length, self.texts, printable(path))
            for seed, (text, path) in enumerate(zip(texts, (self.file, self.calibrate), strict=True))
        )
        return judged, calibrate

    def _print(self, found: "dict[str, Found]", out: Path) -> None:
        if self.json:
            print(json_text({name: _as_json(each) for name, each in found.items()}))
        else:
            for name, each in found.items():
                print(f"{printable(name)}: {each}")
        print(f"table: {printable(out)}", file=sys.stderr if self.json else sys.stdout)


def _read(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise ValueError(f"{path} is empty; give a text of thousands of words")
    return text


def _as_json(found: "Found") -> dict[str, Any]:
    return {"loss": found.loss, "texts": found.texts, "rows": [asdict(row) for row in (found.together, *found.heads)]}


def _write(path: Path, found: "dict[str, Found]") -> None:
    """The table, with a row for each head and one for all, whose layer and head are empty."""
    from gladient._files import write_atomically

    rows = [{"model": name, **row} for name, each in found.items() for row in each.rows()]
    content, text = io.BytesIO(), io.StringIO()
    if path.suffix.lower() == ".parquet":
        pyarrow, parquet = require("pyarrow", **PARQUET), require("pyarrow.parquet", **PARQUET)
        parquet.write_table(pyarrow.Table.from_pylist(rows), content)
        write_atomically(path, content.getvalue())
        return
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
