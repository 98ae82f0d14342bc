"""What README and docs show from a shell is what the shell prints."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SESSION = re.compile(r"```console\n(.*?)```", re.DOTALL)


def sessions() -> list[tuple[str, str, str]]:
    """File, command and printed text of every `$ gladient …` in a console block."""
    found = []
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in SESSION.findall(document.read_text()):
            for entry in block.split("$ ")[1:]:
                command, _, printed = entry.partition("\n")
                found.append((document.name, command, printed.strip()))
    return found


@pytest.mark.parametrize(("document", "command", "printed"), [s for s in sessions() if s[1].startswith("gladient ")])
def test_shell_sessions(document: str, command: str, printed: str, tmp_path: Path) -> None:
    arguments = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "gladient.cli", *arguments], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == printed


def test_there_are_sessions() -> None:
    assert sessions()


@pytest.mark.slow
def test_traced_model(tmp_path: Path) -> None:  # in a process of its own: the hook that checks shapes cannot be traced
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "your-model.md").read_text(), re.DOTALL)
    assert "torch.compile" in script
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_links_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)  # code is no link
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
