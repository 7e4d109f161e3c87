"""The server of the page, on this machine's own address, and what keeps others from it."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adu_depth.app.networks import Networks
from adu_depth.app.page import TEMPLATES, build_page
from adu_depth.errors import InputError
from adu_depth.export.extras import needed
from adu_depth.files import size_limit

ADDRESS = "127.0.0.1"
"""The page has no password: nobody else's machine reaches it."""
FIRST_PORT, PORTS = 7860, 100
UPLOADS = "gradio"
"""Of the temporary folder, what was dropped, and copies of what is shown."""
# The browser is told to load nothing from anywhere else, as gradio's own page would, and to show the page in no other.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@contextmanager
def serving(networks: Networks, port: int | None, camera_file: Path | None = None) -> Iterator[str]:
    """The page's address, which answers within the block. port: None takes the first free one from 7860.

    Raises InputError where gradio is not installed, and for a port that is taken.
    """
    port = _free_port() if port is None else _require_free(port)
    folder = Path(tempfile.mkdtemp(prefix="adu-depth-app-"))
    try:
        with _surroundings(folder):
            gr = needed("gradio", "app", "the page")
            page = build_page(gr, networks, folder, folder / UPLOADS, camera_file)
            try:
                _, address, _ = page.launch(
                    server_name=ADDRESS,
                    server_port=port,
                    prevent_thread_lock=True,
                    quiet=True,
                    share=False,
                    show_error=True,
                    ssr_mode=False,
                    mcp_server=False,
                    footer_links=[],
                    max_file_size=size_limit(),
                    app_kwargs={"middleware": _middleware()},
                    theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                    css=_template("viewer.css"),
                    head=f"<script>{_template('viewer.js')}</script>",
                )
                yield address
            finally:
                # First: the server waits for a prediction that runs, and a program that was told to stop is ended soon.
                shutil.rmtree(folder, ignore_errors=True)
                page.close(verbose=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    """The environment that gradio reads, as it is imported and later: nothing is sent anywhere, copies go into the
    folder, and it asks its own address, once, by no proxy. Afterwards all is as it was."""
    before = dict(os.environ)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / UPLOADS)
    for name in _PROXIES:
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _middleware() -> list[Any]:
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse

    class OwnPageOnly:
        """Refuses what another page in the same browser asks for, and sends the policy."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
            origin = headers.get("origin")
            if origin is not None and origin != f"{scope['scheme']}://{headers.get('host')}":
                await PlainTextResponse("asked from another page", status_code=403)(scope, receive, send)
                return

            async def with_policy(message: Any) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
                await send(message)

            await self.app(scope, receive, with_policy)

    # A page elsewhere can make a browser ask this address under a name of its own, but not under this one.
    return [Middleware(TrustedHostMiddleware, allowed_hosts=[ADDRESS, "localhost"]), Middleware(OwnPageOnly)]


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        if _is_free(port):
            return port
    raise InputError(f"port: none of {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free: name another by --port")


def _require_free(port: int) -> int:
    if not _is_free(port):
        raise InputError(f"port: {port} is taken by another program, or is not yours to take: name another by --port")
    return port


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((ADDRESS, port))
        except OSError:
            return False
    return True
