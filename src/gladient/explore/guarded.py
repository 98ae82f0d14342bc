"""marimo behind a guard: `python -P -m gladient.explore.guarded` takes the options of `marimo`."""

import contextlib
import os
import re
import runpy
import secrets
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Guard", "main"]

_THIS_MACHINE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")


class Guard:
    """An ASGI app that passes on what this machine's own pages ask, and refuses all else with 403.

    The browser says where a request goes (Host) and which page sends it (Origin). A page of another site, or of another
    port of this machine, has another Origin; a name that somebody has pointed at 127.0.0.1 is another Host. marimo
    checks neither for WebSockets.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass on or refuse one request or connection."""
        from starlette.responses import PlainTextResponse
        from starlette.websockets import WebSocketClose

        if scope["type"] == "lifespan" or _is_own(scope["headers"]):
            try:
                await self.app(scope, receive, send)
            except RuntimeError as error:
                # A page that is closed while it is let in: marimo reads on, and uvicorn would print a traceback.
                if "WebSocket is not connected" not in str(error):
                    raise
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            await PlainTextResponse("only pages of this address are served", 403)(scope, receive, send)


def _is_own(headers: list[tuple[bytes, bytes]]) -> bool:
    hosts, origins = (
        [value.decode("latin-1") for key, value in headers if key == name] for name in (b"host", b"origin")
    )
    return (
        len(hosts) == 1
        and _THIS_MACHINE.fullmatch(hosts[0]) is not None
        and all(origin == f"http://{hosts[0]}" for origin in origins)
    )


def main(arguments: list[str]) -> None:
    """Run marimo with a guard around its app and a token that the address it prints and opens holds."""
    import uvicorn

    load = uvicorn.Config.load

    def guarded(config: uvicorn.Config) -> None:
        load(config)
        config.loaded_app = Guard(config.loaded_app)

    # Where uvicorn makes the app, so that the guard stands outside of all that marimo adds, in run and in edit mode.
    uvicorn.Config.load = guarded  # type: ignore[assignment, method-assign]
    if "run" in arguments:
        os.chdir("/")  # marimo reads settings from the current folder, and the page needs nothing there
    # Set here, the token is not among the arguments that other users of the machine can read.
    sys.argv = ["marimo", *arguments, "--token", "--token-password", secrets.token_urlsafe(16)]
    try:
        runpy.run_module("marimo", run_name="__main__")
    except SystemExit as ended:
        _leave(ended.code)


def _leave(code: object) -> None:
    """End all threads at once, those that train and those that run cells.

    An interpreter that ends by itself unwinds daemon threads wherever they are; inside PyTorch or Matplotlib that
    aborts the process. Waiting for them takes as long as the longest cell.
    """
    with contextlib.suppress(OSError):  # whoever read the output may have left
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(bool(code)))


if __name__ == "__main__":
    main(sys.argv[1:])
