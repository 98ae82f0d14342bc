"""A Markdown extension: equations between dollars become MathML, and the bare `>>>` sessions of docstrings code.

Browsers draw MathML by themselves, so that no page needs a script or a font from elsewhere.
"""

import html
import re
from collections.abc import Iterator

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.postprocessors import Postprocessor
from markdown.preprocessors import Preprocessor
from pymdownx.arithmatex import ArithmatexExtension

from doctools.notebooks import FOLDER, page

__all__ = ["SiteExtension", "makeExtension"]

_LINK = re.compile(r"\[[^\]]*\]\((\w+\.ipynb)\)")
_CAPITAL = re.compile(r"<mi>(&#x003(?:9|A).;)</mi>")  # Γ to Ω: upright, as LaTeX sets them
_FUNCTION = re.compile(r"(?<!<msub>)(?<!<msup>)(<mi>(?:cos|exp|log|sin)</mi>)(?!<mo stretchy)")  # no bracket follows
_MARKED = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


class SiteExtension(ArithmatexExtension):
    """Arithmatex finds the equations; what it marks is converted."""

    def __init__(self) -> None:
        super().__init__(generic=True)

    def extendMarkdown(self, md: Markdown) -> None:
        """Sessions are fenced before fences are read (25), equations converted after stored blocks are back (30)."""
        super().extendMarkdown(md)
        md.preprocessors.register(_Notebook(md), "notebook", 28)
        md.preprocessors.register(_Included(md), "included", 27)
        md.preprocessors.register(_Sessions(md), "sessions", 26)
        md.postprocessors.register(_Equations(md), "mathml", 0)


class _Included(Preprocessor):
    """CONTRIBUTING.md and its like link to docs/…; included in a page of docs/ they link to its neighbours."""

    def run(self, lines: list[str]) -> list[str]:
        return [line.replace("](docs/", "](") for line in lines]


class _Notebook(Preprocessor):
    """A line that is a link to a notebook of docs/notebooks, and no more, is followed by its cells."""

    def run(self, lines: list[str]) -> list[str]:
        return [more for line in lines for more in _with_cells(line)]


def _with_cells(line: str) -> Iterator[str]:
    yield line
    if linked := _LINK.fullmatch(line):
        yield from page(FOLDER / linked[1])


class _Sessions(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        return list(_fenced(lines))


def _fenced(lines: list[str]) -> Iterator[str]:
    in_fence = in_session = False
    for line in lines:
        if line.lstrip().startswith("```"):
            in_fence = not in_fence
        if line.startswith(">>> ") and not (in_fence or in_session):
            in_session = True
            yield "```pycon"
        elif in_session and not line.strip():
            in_session = False
            yield "```"
        yield re.sub(r"\s*# doctest:.*", "", line) if in_session else line
    if in_session:
        yield "```"


class _Equations(Postprocessor):
    def run(self, text: str) -> str:
        return _MARKED.sub(_mathml, text)


def _mathml(marked: re.Match[str]) -> str:
    display = "block" if marked[1] == "div" else "inline"
    drawn = convert(html.unescape(marked[2]).strip(), display=display)
    drawn = drawn.replace('">&#x0007C;<', '" lspace="0" rspace="0">&#x0007C;<')  # |x|: no operator between two things
    drawn = _CAPITAL.sub(r'<mi mathvariant="normal">\1</mi>', drawn)
    return _FUNCTION.sub(r'\1<mspace width="0.167em" />', drawn)


def makeExtension() -> SiteExtension:
    """What Markdown calls."""
    return SiteExtension()
