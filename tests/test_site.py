"""The site of docs/, built from scratch: its reference, its links, what it loads, and how it opens."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from browser import CHROMIUM, Page, open_page
from doctools.check import broken_links, foreign_files, public_names, without_entry

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "gladient"
pytestmark = pytest.mark.slow
in_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does. Not with --quiet, which hides warnings from --strict, too."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "--site-dir", str(site)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_broken_links_stop_the_build(tmp_path: Path) -> None:
    links = ("gone.md", "index.md#nowhere", "/index.md")
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text(f"INHERIT: {ROOT / 'mkdocs.yml'}\nnav: [index.md]\n")
    (tmp_path / "docs" / "index.md").write_text("# One page\n")
    assert build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode == 0
    (tmp_path / "docs" / "index.md").write_text("# One page\n\n" + "".join(f"[x]({link})\n" for link in links))
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1
    assert [link for link in links if f"link '{link}'" not in done.stderr] == []
    assert done.stderr.count("WARNING -  Doc file") == len(links)  # any of which stops it


def test_every_public_name_has_an_entry(site: Path) -> None:
    assert {"gladient.ops.choose", "gladient.landscape.optimum"} <= set(public_names(PACKAGE))  # one lazy, one not
    assert not without_entry(site, PACKAGE)


def test_a_name_without_entry_is_found(site: Path, tmp_path: Path) -> None:
    package = tmp_path / "gladient"
    (package / "_inner").mkdir(parents=True)
    (package / "ops.py").write_text('__all__ = ["choose", "no_such_name"]')
    (package / "_inner" / "__init__.py").write_text('__all__ = ["hidden"]')
    (package / "nn.pyi").write_text('__all__ = ["presets", "nor_this_one"]')
    assert without_entry(site, package) == ["gladient.nn.nor_this_one", "gladient.ops.no_such_name"]


def test_every_command_has_its_help(site: Path) -> None:
    from gladient.cli import COMMANDS

    page = (site / "reference" / "command-line.html").read_text()
    missing = [name for name in COMMANDS if f"usage: gladient {name} " not in page]
    assert not missing, "docs/reference/command-line.md needs a section for each command"


def test_links_lead_somewhere(site: Path) -> None:
    assert not broken_links(site)


def test_nothing_comes_from_another_host(site: Path) -> None:
    assert not foreign_files(site)


def test_a_broken_page_is_noticed(tmp_path: Path) -> None:
    links = '<a href="other.html#here">1</a><a href="other.html#there">2</a><a href="gone.html">3</a>'
    (tmp_path / "page.html").write_text(links + '<script src="https://host.example/x.js"></script>')
    (tmp_path / "other.html").write_text('<p id="here">')
    (tmp_path / "page.css").write_text('@font-face { src: url("//host.example/x.woff2") }')
    assert broken_links(tmp_path) == ["page.html: other.html#there", "page.html: gone.html"]
    assert len(foreign_files(tmp_path)) == 2


@in_browser
def test_home_opens(site: Path) -> None:
    with _opened(site, "index.html") as page:
        assert page.run("document.querySelector('h1').innerText").startswith("Gated linear attention")
        assert page.run("[...document.images].every(image => image.naturalWidth > 0)")


@in_browser
def test_an_equation_of_the_reference_is_drawn(site: Path) -> None:
    with _opened(site, "reference/ops.html") as page:
        drawn = "document.querySelector('math[display=block]').getBoundingClientRect()"
        assert page.run(f"{drawn}.width > 100 && {drawn}.height > 15")
        assert "\\\\odot" not in page.run("document.querySelector('article').innerText")


@in_browser
def test_search_finds_a_name(site: Path) -> None:
    with _opened(site, "index.html") as page:
        page.run("document.querySelector('.md-search__input').focus()")
        page.call("Input.insertText", text="gated_delta_rule")
        first = "document.querySelector('.md-search-result__list a[href*=gated_delta_rule]')"
        assert page.run(f"""new Promise(done => {{
            const look = () => {first} ? done({first}.innerText) : setTimeout(look, 50);
            setTimeout(() => done('nothing was found'), 20_000);
            look();
        }})""").startswith("gated_delta_rule")


@contextmanager
def _opened(site: Path, page: str) -> Iterator[Page]:
    """A page of the site in Chromium, from a server on this machine; nothing may go wrong or be asked of another."""
    handler = partial(_Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        try:
            with open_page(home + page) as opened:
                yield opened
                assert not opened.errors
                assert all(url.startswith((home, "data:", "blob:")) for url in opened.requests), opened.requests
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None: ...
