"""What the commands share: options, reports, and how a run is shown, interrupted and detached from its terminal."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from zolite.cli import live
from zolite.cli.terminal import say
from zolite.common import progress
from zolite.common.errors import UsageError, process_error
from zolite.common.events import Event, Finished, Started, Working, from_json, to_json
from zolite.common.paths import paths
from zolite.common.text import json_text
from zolite.monitor.log import working_text
from zolite.monitor.outcome import concluded
from zolite.sessions import lock, working

INTERRUPTED = 130
GRACE_SECONDS = 1.0  # for a run that has not begun to leave by itself
PROMISE = "finishing this step and saving; Ctrl-C again exits at once"

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="what an expert asks for too: step sizes, gradients, skipped steps")
]
Json = Annotated[bool, typer.Option("--json", help="one JSON document, or one event a line, on stdout")]
Plain = Annotated[bool, typer.Option("--plain", help="lines of text instead of live panels")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="a session")]
Detach = Annotated[bool, typer.Option("--detach", help="run in the background; `zolite watch` shows it")]


class Interrupt:
    """Ctrl-C and termination. Once a run has begun, the first asks for an end and prints `promise`, and the second
    exits at once. Before that there is nothing to save, and the first ends it.
    """

    def __init__(self, promise: str, begun: bool = True) -> None:
        self.asked, self.promise, self.begun = False, promise, begun

    def __call__(self) -> bool:
        return self.asked

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            leave_at_once()
        self.asked = True
        self.answer()
        if not self.begun:
            raise KeyboardInterrupt

    def answer(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(self.promise if self.begun else "ended before its first step", file=sys.stderr, flush=True)


def leave_at_once() -> None:
    sys.stderr.write("\x1b[?25h" if sys.stderr.isatty() else "")  # the live view had hidden the cursor
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)


def interrupt(promise: str = PROMISE) -> Interrupt:
    """Installed for Ctrl-C and termination, from here on."""
    asked = Interrupt(promise)
    _install(asked.handle)
    return asked


def _install(handle: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


@contextlib.contextmanager
def preparing(asked: Interrupt) -> Iterator[None]:
    """Around a run that may be ended before it has begun, whatever its main thread does then.

    Python calls handlers between two of its instructions, and unpacking weights or reading a big file may be one that
    takes a minute; a download has threads that are waited for. So another thread hears of the signal too, and ends the
    process where it is still there after GRACE_SECONDS.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=(asked, heard), daemon=True).start()
    try:
        yield
    finally:
        if asked.begun or not asked.asked:  # else the thread goes on: leaving may take long
            signal.set_wakeup_fd(before)
            told.close()


def _end_late(asked: Interrupt, heard: socket.socket) -> None:
    with heard:
        while number := heard.recv(1):
            if number[0] in (signal.SIGINT, signal.SIGTERM) and not asked.begun:
                time.sleep(GRACE_SECONDS)
                if not asked.asked:
                    asked.answer()
                if not asked.begun:
                    leave_at_once()


def follow(
    run: Callable[[Interrupt], Iterable[Event]], plain: bool, as_json: bool, verbose: bool = False, data: str = ""
) -> None:
    """Show a run's events, and exit with what they mean. Where the terminal goes away, the run goes on."""
    asked, name, last = Interrupt(PROMISE, begun=False), "", None
    _install(asked.handle)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: detach_output())
    shown = live.VIEWS[live.pick(plain, as_json)](verbose=verbose)
    try:
        with preparing(asked), shown as view, progress.told(said := _Audience(view), asked):
            for event in concluded(run(asked), data):
                asked.begun = asked.begun or isinstance(event, Started)
                said(event)
                name = event.session if isinstance(event, Started) else name
                last = event if isinstance(event, Finished) else last
    except KeyboardInterrupt:  # all is closed by now; Python would take apart what torch holds, which takes seconds
        leave_at_once()
    if last is not None and last.reason == "interrupted":
        say(f"stopped at step {last.step}; `zolite resume {name}` goes on", sys.stderr)
        raise typer.Exit(INTERRUPTED)


