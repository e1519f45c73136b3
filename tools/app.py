"""A page for people with a picture and a sentence, in the browser, on this machine alone.

    python tools/app.py

Opens at http://127.0.0.1:7860 and answers to this machine only, unless --host says otherwise. No
request leaves the machine, and what was uploaded and made is deleted when the program ends.
"""

import argparse
import errno
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any

from evaluation.command_line import answer

import ptinv
from ptinv.cli.options import Parser
from ptinv.settings import check

PORT = 7860
MISSING = 'gradio is not installed; install it with pip install -e ".[app]"'
SESSIONS = 16  # people whose pictures are kept, the last ones to come
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
# the browser itself sees to it that the page fetches nothing from another host
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'"
)


def main(argv: list[str] | None = None) -> int:
    return answer("app.py", serve, parser(), argv)


def serve(args: argparse.Namespace) -> None:
    """Shows the page until the program is interrupted, which is how it ends."""
    port = free_port(args.host, args.port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # deletes the files, too
    with tempfile.TemporaryDirectory(prefix="ptinv-app-") as folder, suppress(KeyboardInterrupt):
        os.environ |= QUIET | {"GRADIO_TEMP_DIR": folder}
        try:
            from local_app import looks
            from local_app.page import Page
        except ImportError as error:
            raise ptinv.InputError(MISSING) from error
        page = Page(ptinv.load(args.model, args.device, args.dtype), folder, not args.model)
        page.blocks.queue(max_size=32)
        _, address, _ = page.blocks.launch(
            server_name=args.host,
            server_port=port,
            theme=looks.THEME,
            css=looks.CSS,
            js=looks.KEYS,
            app_kwargs={"middleware": [(Guarded, (), {})]},
            state_session_capacity=SESSIONS,
            max_file_size="256mb",
            footer_links=[],
            share=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
        )
        try:
            print(f"app.py: the page is at {address} (Ctrl-C ends it)", file=sys.stderr, flush=True)
            threading.Event().wait()
        finally:
            page.blocks.close(verbose=False)


class Guarded:
    """Adds the policy to what is sent, as ASGI's middleware."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"content-security-policy", POLICY.encode())]
                message = message | {"headers": headers}
            await send(message)

        await self.app(scope, receive, guarded)


def free_port(host: str, port: int | None) -> int:
    """A port that can be listened at: the given one, else the first free one from the usual on.
    Raises InputError."""
    if port is not None:
        check("--port", port, 1, 65535, whole=True)
    for tried in [port] if port else range(PORT, PORT + 100):
        try:
            with socket.socket() as listening:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((host, tried))
                return tried
        except (OSError, UnicodeError) as error:
            wrong = error
            if getattr(error, "errno", None) != errno.EADDRINUSE:
                break
    why = getattr(wrong, "strerror", None) or wrong
    raise ptinv.InputError(
        f"cannot listen at {host}:{tried} ({why}); name another --port or --host"
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="app.py", description=__doc__.splitlines()[0])
    listens = (
        "answer at this address; 0.0.0.0 answers to other machines, too (default: %(default)s)"
    )
    top.add_argument("--host", default="127.0.0.1", help=listens)
    top.add_argument("--port", type=int, help=f"(default: {PORT}, or the next that is free)")
    for name in ("--model", "--device", "--dtype"):
        top.add_argument(name, help="as of `ptinv edit`")
    top.add_argument("--quiet", action="store_true", help="say only what is wrong, and the address")
    return top


if __name__ == "__main__":
    sys.exit(main())
