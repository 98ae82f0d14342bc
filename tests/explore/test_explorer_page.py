"""The page in Chromium: numbers follow fields and sliders, errors are sentences, a model trains; others are refused."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from browser import CHROMIUM, Page, open_page
from gladient import landscape
from gladient.explore import Fields

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]

# Elements stand in shadow roots of marimo's own.
FIND = """
    const found = [], walk = root => root.querySelectorAll('*').forEach(element => {
        found.push(element);
        if (element.shadowRoot) walk(element.shadowRoot);
    });
    walk(document);
    const labelled = label => found.filter(element => element.matches('marimo-text, marimo-slider, marimo-switch'))
        .find(element => element.shadowRoot.textContent.trim().startsWith(label)).shadowRoot;
"""


@contextmanager
def served() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command, serving: the address that it prints; at the end Ctrl-C must end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gladient.cli", "explore", "--no-browser", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            printed = next(line for line in process.stdout if "URL: " in line)
            yield printed.split("URL: ")[1].strip(), process
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as (found, _):
        yield found


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    with open_page(address, width=1500, height=2400) as opened:
        _shows(opened, "5.27778", "Train it", "Cross: this setting")
        yield opened
        # marimo prepares pictures for the case that the connection is lost
        assert [error for error in opened.errors if "preloaded using link preload" not in error] == []
        home = address.split("?")[0]
        assert all(url.startswith((home, home.replace("http", "ws"), "data:", "blob:")) for url in opened.requests)


def test_it_opens_with_the_ladder(page: Page) -> None:
    ladder = landscape.ladder(Fields().setting())
    assert all(f"{risk:.6g}" in _text(page) for risk in ladder.risks.values())
    assert page.run("document.querySelectorAll('figure svg').length") == 3  # weights, circle, map


def test_a_field_changes_the_numbers_and_the_sliders(page: Page) -> None:
    _type(page, "r,", "0.3 0.7")
    _shows(page, f"{landscape.optimum(Fields(r='0.3 0.7').setting()).risk:.6g}", "--r 0.3 0.7")
    _until(lambda: _ask(page, "return labelled('r1').textContent").endswith("0.3"), "the slider follows")


def test_a_slider_changes_the_numbers_and_the_field(page: Page) -> None:
    _type(page, "r,", "0.2 0.8")
    _until(lambda: _ask(page, "return labelled('r2').textContent").endswith("0.8"), "the slider follows")
    for _ in range(5):  # more than once: the slider stays in hand while it moves
        _ask(page, "labelled('r2').querySelector('[role=slider]').focus()")
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37)
    _shows(page, f"{landscape.optimum(Fields(r='0.2 0.7').setting()).risk:.6g}", "--r 0.2 0.7")
    _until(lambda: _ask(page, "return labelled('r,').querySelector('input').value") == "0.2 0.7", "the field follows")


@pytest.mark.parametrize(
    ("label", "typed", "said"),
    [
        ("r,", "1.5 0.2", "a correlation lies between -1 and 1"),
        ("r,", "0.9 0.9", "no task can be that close to the query; shrink r"),
        ("n,", "0 25", "each task needs a whole number of examples, at least 1"),
        ("ρ,", "-2", "R has the eigenvalue -1"),
    ],
)
def test_what_is_wrong_is_shown_and_goes_away(page: Page, label: str, typed: str, said: str) -> None:
    before = _ask(page, f"return labelled('{label}').querySelector('input').value")
    _type(page, label, typed)
    _shows(page, said)
    assert "The same from a shell" not in _text(page)
    _type(page, label, before)
    _shows(page, "The same from a shell", "Cross: this setting")


def test_a_model_trains_and_stops(page: Page) -> None:
    _type(page, "n,", "5 5")
    _shows(page, "--n 5 5", "Cross: this setting")
    _press(page, "Train it")
    _shows(page, "Step ", limit=120)
    _press(page, "Stop")
    _until(lambda: 0 < _step(page) == _step(page, wait=1.5) < 400, "the training stops")
    _press(page, "Train it")
    _shows(page, "On fresh prompts the trained model has risk", limit=240)


@pytest.mark.parametrize("sign", ["PyTorch is being loaded", "Step "])
def test_ctrl_c_while_a_model_trains_ends_it_well(sign: str) -> None:
    with served() as (address, process), open_page(address, width=1500, height=2400) as page:
        _shows(page, "Train it", "Cross: this setting", limit=120)
        _press(page, "Train it")
        _shows(page, sign, limit=120)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0


def test_others_get_nothing(address: str) -> None:
    """Other pages, other names of this machine, and whoever does not know the token."""
    home, token = address.split("?")
    host = home.removeprefix("http://").rstrip("/")
    port = host.split(":")[1]
    assert _knocks(host, f"http://{host}", token) == "open"
    assert _knocks(f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", token) == "open"
    for name, origin, given in [
        (host, f"http://{host}", ""),
        (host, f"http://{host}", "access_token=guessed"),
        (host, "http://example.com", token),
        (host, "null", token),
        (host, "http://localhost:1", token),
        (host, f"http://127.0.0.1:{port}", token),
        (f"example.com:{port}", f"http://example.com:{port}", token),
        (f"localhost.example.com:{port}", None, token),
    ]:
        assert _knocks(name, origin, given) == "403", (name, origin, given)
    for headers in ({"Host": "example.com"}, {"Origin": "http://example.com"}):
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(f"{home}?{token}", headers=headers))


def _knocks(host: str, origin: str | None, token: str) -> str:
    """What becomes of a WebSocket with these headers: open, or the status with which it is refused."""
    with socket.create_connection(("127.0.0.1", int(host.split(":")[1]))) as line:
        try:
            with connect(
                f"ws://{host}/ws?session_id=s_other&{token}",
                sock=line,
                origin=None if origin is None else Origin(origin),
            ):
                return "open"
        except InvalidStatus as refused:
            return str(refused.response.status_code)


def _text(page: Page) -> str:
    hidden = "found.filter(element => element.shadowRoot).map(element => element.shadowRoot.textContent)"
    return _ask(page, f"return [document.body.innerText, ...{hidden}].join('\\n')")


def _step(page: Page, wait: float = 0.0) -> int:
    time.sleep(wait)
    text = _text(page)
    return int(text.split("Step ")[1].split()[0]) if "Step " in text else 0


def _ask(page: Page, script: str) -> str:
    return str(page.run(f"(() => {{ {FIND} {script} }})()"))


def _press(page: Page, name: str) -> None:
    _ask(page, f"found.find(element => element.tagName === 'BUTTON' && element.innerText === '{name}').click()")


def _type(page: Page, label: str, text: str) -> None:
    _ask(page, f"const field = labelled('{label}').querySelector('input'); field.focus(); field.select()")
    page.call("Input.insertText", text=text)
    _ask(page, "document.activeElement.blur(); found.filter(e => e.tagName === 'INPUT').forEach(e => e.blur())")


def _shows(page: Page, *texts: str, limit: float = 120) -> None:
    _until(lambda: all(text in _text(page) for text in texts), f"the page shows {texts}", limit)


def _until(holds: Callable[[], bool], what: str, limit: float = 120) -> None:
    end = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < end, f"not within {limit} seconds: {what}"
        time.sleep(0.05)