def aside(as_json: bool) -> contextlib.AbstractContextManager[None]:
    """What takes long inside is told on stderr, in words or as events."""
    return progress.told(partial(tell, as_json))


def tell(as_json: bool, event: Working) -> None:
    """On stderr, since stdout is the answer's; with --json as events."""
    with contextlib.suppress(OSError):  # nobody may read it any more
        say(to_json(event) if as_json else working_text(event), sys.stderr)


class _Audience:
    """The view, and once there is a session who looks at that from elsewhere. Called from two threads: what is being
    done is also said by one that does not do it.
    """

    def __init__(self, view: live.View) -> None:
        self.view, self.folder, self.left = view, Path(), False
        self.lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self.lock:
            show(self.view, event)
            if isinstance(event, Started):
                self.folder = paths()["sessions"] / event.session
                working.clear(self.folder)  # a run that was killed may have left one
            elif isinstance(event, Working) and self.folder.name:
                working.put(self.folder, event)
                self.left = True
            elif self.left:
                working.clear(self.folder)
                self.left = False


def show(view: live.View, event: Event) -> None:
    """A terminal or a pipe that is gone does not end the run."""
    try:
        view.show(event)
    except OSError:
        detach_output()


def detach_output() -> None:
    """The terminal is gone: from here on input is empty and output is dropped."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nowhere, handle)


def detached(arguments: list[str], told: Callable[[Working], None]) -> str:
    """Start a command in a process of its own that outlives this one and its terminal; its session's name.

    Until it takes steps `told` hears what it does.

    Raises what it raised, if it ended before its first step. Ctrl-C and termination end it, too: before its first step
    at once, and then as `zolite sessions stop` does.
    """
    root = paths()["sessions"]
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = root / f".log-{os.getpid()}"
    command = [sys.executable, "-m", "zolite", *arguments, "--json"]
    passing = _Passing()
    _install(passing.handle)
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as errors:
        lock.hold(errors.fileno())  # by the child, too: what is left of both is swept
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, **_apart()
        )
    passing.to(child)
    name = _started(child, told)
    if name is not None:
        log.replace(root / name / "trainer.log")
    else:
        code, message = child.wait(), log.read_text(errors="replace")
        log.unlink()
    if passing.asked:
        raise typer.Exit(INTERRUPTED)
    if name is None:
        raise process_error(code, message)
    return name


class _Passing:
    """Ctrl-C and termination are handed to a child, once: this process leaves when that one has."""

    def __init__(self) -> None:
        self.asked = False
        self.child: subprocess.Popen[str] | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self.asked and self.child is not None:
            self.child.terminate()
        self.asked = True

    def to(self, child: "subprocess.Popen[str]") -> None:
        self.child = child
        if self.asked:  # while it was being started
            child.terminate()


def _apart() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _started(child: "subprocess.Popen[str]", told: Callable[[Working], None]) -> str | None:
    assert child.stdout is not None
    for line in child.stdout:
        event = from_json(line)
        if isinstance(event, Started):
            return event.session
        if isinstance(event, Working):
            told(event)
    return None


def report(document: dict[str, Any], text: str, as_json: bool) -> None:
    say(json_text(document) if as_json else text)


def agreed(consequence: str, instead: str, yes: bool) -> None:
    """Asks on a terminal whether that may be, and ends where it may not; elsewhere --yes has to say so."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(consequence, f"say --yes where that is meant; {instead}")
    say(f"{consequence}\n{instead}", sys.stderr)
    typer.confirm("remove them?", abort=True, err=True)


def outline(value: Any, depth: int = 0) -> list[str]:
    """Nested values as indented lines."""
    lines: list[str] = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{'  ' * depth}{key}", *outline(item, depth + 1)]
        else:
            items = item if isinstance(item, list) and item and isinstance(item[0], dict) else [item]
            shown = [json.dumps(i, ensure_ascii=False) if not isinstance(i, str) else i for i in items]
            lines += [f"{'  ' * depth}{key}: {text}" for text in shown]
    return lines
