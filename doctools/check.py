"""Checks a built site: every public name has its entry, every link leads somewhere, nothing comes from another host.

python -m doctools.check site
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocstrings import Inventory

__all__ = ["broken_links", "foreign_files", "public_names", "without_entry"]

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
_CSS_LOAD = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


def public_names(package: Path) -> Iterator[str]:
    """Every name that a room lists in its `__all__`; a file or folder inside a room is public if the room lists it.

    >>> names = set(public_names(Path("src/gladient")))
    >>> {"gladient.ops.choose", "gladient.nn.presets.retnet", "gladient.landscape.delta.shared_step"} <= names
    True
    """
    for room in sorted({path.stem for path in package.iterdir() if not path.name.startswith("_")}):
        yield from _names_of(package / room, f"{package.name}.{room}")


def _names_of(room: Path, called: str) -> Iterator[str]:
    files = (room / "__init__.py", room / "__init__.pyi", room.with_suffix(".py"), room.with_suffix(".pyi"))
    for file in files:  # a stub lists what is imported lazily
        for name in _exported(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else ():
            if not name.startswith("_"):
                yield f"{called}.{name}"
                yield from _names_of(room / name, f"{called}.{name}")


def _exported(module: ast.Module) -> list[str]:
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__":
            names: list[str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            return names
    return []


def without_entry(site: Path, package: Path) -> list[str]:
    """Public names that the site's inventory, objects.inv, does not have."""
    with (site / "objects.inv").open("rb") as file:
        entries = Inventory.parse_sphinx(file)
    return [name for name in public_names(package) if name not in entries]


def broken_links(site: Path) -> list[str]:
    """Links between pages, to files and to places on a page that are not there."""
    site = site.resolve()
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            folder = site if parts.path.startswith("/") else path.parent
            target = (folder / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in pages[target].ids):
                found.append(f"{path.relative_to(site)}: {link}")
    return found


def foreign_files(site: Path) -> list[str]:
    """What a page or a style sheet loads from another host."""
    html = ((path, _Page(path).loads) for path in sorted(site.rglob("*.html")))
    css = ((path, _CSS_LOAD.findall(path.read_text(encoding="utf-8"))) for path in sorted(site.rglob("*.css")))
    return [f"{path.relative_to(site)}: {url}" for path, urls in [*html, *css] for url in urls if urlsplit(url).netloc]


class _Page(HTMLParser):
    """What a page links to and loads, and the places on it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids = {"__top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in _LOADS and _LOADS[tag] in values and values.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(values[_LOADS[tag]])


def main(site: Path, package: Path) -> int:
    """Prints what is wrong; the exit code says whether anything is."""
    complaints: dict[str, Iterable[str]] = {
        "no entry in the reference": without_entry(site, package),
        "broken link": broken_links(site),
        "comes from another host": foreign_files(site),
    }
    lines = [f"{what}: {where}" for what, places in complaints.items() for where in places]
    print("\n".join(lines) or f"{len(list(public_names(package)))} public names, each with an entry; no broken link")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(__file__).parents[1] / "src" / "gladient"))
