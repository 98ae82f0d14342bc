"""What hatch_build.py puts into a wheel; one small source stands for the kernels."""

import hashlib
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import gladient

pytest.importorskip("hatchling", reason="the build backend; the dev extra installs it")
ROOT = Path(__file__).parents[1]
NATIVE = "src/gladient/ops/native"
SOURCE = '#include <cmath>\nextern "C" double f(double x) { return std::exp(x); }\n'
on_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="wheels for x86-64 Linux"
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of this name with the hook, the compiler's file and one kernel."""
    tree = tmp_path / "tree"
    (tree / NATIVE / "kernels").mkdir(parents=True)
    files = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "src/gladient/__init__.py")
    for name in (*files, f"{NATIVE}/compiler.py"):
        shutil.copy(ROOT / name, tree / name)
    (tree / NATIVE / "kernels" / "one.cpp").write_text(SOURCE)
    for name in ("CXX", "GLADIENT_PREBUILT"):
        monkeypatch.delenv(name, raising=False)
    return tree


def build(tree: Path) -> zipfile.ZipFile:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tree.parent / "dist")]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tree.parent / "dist").iterdir()
    print(done.stdout, done.stderr)
    return zipfile.ZipFile(wheel)


@on_linux
def test_a_wheel_carries_both_levels_and_says_what_it_needs(tree: Path) -> None:
    wheel = build(tree)
    folder = "gladient/ops/native/prebuilt"
    assert {x for x in wheel.namelist() if x.startswith(folder)} == {
        f"{folder}/kernels-{level}.so{end}" for level in ("v3", "v4") for end in ("", ".sha256")
    }
    assert "gladient/ops/native/kernels/one.cpp" in wheel.namelist()
    for level in ("v3", "v4"):
        digest = hashlib.sha256(wheel.read(f"{folder}/kernels-{level}.so")).hexdigest()
        assert wheel.read(f"{folder}/kernels-{level}.so.sha256").decode() == f"{digest}  kernels-{level}.so\n"
    (said,) = [x for x in wheel.namelist() if x.endswith(".dist-info/WHEEL")]
    assert b"Root-Is-Purelib: false" in wheel.read(said)
    assert f"-py3-none-manylinux_2_{newest_glibc(wheel, folder, tree.parent)}_x86_64.whl" in str(wheel.filename)


def newest_glibc(wheel: zipfile.ZipFile, folder: str, work: Path) -> int:
    """As binutils sees it, which reads the tables of symbols."""
    found = set()
    for level in ("v3", "v4"):
        path = Path(wheel.extract(f"{folder}/kernels-{level}.so", work))
        shown = subprocess.run(
            ["readelf", "--version-info", "--wide", path], capture_output=True, text=True, check=True
        )
        found |= {int(x.split(".")[1]) for x in shown.stdout.split() if x.startswith("GLIBC_2.")}
    return max(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "tag", "names", "magic"),
    [
        ("linux-aarch64", "manylinux_2_17_aarch64", ["kernels-neon.so"], b"\x7fELF"),
        ("macos-arm64", "macosx_11_0_arm64", ["kernels-neon.dylib"], b"\xcf\xfa\xed\xfe"),
    ],
)
def test_a_wheel_for_another_platform(
    target: str, tag: str, names: list[str], magic: bytes, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ziglang", reason="compiles for other platforms; the dev extra installs it")
    monkeypatch.setenv("GLADIENT_TARGET", target)
    wheel = build(tree)
    assert str(wheel.filename).endswith(f"-py3-none-{tag}.whl")
    made = [x for x in wheel.namelist() if "/prebuilt/" in x]
    assert sorted(Path(x).name for x in made) == sorted([*names, *(f"{x}.sha256" for x in names)])
    for name in names:
        library = wheel.read(f"gladient/ops/native/prebuilt/{name}")
        assert library.startswith(magic)
        assert b"libstdc++" not in library
        assert b"libc++" not in library


def test_an_unknown_target_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLADIENT_TARGET", "linux-riscv")
    with pytest.raises(
        AssertionError, match=r"GLADIENT_TARGET='linux-riscv', but the targets are linux-x86_64, .*: name"
    ):
        build(tree)


@pytest.mark.parametrize("reason", ["turned off", "no compiler", "broken", "another library"])
def test_otherwise_the_wheel_is_pure(reason: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tree / NATIVE / "kernels" / "one.cpp"
    if reason == "turned off":
        monkeypatch.setenv("GLADIENT_PREBUILT", "0")
    if reason == "no compiler":
        monkeypatch.setenv("CXX", "/bin/false")
    if reason == "broken":
        source.write_text("int x = y;\n")
    if reason == "another library":
        monkeypatch.setenv("CXX", "c++ -Wl,--no-as-needed -lresolv")
    wheel = build(tree)
    assert str(wheel.filename).endswith("-py3-none-any.whl")
    assert not [x for x in wheel.namelist() if "prebuilt" in x]
    assert "gladient/ops/native/kernels/one.cpp" in wheel.namelist()


def test_metadata_stands_alone(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is the package's; the README is there without links to files that a reader of it does not have."""
    monkeypatch.setenv("GLADIENT_PREBUILT", "0")
    wheel = build(tree)
    (path,) = [x for x in wheel.namelist() if x.endswith(".dist-info/METADATA")]
    said = message_from_bytes(wheel.read(path))
    assert said["Version"] == gladient.__version__
    assert said["Project-URL"] == "Paper, https://arxiv.org/abs/2504.04308"
    assert said["Description-Content-Type"] == "text/markdown"
    described = wheel.read(path).decode().split("\n\n", 1)[1]
    code = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
    assert code.findall(described) == code.findall((ROOT / "README.md").read_text())  # nothing was cut from code
    links = re.findall(r"\]\(([^)]*)\)", code.sub("", described))
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


@on_linux
def test_names_are_read_from_the_library(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    library = tmp_path / "x.so"
    library.write_bytes(b"\x7fELF\0libm.so.6\0libc.so.6\0exp\0GLIBC_2.2.5\0GLIBC_2.29\0xlibz.so.1y\0GLIBC_2.4\0")
    assert hook.needed(library) == {"libm.so.6", "libc.so.6"}
    assert hook.glibc(library) == 29
