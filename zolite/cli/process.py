"""What the commands share: options, reports, and how a run is shown, interrupted and detached from its terminal."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType
from typing import Annotated, Any

import typer

from zolite.cli import live
from zolite.common import progress
from zolite.common.errors import process_error
from zolite.common.events import Event, Finished, Started, from_json
from zolite.common.paths import paths

INTERRUPTED = 130

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="what an expert asks for too: step sizes, gradients, skipped steps")
]
Json = Annotated[bool, typer.Option("--json", help="one JSON document, or one event a line, on stdout")]
Plain = Annotated[bool, typer.Option("--plain", help="lines of text instead of live panels")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="a session")]
Detach = Annotated[bool, typer.Option("--detach", help="run in the background; `zolite watch` shows it")]


class Interrupt:
    """Ctrl-C: the first asks for an end and prints `promise`; the second exits at once."""

    def __init__(self, promise: str) -> None:
        self.asked, self.promise = False, promise

    def __call__(self) -> bool:
        return self.asked

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            sys.stderr.write("\x1b[?25h" if sys.stderr.isatty() else "")  # the live view had hidden the cursor
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        self.asked = True
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(self.promise, file=sys.stderr)


def interrupt(promise: str = "finishing this step and saving; Ctrl-C again exits at once") -> Interrupt:
    """Installed for Ctrl-C and termination, from here on."""
    asked = Interrupt(promise)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked.handle)
    return asked


def follow(run: Callable[[Interrupt], Iterable[Event]], plain: bool, as_json: bool, verbose: bool = False) -> None:
    """Show a run's events, and exit with what they mean. Where the terminal goes away, the run goes on."""
    asked, name, last = interrupt(), "", None
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: detach_output())
    with live.VIEWS[live.pick(plain, as_json)](verbose=verbose) as view, progress.told(partial(show, view)):
        for event in run(asked):
            show(view, event)
            name = event.session if isinstance(event, Started) else name
            last = event if isinstance(event, Finished) else last
    if last is not None and last.reason == "interrupted":
        print(f"stopped at step {last.step}; `zolite resume {name}` goes on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


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


def detached(arguments: list[str]) -> str:
    """Start a command in a process of its own that outlives this one and its terminal; its session's name.

    Raises what it raised, if it ended before its first step.
    """
    root = paths()["sessions"]
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = root / f".log-{os.getpid()}"
    command = [sys.executable, "-m", "zolite", *arguments, "--json"]
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, **_apart()
        )
    try:
        name = _started(child)
    except BaseException:
        child.terminate()
        raise
    if name is None:
        code, message = child.wait(), log.read_text(errors="replace")
        log.unlink()
        raise process_error(code, message)
    log.replace(root / name / "trainer.log")
    return name


def _apart() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _started(child: "subprocess.Popen[str]") -> str | None:
    assert child.stdout is not None
    for line in child.stdout:
        if isinstance(event := from_json(line), Started):
            return event.session
    return None


def report(document: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(document, ensure_ascii=False) if as_json else text)


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
