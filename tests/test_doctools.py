"""What the site makes of equations, sessions, links and help; the pages themselves are built in test_site.py."""

import markdown
import pytest

from doctools.help import fence

EXTENSIONS = ["doctools.markdown", "pymdownx.highlight", "pymdownx.superfences"]


def page(text: str) -> str:
    return markdown.markdown(text, extensions=EXTENSIONS)


def test_equations_are_mathml() -> None:
    inline, block = page(r"the weight $\omega_1$ here"), page("$$\na < b\n$$")
    assert "<msub><mi>&#x003C9;</mi><mn>1</mn></msub></mrow></math> here" in inline
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in block
    assert "<mo>&#x0003C;</mo>" in block


def test_equations_are_set_as_latex_sets_them() -> None:
    assert '<mi mathvariant="normal">&#x003A3;</mi>' in page(r"$\Sigma$")
    assert '<mi>log</mi><mspace width="0.167em" />' in page(r"$\log G$")
    assert "mspace" not in page(r"$\log(G)$")
    assert "mspace" not in page(r"$\log_2 G$")  # a third child would break the subscript
    assert page("$|x|$").count('lspace="0" rspace="0"') == 2


def test_dollars_in_code_stay() -> None:
    assert "math" not in page("`$a$`\n\n```sh\n$ gladient risk $x$\n```")


def test_a_bare_session_is_code_and_keeps_its_flags_to_itself() -> None:
    made = page("Says so.\n\n>>> x = [1]  # doctest: +SKIP\n>>> x\n[1]\n\nMore text.")
    assert made.count("<pre>") == 1
    assert "blockquote" not in made
    assert "doctest" not in made
    assert "<p>More text.</p>" in made


def test_a_fenced_session_is_fenced_once() -> None:
    made = page("```pycon\n>>> 1\n1\n\n>>> 2\n2\n```")
    assert made.count("<pre>") == 1
    assert "```" not in made


def test_included_pages_link_to_their_neighbours() -> None:
    assert 'href="lens.md"' in page("[the lens](docs/lens.md)")


def test_help_is_what_the_command_prints() -> None:
    made = fence("gladient risk --help", "help", "help", {}, None)
    assert "$ gladient risk --help\nusage: gladient risk " in made
    with pytest.raises(ValueError, match="it takes 'gladient … --help'"):
        fence("rm -r results", "help", "help", {}, None)
