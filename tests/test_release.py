"""What a release says of itself, in all places that say it."""

import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

import gladient

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version_and_one_date() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.findall(r"^## \[(\d\S*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == (gladient.__version__, str(cited["date-released"]))
    assert cited["version"] == gladient.__version__
    date.fromisoformat(released[0][1])


def test_readme_names_every_extra() -> None:
    extras = PROJECT["optional-dependencies"].keys() - {"dev", "peers"}  # for work on gladient itself
    named = set(re.findall(r"`\[(\w+)\]`", (ROOT / "README.md").read_text()))
    assert named == extras


def test_hooks_pin_what_the_tests_run_with() -> None:
    pins = set((ROOT / "constraints.txt").read_text().split())
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    wanted = {pin for hook in hooks for pin in hook["additional_dependencies"] if hook["language"] == "python"}
    assert wanted
    assert wanted <= pins


SCHEMAS = {
    "github-workflows": ".github/workflows/*.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "citation-file-format": "CITATION.cff",
    "dependabot": ".github/dependabot.yml",
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_that_others_read_have_their_form(schema: str) -> None:
    files = sorted(ROOT.glob(SCHEMAS[schema]))
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
