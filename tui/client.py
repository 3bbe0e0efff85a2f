"""What the app asks of other processes: commands of zolite with --json. Blocking: call it from a thread worker.

    client.ask("doctor")                            what that command reports
    client.start("resume", "first")                 leaves a run going by itself; its session's name
    with client.converse("chat", "first") as talk:  a line of JSON in, lines of JSON out

Each raises what the command raised, with its message and its hint.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

from zolite.common.errors import ZoliteError, process_error

POLL_SECONDS = 0.1
PATIENCE_SECONDS = 10.0  # for who was asked to end and is clearing up: a second Ctrl-C would break that off


def _never() -> bool:
    return False


def _ignored(document: Any) -> None:
    pass


@contextlib.contextmanager
def _written() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A file to write and the same to read, each from its own place in it."""
    with tempfile.TemporaryDirectory(prefix="zolite-", ignore_cleanup_errors=True) as folder:
        name = os.path.join(folder, "out")
        with open(name, "wb") as out, open(name, "rb") as written:
            yield out, written


@dataclass
class _Lines:
    """The lines of a file that grows, but for the last, each a document of JSON."""

    file: IO[bytes]
    heard: Callable[[Any], None]
    rest: bytes = b""

    def __call__(self) -> None:
        *whole, self.rest = (self.rest + self.file.read()).split(b"\n")
        for line in whole:
            with contextlib.suppress(ValueError):
                self.heard(json.loads(line))


@dataclass(frozen=True)
class Client:
    """How zolite is called; the app's tests give another command."""

    command: tuple[str, ...] = (sys.executable, "-m", "zolite")

    def ask(
        self,
        *arguments: str,
        gone: Callable[[], bool] = _never,
        left: Callable[[], bool] = _never,
        heard: Callable[[Any], None] = _ignored,
    ) -> Any:
        """The document that a command prints; `heard` gets those on stderr as they come. `gone` ends the command, whose
        answer nobody wants any more. `left` leaves it going by itself, and there is no answer: None.
        """
        with tempfile.TemporaryFile() as out, _written() as (errors, written):
            child = self._child([*arguments, "--json"], out, errors)
            if not _waited(child, gone, left, _Lines(written, heard)):
                return None
            printed, stderr = _content(out), _content(written)
        try:
            return json.loads(printed)
        except ValueError:
            raise process_error(child.returncode, stderr) from None

    def start(
        self,
        *arguments: str,
        gone: Callable[[], bool] = _never,
        left: Callable[[], bool] = _never,
        heard: Callable[[Any], None] = _ignored,
    ) -> str:
        """Starts train, resume or demo in a process of its own, waits until it runs, and says its session's name; ""
        where it was left before that, and goes on. `heard` gets what it does until then, as events in JSON.
        """
        document = self.ask(*arguments, "--detach", gone=gone, left=left, heard=heard)
        return str(document["session"]) if document else ""

    def converse(self, *arguments: str) -> "Talk":
        """A command that answers until it is closed."""
        return Talk([*self.command, *arguments, "--json"])

    def _child(self, arguments: list[str], out: IO[bytes], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*self.command, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=errors, **apart()
        )


class Talk:
    """A process that answers lines with lines. Not for two threads at once, except `close`."""

    def __init__(self, command: list[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the talk
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            encoding="utf-8", **apart(),
        )  # fmt: skip

    def say(self, document: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(document) + "\n")
            self._child.stdin.flush()
        except OSError:
            raise self._ended() from None

    def hear(self) -> Iterator[dict[str, Any]]:
        """What it says, line by line, until it ends; raises what it raised."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            yield json.loads(line)
        if self._child.wait():
            raise self._ended()

    def close(self) -> None:
        """Ends it, whatever it does."""
        if self._child.poll() is None:
            self._child.terminate()
        self._child.wait()

    def _ended(self) -> ZoliteError:
        return process_error(self._child.wait(), _content(self._errors))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def apart() -> dict[str, Any]:
    """A process that the terminal's Ctrl-C and hanging up do not reach."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined,unused-ignore]
    return {"start_new_session": True}


def _waited(
    child: "subprocess.Popen[bytes]", gone: Callable[[], bool], left: Callable[[], bool], read: Callable[[], None]
) -> bool:
    """Has it ended? Else it was left."""
    asked = -math.inf
    while True:
        read()
        try:
            child.wait(POLL_SECONDS)
            return True
        except subprocess.TimeoutExpired:
            if gone() and time.monotonic() - asked >= PATIENCE_SECONDS:
                asked = time.monotonic()
                _let_go(child)
            elif not gone() and left():
                return False


def _let_go(child: "subprocess.Popen[bytes]") -> None:
    """As Ctrl-C would: a trainer that has not begun yet ends with the command that starts it."""
    child.terminate() if os.name == "nt" else child.send_signal(signal.SIGINT)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
