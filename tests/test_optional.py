"""Whatever optional package is missing, one error says what for and what to install."""

from pathlib import Path

import pytest

from gladient import _optional

CURE = {"needed_for": "the test", "install": "pip install it"}


def test_absent_packages_and_files_come_with_their_cure() -> None:
    message = r"the test needs the package 'nobody' \(No module named 'nobody'\); install it with: pip install it"
    with pytest.raises(ImportError, match=message):
        _optional.require("nobody.there", **CURE)
    with pytest.raises(ImportError, match=message):
        _optional.require_file("nobody", "there.py", **CURE)
    with pytest.raises(ImportError, match=message):
        _optional.find_file("nobody", "there.csv", **CURE)
    with pytest.raises(ImportError, match=r"'json' \(no file there\.py in it\)"):
        _optional.require_file("json", "there.py", **CURE)


def test_a_file_that_needs_something_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "file.py").write_text("import nobody")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"'package' \(No module named 'nobody'\)"):
        _optional.require_file("package", "file.py", **CURE)
