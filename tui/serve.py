"""The app in a browser: `zolite --serve`, on this machine alone, for who has the link with its token."""

import contextlib
import secrets
import socket
import sys

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from textual_serve.server import Server

HOST = "127.0.0.1"


class TokenServer(Server):  # type: ignore[misc]
    """Answers who knows the token: by the link once, by a cookie then."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__(f"{sys.executable} -m zolite.tui", host=HOST, port=port, title="zolite")
        self.token, self.cookie = token, f"zolite-{port}"

    @property
    def link(self) -> str:
        return f"{self.public_url}/?token={self.token}"

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self.guard())
        return app

    def guard(self) -> Middleware:
        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            if secrets.compare_digest(request.cookies.get(self.cookie, ""), self.token):
                return await handler(request)
            if not secrets.compare_digest(request.query.get("token", ""), self.token):
                raise web.HTTPForbidden(text="open the link that `zolite --serve` printed: its token is missing here")
            inside = web.HTTPFound("/")
            inside.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict")
            raise inside

        return guarded

    async def on_startup(self, app: web.Application) -> None:
        print(f"zolite in a browser on this machine: {self.link}\nCtrl-C ends this; runs go on", flush=True)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def serve() -> None:
    TokenServer(free_port(), secrets.token_urlsafe(24)).serve()
