"""The app in a browser: `zolite --serve`, on this machine alone, for who has the link.

The link's token is good once: who opens it gets a cookie of this server, and the link is used up. Every request must be
made to this address (Host), by a page of this address (Origin): a page of another port of this machine is of the same
site for a browser, and its requests carry the cookie. Each page that is open has an app in a process of its own, which
ends with the page, and with this process however that ends.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler, Middleware
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from .served import SERVER

HOST = "127.0.0.1"
MOST_PAGES = 4  # at a time
COLUMNS, ROWS = (20, 640), (5, 240)  # of a page's terminal
MESSAGE_BYTES = 1 << 18  # of one that a page sends: what is pasted, at most
GRACE_SECONDS = 2.0  # for an app to end by itself
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass
class Entry:
    """Who may come in. `token` is for the link and empty once it was used; `cookie` is for those who used it."""

    port: int
    token: str
    cookie: str

    @property
    def name(self) -> str:
        """Of the cookie: browsers send those of every port to every other."""
        return f"zolite-{self.port}"

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.port}"

    def refusal(self, request: web.Request) -> str:
        """Why a request is not one of a page of this address; empty if it is."""
        if request.headers.getall("Host", []) != [f"{HOST}:{self.port}"]:
            return f"this is {self.origin}, and answers by no other name"
        said = request.headers.getall("Origin", [])
        needed = [self.origin] if request.path == "/ws" else []  # what a browser always says of a socket
        return "" if said in (needed, [self.origin]) else "only pages of this address may ask"

    def known(self, request: web.Request) -> bool:
        return _same(request.cookies.get(self.name, ""), self.cookie)

    def used(self, request: web.Request) -> bool:
        """Is this the link, for the first time? It is used up then."""
        right = request.method == "GET" and request.path == "/" and self.token
        if right and _same(request.query.get("token", ""), self.token):
            self.token = ""
            return True
        return False


def _same(given: str, wanted: str) -> bool:
    """In a time that says nothing. Any text may be given."""
    return secrets.compare_digest(given.encode("utf-8", "backslashreplace"), wanted.encode())


def guard(entry: Entry) -> Middleware:
    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if refusal := entry.refusal(request):
            raise web.HTTPForbidden(text=refusal)
        if entry.known(request):
            return await handler(request)
        if not entry.used(request):
            raise web.HTTPForbidden(
                text="open the link that `zolite --serve` printed; it is good once, in one browser: start it again for "
                "another link"
            )
        inside = web.HTTPFound("/")
        inside.set_cookie(entry.name, entry.cookie, httponly=True, samesite="Strict")
        raise inside

    return guarded


class Page(AppService):  # type: ignore[misc]
    """The app of one page, in a process of its own."""

    async def _open_app_process(self, width: int = 80, height: int = 24) -> asyncio.subprocess.Process:
        pipe, environment = asyncio.subprocess.PIPE, self._build_environment(width, height)
        self._process = await asyncio.create_subprocess_exec(
            *self.command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment | {SERVER: str(os.getpid())}
        )
        self._stdin = self._process.stdin
        return self._process

    async def stop(self) -> None:
        """Asks it to end, and ends it where it does not."""
        process = self._process
        if process is None:
            return
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(super().stop(), GRACE_SECONDS)
        finally:
            self._task = None
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def heed(self, asked: tuple[str, Any], websocket: web.WebSocketResponse) -> None:
        match asked:
            case "stdin", str(text):
                await self.send_bytes(text.encode("utf-8", "replace"))
            case "resize", (int(width), int(height)):
                await self.set_terminal_size(width, height)
            case "ping", data:
                await websocket.send_json(["pong", data])
            case "blur", _:
                await self.blur()
            case "focus", _:
                await self.focus()


def understood(text: str) -> tuple[str, Any] | None:
    """What a page asks for: its word and what belongs to it, sizes within COLUMNS and ROWS; None if it is nothing."""
    try:
        match json.loads(text):
            case ["stdin", str(typed)]:
                return "stdin", typed
            case ["resize", {"width": int(width), "height": int(height)}]:
                return "resize", (clamped(width, COLUMNS), clamped(height, ROWS))
            case ["ping", str() | int() | float() | None as data]:
                return "ping", data
            case [("blur" | "focus") as word, *_]:
                return word, None
    except (ValueError, RecursionError):
        pass
    return None


def clamped(value: int, bounds: tuple[int, int]) -> int:
    return min(max(value, bounds[0]), bounds[1])


class AppServer(Server):  # type: ignore[misc]
    """Pages, and the apps behind them."""

    def __init__(self, entry: Entry, command: tuple[str, ...] = (sys.executable, "-m", "zolite.tui")) -> None:
        super().__init__("zolite", host=HOST, port=entry.port, title="zolite")
        self.entry, self.app = entry, command
        self.pages: dict[web.WebSocketResponse, Page] = {}

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(guard(self.entry))
        app.on_response_prepare.append(_with_headers)
        return app

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """An app for as long as its page is open."""
        if len(self.pages) >= MOST_PAGES:
            raise web.HTTPServiceUnavailable(text=f"{MOST_PAGES} pages are open already: close one")
        websocket = web.WebSocketResponse(heartbeat=15, max_msg_size=MESSAGE_BYTES)
        page = self.pages[websocket] = Page(
            self.app,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=websocket.close,
            download_manager=self.download_manager,
        )
        size = (to_int(request.query.get(name, ""), usual) for name, usual in (("width", 80), ("height", 24)))
        try:
            await websocket.prepare(request)
            await page.start(*map(clamped, size, (COLUMNS, ROWS)))
            async for message in websocket:
                asked = understood(message.data) if message.type == WSMsgType.TEXT else None
                if asked is not None:
                    await page.heed(asked, websocket)
        finally:
            try:
                await page.stop()
            finally:
                del self.pages[websocket]
        return websocket

    async def on_startup(self, app: web.Application) -> None:
        link = f"{self.entry.origin}/?token={self.entry.token}"
        print(f"zolite in a browser on this machine, once: {link}\nCtrl-C ends this; runs go on", flush=True)

    async def on_shutdown(self, app: web.Application) -> None:
        await asyncio.gather(*(page.stop() for page in self.pages.values()), return_exceptions=True)
        await asyncio.gather(*(websocket.close() for websocket in self.pages), return_exceptions=True)


async def _with_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def serve() -> None:
    """Until Ctrl-C or termination. No request is logged: the link's has the token."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen()  # before the link is printed
        port = int(listening.getsockname()[1])
        server = AppServer(Entry(port, secrets.token_urlsafe(24), secrets.token_urlsafe(24)))
        web.run_app(server._make_app(), sock=listening, access_log=None, print=None, shutdown_timeout=GRACE_SECONDS)
