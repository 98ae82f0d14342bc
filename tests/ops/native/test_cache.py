"""Where compiled libraries are kept, and which of them are never loaded."""

import ctypes
import grp
import hashlib
import logging
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import platformdirs
import pytest
from tiny_library import SOURCE, again, cached, count, forget, library_at

from gladient.ops.native import build, cache


def test_every_source_is_compiled_once(kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = count(monkeypatch)
    assert build.library().answer() == 42
    half = build.library().half
    half.argtypes, half.restype = [ctypes.c_double], ctypes.c_double
    assert half(3.0) == 1.5
    assert again().answer() == 42
    assert len(done) == 1
    assert stat.S_IMODE(cached(tmp_path).parent.stat().st_mode) == 0o700
    assert cache.record(cached(tmp_path)).read_text().split() == [
        hashlib.sha256(cached(tmp_path).read_bytes()).hexdigest(),
        cached(tmp_path).name,
    ]
    (kernels / "one.cpp").write_text(SOURCE.replace("ANSWER", "43"))
    assert again().answer() == 43


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("harm", ["emptied", "cut", "altered", "unrecorded"])
def test_a_harmed_library_is_healed_and_never_loaded(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build.library()
    path = cached(tmp_path)
    whole = path.read_bytes()
    forget()
    path.write_bytes({"emptied": b"", "cut": whole[:1000], "altered": whole[:-1] + b"!"}.get(harm, whole))
    if harm == "unrecorded":
        cache.record(path).unlink()
    done = count(monkeypatch)
    assert again().answer() == 42
    assert len(done) == 1
    assert "compiled again" in caplog.text
    assert cache.distrust(path) is None


@pytest.mark.usefixtures("kernels")
def test_a_strangers_file_in_the_cache_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Planted with a right checksum, while the folder was open to others."""
    build.library()
    forget()
    path = library_at(cached(tmp_path), 666)
    give_away(path, monkeypatch)
    assert again().answer() == 42
    assert "belongs to user" in caplog.text


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("what", ["library", "record"])
def test_a_file_that_others_can_write_is_not_loaded(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build.library()
    forget()
    path = library_at(cached(tmp_path), 666)
    (path if what == "library" else cache.record(path)).chmod(0o666)
    assert again().answer() == 42
    assert "can be written by others" in caplog.text


@pytest.mark.usefixtures("kernels")
def test_a_strangers_folder_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build.library()
    forget()
    path = library_at(cached(tmp_path), 666)
    give_away(path.parent, monkeypatch)
    assert again().answer() == 42
    assert "set XDG_CACHE_HOME to a folder that belongs to you" in caplog.text


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
def test_a_folder_above_the_cache_that_others_can_change(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They could put a folder of theirs into its place, unless the folder above is sticky, as /tmp is."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(mode)
    monkeypatch.setattr(cache, "_group_of_one", lambda folder: False)  # whoever runs this test
    monkeypatch.setenv("XDG_CACHE_HOME", str(scratch / "mine"))
    for _ in range(2):
        assert again().answer() == 42
    sticky = bool(mode & stat.S_ISVTX)
    assert ("for this process alone" not in caplog.text) is sticky
    assert (
        f"{scratch} can be written by others (mode {mode & 0o777:o})); to compile once" in caplog.text
    ) is not sticky
    assert len(list(scratch.glob("mine/gladient/*.so"))) == sticky


@pytest.mark.usefixtures("kernels")
def test_a_strangers_folder_above_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o1777)  # sticky, but its owner may all the same
    give_away(tmp_path / "cache", monkeypatch)
    assert again().answer() == 42
    assert "belongs to user" in caplog.text
    assert "for this process alone" in caplog.text


@pytest.mark.usefixtures("kernels")
def test_what_was_checked_is_loaded_wherever_a_link_leads_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to the cache that a stranger changes between the check and the load."""
    link, strangers = tmp_path / "link", tmp_path / "strangers"
    (tmp_path / "mine").mkdir()
    link.symlink_to(tmp_path / "mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(link))
    build.library()
    (path,) = (tmp_path / "mine" / "gladient").glob("*.so")
    library_at(strangers / "gladient" / path.name, 666)
    real = cache.distrust

    def changed_behind(path: Path, like: Path | None = None) -> str | None:
        reason = real(path, like)
        link.unlink()
        link.symlink_to(strangers)
        return reason

    monkeypatch.setattr(cache, "distrust", changed_behind)
    assert again().answer() == 42


def test_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    path = library_at(tmp_path / "mine" / "kernels.so", 42)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert cache.distrust(path) is None
    assert "is a link" in str(cache.distrust(tmp_path / "link" / "kernels.so"))


@pytest.mark.usefixtures("kernels")
def test_no_place_that_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("XDG_CACHE_HOME", str(scratch))
    with pytest.raises(OSError, match=r"scratch can be written by others \(mode 777\), .*set XDG_CACHE_HOME or TMPDIR"):
        build.library()
    assert "backend='eager' computes the same" in str(build.why_unavailable())


@pytest.mark.parametrize(("members", "alone"), [([], True), (["me"], True), (["me", "you"], False)])
def test_a_group_of_one(members: list[str], alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many systems give each user a group of their own, and folders that it may write."""
    info = tmp_path.stat()
    me = SimpleNamespace(pw_name="me", pw_uid=info.st_uid, pw_gid=info.st_gid)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: me)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name="me", gr_gid=gid, gr_mem=members))
    tmp_path.chmod(0o775)
    assert cache._group_of_one(tmp_path) is alone
    tmp_path.chmod(0o777)
    assert not cache._group_of_one(tmp_path)


@pytest.mark.usefixtures("kernels")
def test_a_library_planted_in_the_shared_temporary_folder_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where earlier versions went without a cache: TEMP/gladient-UID/kernels-HASH.so, all of which can be computed."""
    build.library()
    shared = tmp_path / "shared"
    library_at(shared / f"gladient-{os.getuid()}" / cached(tmp_path).name, 666)
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert again().answer() == 42
    (private,) = set(shared.iterdir()) - {shared / f"gladient-{os.getuid()}"}
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To another user; where this one may not, the question who that is gets another answer."""
    if os.getuid() == 0:
        os.chown(path, 12345, -1)
        return
    real = Path.stat

    def answer(self: Path, **options: bool) -> os.stat_result:
        found = list(real(self, **options))
        if self == path:
            found[stat.ST_UID] = os.getuid() + 1
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", answer)


def test_no_home(kernels: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/gladient"))
    assert build.why_unavailable() is None
    assert build.library().answer() == 42
    (warning,) = [x.getMessage() for x in caplog.records if x.levelno == logging.WARNING]
    assert "for this process alone" in warning
    assert "no home folder" in warning


@pytest.mark.slow
def test_what_is_made_for_one_process_goes_with_it(kernels: Path, tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from gladient.ops.native import build; "
    script += "build._KERNELS = build._PREBUILT = Path(sys.argv[1]); assert build.library().answer() == 42; "
    script += "import tempfile; assert len(list(Path(tempfile.gettempdir()).glob('gladient-*'))) == 1"
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run(
        [sys.executable, "-c", script, kernels], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("ready", [True, False])
def test_a_cache_that_cannot_be_written(
    ready: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A ready library in it is used; without one the warning says why every process compiles."""
    folder = tmp_path / "cache" / "gladient"
    folder.mkdir(parents=True)
    if ready:
        build.library()
    before = sorted(folder.iterdir())
    real = os.access
    monkeypatch.setattr(cache.os, "access", lambda path, mode: path != folder and real(path, mode))
    monkeypatch.setattr(cache, "FileLock", refuse)
    done = count(monkeypatch)
    assert again().answer() == 42
    assert len(done) == (0 if ready else 1)
    assert ("for this process alone" in caplog.text) is not ready
    assert sorted(folder.iterdir()) == before


def refuse(path: Path) -> None:
    raise PermissionError(f"{path} must not be touched")


@pytest.mark.usefixtures("kernels")
def test_a_cache_without_locks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(cache, "FileLock", refuse)
    assert build.library().answer() == 42
    assert "no lock in" in caplog.text


@pytest.mark.usefixtures("kernels")
def test_a_compilation_that_was_killed_leaves_nothing_for_long(tmp_path: Path) -> None:
    left = tmp_path / "cache" / "gladient" / "compiling-abc"
    left.mkdir(parents=True)
    (left / "one.o").write_text("half")
    assert build.library().answer() == 42
    assert not left.exists()
    assert sorted(x.suffix for x in left.parent.iterdir()) == ["", ".sha256", ".so"]


@pytest.mark.slow
def test_of_processes_that_start_together_one_compiles(kernels: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    wrapper = tmp_path / "c++"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec c++ "$@"\n')
    wrapper.chmod(0o755)
    script = "import sys; from pathlib import Path; from gladient.ops.native import build; "
    script += "build._KERNELS = build._PREBUILT = Path(sys.argv[1]); assert build.library().answer() == 42"
    command = [sys.executable, "-c", script, str(kernels)]
    together = [subprocess.Popen(command, env=os.environ | {"CXX": str(wrapper)}) for _ in range(2)]
    assert [process.wait() for process in together] == [0, 0]
    assert len(log.read_text().splitlines()) == 3  # two sources, one link
