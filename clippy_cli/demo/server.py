"""How the page gets to the browser: one port, one process, and nothing from any other host."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.resources import files
from typing import Any

from clippy_cli.demo.page import build_page, import_gradio, theme
from clippy_cli.demo.workbench import Workbench
from clippy_cli.errors import ClippyError

MAX_UPLOAD = "32mb"
_PORTS_TRIED = 100
_HOST_HINT = "Leave --host out for this machine alone, or pass 0.0.0.0 for all its addresses."
_GRACE_SECONDS = 1  # that open pages get when the server ends
_STYLES = files("clippy_cli") / "assets" / "demo.css"
# The browser itself refuses whatever is not served here, should a part of gradio ever ask for it.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # gradio fills its HTML templates with new Function
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on ``port``, or on the next free one where it is taken; 0 lets the system choose.

    ClippyError where the host is no address of this machine, or no port is free.
    """
    last = min(port + _PORTS_TRIED, 1 << 16) if port else 1
    try:
        family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ClippyError(f"{host!r} is not the name or address of a host ({error})", _HOST_HINT) from error
    for candidate in range(port, last):
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address[0], candidate, *address[2:]))
            listening.listen()
            return listening
        except OSError as error:
            listening.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            raise ClippyError(f"Cannot listen on {host}: {error.strerror}", _HOST_HINT) from error
    raise ClippyError(f"No port from {port} to {last - 1} is free on {host}", "Name another with --port, or 0 for any.")


def address(listening: socket.socket) -> str:
    """Where a browser on this machine finds the page."""
    host, port = listening.getsockname()[:2]
    ip = ipaddress.ip_address(host)
    if ip.is_unspecified:
        ip = ipaddress.ip_address("127.0.0.1" if ip.version == 4 else "::1")
    return f"http://[{ip}]:{port}/" if ip.version == 6 else f"http://{ip}:{port}/"


def is_local(listening: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def build_app(bench: Workbench, model: str) -> Any:
    """The page as an ASGI application: no share link, statistics, API pages or history, and no other host."""
    gradio = import_gradio()
    from fastapi import FastAPI

    app = gradio.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build_page(bench, model),
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=MAX_UPLOAD,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css=_STYLES.read_text(encoding="utf-8"),
    )
    app.add_middleware(_OwnHostOnly)
    return app


def serve(app: Any, listening: socket.socket) -> None:
    """Answer until Ctrl-C or a request to terminate; then return."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that files are cleared away
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


class _OwnHostOnly:
    """Adds the headers that keep the page to its own host to every answer."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def send_fenced(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self.app(scope, receive, send_fenced)
