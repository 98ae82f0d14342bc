"""Which native library a process gets: its level, prebuilt or compiled, and what a compiler is asked and says."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_library import again, cached, count, library_at, say

from gladient.ops.native import build, cache, compiler, levels

# The compiler


@pytest.mark.usefixtures("kernels")
def test_cxx_may_be_several_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = tmp_path / "with space" / "ccache"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\ntouch "{tmp_path}/called"\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", f"'{wrapper}' c++")
    assert build.library().answer() == 42
    assert (tmp_path / "called").exists()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("cxx", "said"),
    [
        ("/bin/false", r"/bin/false failed with exit code 1: no word printed"),
        ("sh -c 'echo warning >&2; echo it broke >&2; exit 3'", r"failed with exit code 3: it broke"),
        ("sh -c 'kill -9 $$'", r"was ended by signal 9: no word printed"),
        ("no-such-compiler -x", r"CXX='no-such-compiler -x', but there is no 'no-such-compiler'.*unset it"),
        ("c++ 'x", r"is not a command .*unset it"),
    ],
)
def test_a_compiler_that_fails_is_reported(
    cxx: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", cxx)
    with pytest.raises(OSError, match=said):
        build.library()
    reason = build.why_unavailable()
    assert reason is not None
    assert "backend='eager' computes the same" in reason
    assert build.why_unavailable() == reason
    assert caplog.text.count("are not available") == 1


def test_the_first_error_is_shown(kernels: Path) -> None:
    (kernels / "two.cpp").write_text('#warning "first"\nint x = y;\n')
    with pytest.raises(
        OSError, match=r"two.cpp:2:9: error: .y. was not declared|two.cpp:2:9: error: use of undeclared"
    ):
        build.library()


@pytest.mark.usefixtures("kernels")
def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    assert "install g++ or clang++" in str(build.why_unavailable())


def test_no_sources(kernels: Path) -> None:
    for path in kernels.iterdir():
        path.unlink()
    with pytest.raises(OSError, match="install it again"):
        build.library()


@pytest.mark.skipif(sys.platform != "linux", reason="names of Linux's libraries")
def test_the_library_needs_no_cxx_runtime(kernels: Path, tmp_path: Path) -> None:
    (kernels / "two.cpp").write_text(
        '#include <string>\nextern "C" int two(int n) { return std::to_string(n).size(); }\n'
    )
    build.library()
    assert b"libstdc++.so" not in cached(tmp_path).read_bytes()


# Levels


@pytest.mark.usefixtures("kernels")
def test_the_variable_forces_a_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(levels.VARIABLE, "native")
    assert build.level() == "native"
    assert cached(tmp_path).name.startswith("kernels-native-")
    if "v3" in levels.available():
        monkeypatch.setenv(levels.VARIABLE, "v3")
        assert again().answer() == 42
        assert build.level() == "v3"
        assert len(list((tmp_path / "cache" / "gladient").glob("kernels-v3-*.so"))) == 1


@pytest.mark.usefixtures("kernels")
def test_levels_follow_from_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v3, v4 = (" ".join(levels.LEVELS[level]) for level in ("v3", "v4"))
    for flags, expected in (
        ("fpu sse", []),
        (v3.replace("avx2", ""), []),
        (f"fpu {v3}", ["v3"]),
        (f"{v3} avx512f", ["v3"]),
        (v4, ["v4", "v3"]),
    ):
        say(monkeypatch, tmp_path, flags)
        assert levels.available() == expected
    for machine in ("aarch64", "arm64", "ARM64"):  # Linux, macOS, Windows
        monkeypatch.setattr(levels.platform, "machine", lambda machine=machine: machine)
        assert levels.available() == ["neon"]
    monkeypatch.setattr(levels.platform, "machine", lambda: "riscv64")
    assert levels.available() == []
    monkeypatch.setattr(levels.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(levels, "_CPUINFO", tmp_path / "absent")
    levels.cpu.cache_clear()
    older = {"AVX2": True, "FMA3": True, "F16C": True, "AVX512_SKX": False}  # NumPy before 2.4 names no level
    for asked, expected in (({}, []), ({"X86_V3": True, "X86_V4": False}, ["v3"]), (older, ["v3"])):
        monkeypatch.setattr(levels, "_asked", lambda asked=asked: asked)
        assert levels.available() == expected


@pytest.mark.skipif(not levels.available(), reason="an x86-64 CPU of no level")
def test_numpy_and_linux_see_the_same_levels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = levels.available()
    monkeypatch.setattr(levels, "_CPUINFO", tmp_path / "absent")  # as on Windows and macOS
    levels.cpu.cache_clear()
    assert levels.available() == expected
    levels.cpu.cache_clear()
    monkeypatch.setitem(sys.modules, "numpy._core._multiarray_umath", None)
    assert levels.available() == []


@pytest.mark.parametrize(
    ("system", "machine", "flags"),
    [
        ("linux", "x86_64", ["-march=native"]),
        ("win32", "AMD64", ["-march=native"]),
        ("linux", "aarch64", ["-mcpu=native"]),
        ("darwin", "arm64", []),
    ],
)
def test_the_machines_own_cpu(system: str, machine: str, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.sys, "platform", system)
    monkeypatch.setattr(compiler.platform, "machine", lambda: machine)
    assert compiler.march("native") == flags


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("neon", r"GLADIENT_CPU_LEVEL='neon' needs a CPU with 64-bit ARM, which this one lacks; it runs v3, native"),
        ("v4", r"GLADIENT_CPU_LEVEL='v4' needs a CPU with avx512bw .*it runs v3, native: set one of these, or unset"),
        ("avx2", r"GLADIENT_CPU_LEVEL='avx2', but the levels are v4, v3, neon and native; this CPU runs v3, native"),
    ],
)
def test_a_level_that_the_cpu_cannot_run_is_refused(
    level: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, tmp_path, " ".join(levels.LEVELS["v3"]))
    monkeypatch.setenv(levels.VARIABLE, level)
    for ask in (build.library, build.level, build.why_unavailable):
        with pytest.raises(ValueError, match=said):
            ask()
    assert not (tmp_path / "cache").exists()


# Prebuilt libraries


@pytest.mark.usefixtures("kernels")
def test_a_prebuilt_library_of_the_highest_level_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, level in enumerate(("v3", "v4"), start=3):
        library_at(tmp_path / "prebuilt" / f"kernels-{level}.so", answer)
    done = count(monkeypatch)
    say(monkeypatch, tmp_path, " ".join(levels.LEVELS["v4"]))
    assert (build.library().answer(), build.level()) == (4, "v4")
    say(monkeypatch, tmp_path, " ".join(levels.LEVELS["v3"]))
    assert (again().answer(), build.level()) == (3, "v3")
    assert done == []
    say(monkeypatch, tmp_path, "fpu sse")
    assert (again().answer(), build.level()) == (42, "native")
    monkeypatch.setenv(levels.VARIABLE, "native")
    say(monkeypatch, tmp_path, " ".join(levels.LEVELS["v4"]))
    assert (again().answer(), build.level()) == (42, "native")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("0 x"), lambda path: path.chmod(0o666)])
def test_a_prebuilt_library_that_is_not_as_built_is_not_loaded(
    harm: Callable[[Path], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = library_at(tmp_path / "prebuilt" / "kernels-v3.so", 3)
    say(monkeypatch, tmp_path, " ".join(levels.LEVELS["v3"]))
    harm(cache.record(path))
    assert (build.library().answer(), build.level()) == (42, "native")
    assert "came with the package are not used" in caplog.text


def test_installed_files_may_be_as_open_as_the_package(tmp_path: Path) -> None:
    """pip under a generous umask, or another user's package: whoever may write build.py may write there too."""
    code = tmp_path / "build.py"
    code.write_text("")
    path = library_at(tmp_path / "prebuilt" / "kernels-v3.so", 3)
    path.chmod(0o775)
    assert "can be written by others" in str(cache.distrust(path, like=code))
    code.chmod(0o664)
    assert cache.distrust(path, like=code) is None
    assert "can be written by others" in str(cache.distrust(path))
