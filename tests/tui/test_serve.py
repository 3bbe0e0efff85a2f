"""Claims about the app in a browser: who gets in, what a page may ask for, and what is left when the server ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from http.cookies import SimpleCookie
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestServer, unused_port
from zolite.tui.serve import COLUMNS, HEADERS, HOST, MOST_PAGES, ROWS, AppServer, Entry, understood

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

APP = """
import json, os, sys
out = sys.stdout.buffer
out.write(b"__GANGLION__\\n")
def say(data):
    data = json.dumps(data).encode()
    out.write(b"D" + len(data).to_bytes(4, "big") + data)
    out.flush()
say({"pid": os.getpid(), "size": [os.environ["COLUMNS"], os.environ["ROWS"]]})
while head := sys.stdin.buffer.read(5):
    body = sys.stdin.buffer.read(int.from_bytes(head[1:], "big"))
    if head[:1] == b"M" and json.loads(body).get("type") == "quit" and "deaf" not in sys.argv:
        break
    say({"heard": body.decode()})
"""
"""Stands for the app: says its number and its size, and then whatever it is told."""

Visit = Callable[["Visitor"], Awaitable[None]]


class Visitor:
    """Asks a server as it likes; `cookie` is sent where it is not empty."""

    def __init__(self, http: ClientSession, server: AppServer) -> None:
        self.http, self.server, self.entry, self.cookie = http, server, server.entry, ""

    def headers(self, given: dict[str, str | None]) -> dict[str, str]:
        usual = {"Host": f"{HOST}:{self.entry.port}", "Cookie": self.cookie and f"{self.entry.name}={self.cookie}"}
        return {name: value for name, value in (usual | given).items() if value}

    async def get(self, path: str, method: str = "GET", **given: str | None) -> ClientResponse:
        url = f"http://{HOST}:{self.entry.port}{path}"
        async with self.http.request(method, url, headers=self.headers(given), allow_redirects=False) as answer:
            await answer.read()
            return answer

    async def enter(self) -> None:
        """By the link, as a browser does."""
        answer = await self.get(f"/?token={self.entry.token}")
        self.cookie = SimpleCookie(answer.headers["Set-Cookie"])[self.entry.name].value

    async def socket(self, query: str = "", **given: str | None) -> Any:
        headers = self.headers({"Origin": self.entry.origin} | given)
        return await self.http.ws_connect(f"{self.entry.origin}/ws{query}", headers=headers)

    async def status_of_socket(self, **given: str | None) -> int:
        try:
            async with await self.socket(**given):
                return 101
        except WSServerHandshakeError as refused:
            return refused.status


def visited(visit: Visit, *words: str) -> None:
    """Lets somebody visit a server whose pages have APP behind them."""

    async def run() -> None:
        entry = Entry(unused_port(), "a-token", "a-cookie")
        server = AppServer(entry, (sys.executable, "-c", APP, *words))
        test = TestServer(await server._make_app(), host=HOST, port=entry.port)
        await test.start_server()
        try:
            async with ClientSession() as http:
                await visit(Visitor(http, server))
        finally:
            await test.close()

    asyncio.run(run())


async def said(page: Any) -> Any:
    """The next thing that the app behind a page says."""
    message = await page.receive()
    assert message.type == WSMsgType.BINARY, message
    return json.loads(message.data)


OTHER = "http://127.0.0.1:1"
NAMES = (
    "localhost:{port}",
    "127.0.0.1",
    "127.0.0.1:1",
    "evil.example:{port}",
    "[::1]:{port}",
    "127.1:{port}",
    "0:{port}",
)
ORIGINS = (OTHER, "null", "http://localhost:{port}", "https://127.0.0.1:{port}", "http://127.0.0.1:{port}.evil", "x")
PATHS = ("/", "/ws", "/static/css/xterm.css", "/static/", "/download/x", "/nothing")
TOKENS = ("", "a-toke", "a-token-", "A-TOKEN", "%00", "%FF", "ü", "%F0%9F%A6%99", "a-token%00", "a-cookie")
COOKIES = ("a-token", "a-cooki", "a-cookie2", "\xfc", "-", "A-COOKIE")


def test_only_the_right_request_gets_in() -> None:
    """Some fifty, each wrong in one thing: name, origin, token, cookie, method. Then the right ones, once and on."""

    async def visit(visitor: Visitor) -> None:
        port, token = visitor.entry.port, "/?token=a-token"
        tries = [("right but for its name", token, {"Host": name.format(port=port)}) for name in NAMES]
        tries += [("right but for its origin", token, {"Origin": o.format(port=port)}) for o in ORIGINS]
        tries += [("no token and no cookie", path, {}) for path in PATHS]
        tries += [("another token", f"/?token={text}", {}) for text in TOKENS]
        tries += [("another cookie", "/", {"Cookie": f"{visitor.entry.name}={text}"}) for text in COOKIES]
        tries += [("the cookie of another port", "/", {"Cookie": "zolite-1=a-cookie"})]
        tries += [("the token where it is none", f"{path}?token=a-token", {}) for path in PATHS[1:]]
        assert len(tries) >= 40
        for what, path, headers in tries:
            answer = await visitor.get(path, **headers)
            assert answer.status in (403, 400), (what, path, headers, answer.status)
            assert "Set-Cookie" not in answer.headers and visitor.entry.token
        for method in ("HEAD", "POST", "PUT", "OPTIONS"):
            assert (await visitor.get(token, method)).status in (403, 405)
        entered = await visitor.get(token)
        assert (entered.status, entered.headers["Location"]) == (302, "/")
        assert all(word in entered.headers["Set-Cookie"] for word in ("HttpOnly", "SameSite=Strict", f"zolite-{port}="))
        assert (await visitor.get(token)).status == 403  # it was good once
        visitor.cookie = "a-cookie"
        page = await visitor.get("/")
        assert page.status == 200 and HEADERS.items() <= dict(page.headers).items()
        for name in NAMES:
            assert (await visitor.get("/", Host=name.format(port=port))).status in (403, 400)
        for origin in ORIGINS:
            assert (await visitor.get("/", Origin=origin.format(port=port))).status == 403

    visited(visit)


def test_a_socket_is_for_pages_of_this_address() -> None:
    """Whose cookie is right, but whose page lies at another port, or who says nothing of its page, gets none."""

    async def visit(visitor: Visitor) -> None:
        assert await visitor.status_of_socket() == 403
        visitor.cookie = "a-cookie"
        port = visitor.entry.port
        for origin in (None, *ORIGINS):
            assert await visitor.status_of_socket(Origin=origin and origin.format(port=port)) == 403
        for name in NAMES[:4]:
            assert await visitor.status_of_socket(Host=name.format(port=port)) == 403
        assert not visitor.server.pages
        assert await visitor.status_of_socket() == 101

    visited(visit)


@pytest.mark.parametrize("size", [(10**7, 10**7), (0, 0), (-5, 10**30), (100, 40)])
def test_a_terminal_is_no_larger_than_a_screen(size: tuple[int, int]) -> None:
    """At the start and after a resize; what is no message is passed over."""
    wanted = [min(max(value, low), high) for value, (low, high) in zip(size, (COLUMNS, ROWS), strict=True)]

    async def visit(visitor: Visitor) -> None:
        await visitor.enter()
        async with await visitor.socket(f"?width={size[0]}&height={size[1]}") as page:
            assert (await said(page))["size"] == [str(n) for n in wanted]
            for text in ("x", "{}", "[]", "[" * 100_000, '["resize", 1]', '["stdin"]', '["quit", {}]'):
                await page.send_str(text)
            await page.send_json(["resize", {"width": size[0], "height": size[1]}])
            heard = json.loads((await said(page))["heard"])
            assert heard == {"type": "resize", "width": wanted[0], "height": wanted[1]}
            await page.send_json(["stdin", "ü"])
            assert (await said(page))["heard"] == "ü"

    visited(visit)


@pytest.mark.parametrize(
    "text",
    ["", "1", "null", '["stdin", 1]', '["resize", {"width": "9", "height": 9}]', '["resize", {"width": NaN}]',
     '["resize", {"width": 1e999, "height": 1}]', '["ping", {"a": []}]', "9" * 10_000, '{"a":' * 50_000],
)  # fmt: skip
def test_what_is_no_message_means_nothing(text: str) -> None:
    assert understood(text) is None


def test_so_many_pages_and_no_more() -> None:
    """A page too many is refused; one that is closed makes room, and its app is gone, also one that does not listen."""

    async def visit(visitor: Visitor) -> None:
        await visitor.enter()
        pages = [await visitor.socket() for _ in range(MOST_PAGES)]
        numbers = [(await said(page))["pid"] for page in pages]
        assert await visitor.status_of_socket() == 503
        await pages[0].close()
        while len(visitor.server.pages) == MOST_PAGES:
            await asyncio.sleep(0.01)
        with pytest.raises(ProcessLookupError):
            os.kill(numbers[0], 0)
        assert await visitor.status_of_socket() == 101

    visited(visit, "deaf")


SERVE = """
import sys
from zolite.tui import serve
plain = serve.AppServer
code, serve.AppServer = sys.stdin.read(), lambda entry: plain(entry, (sys.executable, "-c", code))
serve.serve()
"""
WATCHED = "from zolite.tui.served import end_with_server\nend_with_server()\n" + APP


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_server(number: int) -> None:
    """Interrupted, terminated or killed, it takes its apps along; what it printed has the token in the link alone."""
    command = [sys.executable, "-c", SERVE]
    server = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True)
    assert server.stdin is not None and server.stdout is not None and server.stderr is not None
    server.stdin.write(WATCHED)
    server.stdin.close()
    link = server.stdout.readline().split()[-1]
    origin, _, token = link.partition("/?token=")

    async def visit() -> int:
        async with ClientSession() as http:
            async with http.get(link, allow_redirects=False) as answer:
                cookie = answer.headers["Set-Cookie"].partition(";")[0]
            async with http.get(f"{origin}/?token=ü&{token}", headers={"Cookie": cookie}) as answer:
                assert answer.status == 200
            page = await http.ws_connect(f"{origin}/ws", headers={"Origin": origin, "Cookie": cookie})
            pid = (await said(page))["pid"]
            server.send_signal(number)
            return int(pid)

    child = asyncio.run(visit())
    printed = server.stdout.read() + server.stderr.read()  # ends where the last of its processes has ended
    server.wait()
    until = time.monotonic() + 240
    while alive(child):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert token not in printed and "Traceback" not in printed, printed


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return open(f"/proc/{number}/stat").read().rpartition(")")[2].split()[0] != "Z" if sys.platform == "linux" else True
