"""Other systems than this one: what Python lacks there is taken away, and all of gladient is imported and used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Packages are there before: they are this system's.
_BEFORE = """
import dask.distributed, filelock, matplotlib.pyplot, platformdirs, scipy.optimize, torch, torch._inductor, tyro
import fcntl, importlib, os, pkgutil, platform, select, signal, stat, sys
import gladient
"""
_SYSTEMS = {
    "win32": """
taken = {os: "fork register_at_fork getuid sysconf killpg", signal: "SIGKILL SIGALRM SIGHUP", select: "poll"}
for module, names in taken.items():
    for name in names.split():
        delattr(module, name)
for name in ("grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
def fsync(descriptor):  # opens no folder, and flushes only what could be written
    if stat.S_ISDIR(os.fstat(descriptor).st_mode) or fcntl.fcntl(descriptor, fcntl.F_GETFL) & 3 == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
os.fsync = fsync
platform.machine = lambda: "AMD64"
""",
    "darwin": """
platform.machine = lambda: "arm64"
""",
}
_AFTER = """
for module in pkgutil.walk_packages(gladient.__path__, "gladient."):
    if not module.name.endswith(("__main__", "explore.controls", "explore.notebook")):  # run as scripts, by marimo
        importlib.import_module(module.name)
from gladient.answers import settings
from gladient.ops.native import build, levels
settings.require_memory(1.0, "it")
levels._CPUINFO = build._KERNELS / "absent"
build._KERNELS = build.Path(sys.argv[1])
print(build.library().answer(), build.library()._name.rpartition(".")[2], *levels.available())
build._loaded.cache_clear()
os.environ["CXX"] = "absent"
build._KERNELS = build._KERNELS.with_name("others")
x = torch.ones(1, 4, 1, 2)
print(gladient.ops.gated_linear_attention(x, x, x)[0].sum().item())
from gladient.cli import main
sys.argv[1:] = "risk --n 5 5 --r 0.2 0.8 --d 4".split()
main()
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("system", _SYSTEMS)
def test_everything_is_imported_and_used_on(system: str, tmp_path: Path) -> None:
    for name, answer in (("kernels", 42), ("others", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.cpp").write_text(f'extern "C" int answer() {{ return {answer}; }}\n', "utf-8")
    code = f"{_BEFORE}\nsys.platform = {system!r}\n{_SYSTEMS[system]}\n{_AFTER}"
    environment = os.environ | {"CXX": str(shutil.which("c++")), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "kernels")]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    found, total, *told = done.stdout.splitlines()
    assert found.startswith({"win32": "42 dll", "darwin": "42 dylib"}[system])
    assert float(total) == 40.0
    assert told[1].startswith("linear_attention")
