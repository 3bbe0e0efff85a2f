"""The real app in a real terminal: a run is made, the app is killed, the run goes on, and ends as an adapter on disk.

With ZOLITE_LONG=1 it is the demo's model on the demo's rows; else a model of random weights, which is quicker.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from zolite.sessions import session as sessions

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
COMMAND = f"{sys.executable} -m zolite; echo left with $?; sleep 600"
IN_A_FIELD = r"f5 Start +\? Help"  # where q is a letter
PATIENCE = 240.0  # seconds that a screen may take on a busy machine


@dataclass
class Terminal:
    """A tmux server of its own."""

    socket: str
    environment: dict[str, str]
    folder: Path

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self.socket, "-f", os.devnull, *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=self.folder).stdout

    def open(self) -> None:
        self.tmux("new-session", "-d", "-s", "t", "-x", "120", "-y", "40", COMMAND)

    def press(self, *keys: str) -> None:
        """One after the other, as a person does: the next goes to whatever has the focus by then."""
        for key in keys:
            self.tmux("send-keys", "-t", "t", key)
            time.sleep(0.3)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-t", "t", "-l", text)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "t")

    def wait(self, words: str) -> str:
        """The screen, when it shows them; a pattern."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if re.search(words, text := self.screen()):
                return text
            time.sleep(0.2)
        raise AssertionError(f"{words!r} did not appear on\n{text}")

    def kill(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def terminal(tmp_path: Path, home: Path) -> Iterator[Terminal]:
    environment = {**os.environ, "TERM": "xterm-256color", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    environment.pop("TRITON_INTERPRET", None)
    made = Terminal(f"zolite-{os.getpid()}", environment, tmp_path)
    yield made
    made.kill()


@pytest.fixture
def choice(tiny: Path, folder: Callable[..., Path], terminal: Terminal) -> tuple[str, str, int]:
    """(model, rows, steps); no rows for the demo's."""
    if os.environ.get("ZOLITE_LONG"):
        terminal.environment.pop("ZOLITE_CACHE", None)  # where its weights may lie unpacked
        return "builtin:smollm2-135m", "", 40
    return str(tiny), str(folder()), 150


def test_a_run_outlives_the_app(terminal: Terminal, choice: tuple[str, str, int], tmp_path: Path) -> None:
    """Model, rows and plan by keys; the app is killed while it trains, found again, and exports what was learnt."""
    model, rows, steps = choice
    terminal.open()
    terminal.wait("New run")
    terminal.press("n")
    terminal.wait(r"\d+ of \d+ fit")
    terminal.press("BTab")  # from the list to the field above it
    terminal.wait(IN_A_FIELD)
    terminal.type(model)
    terminal.wait(re.escape(model[-12:]))
    terminal.press("Enter")
    terminal.wait("Choose a file or a folder")
    terminal.press("BTab")  # from the tree to the button of the demo's rows
    if rows:
        terminal.press("BTab")  # and to the path
        terminal.wait(IN_A_FIELD)
        terminal.type(rows)
    terminal.press("Enter")
    terminal.wait("⟦")
    terminal.press(*["Escape"] * bool(rows), "3")  # out of the field, where one was typed in
    terminal.wait("✓ fits")
    terminal.press(*["Tab"] * 9)  # from the plans to the steps
    terminal.type(str(steps))
    terminal.wait(f"{steps:,} steps in")
    terminal.press("F5")
    terminal.wait(rf"step [0-9,]+ of {steps:,}")
    (name,) = [each.name for each in sessions.list_()]
    terminal.press("q")
    terminal.wait(f"{name}.*/{steps:,}")
    terminal.kill()

    until = time.monotonic() + PATIENCE
    while (summary := sessions.list_()[0]).status == "running" and time.monotonic() < until:
        time.sleep(0.5)
    assert (summary.status, summary.step) == ("done", steps)

    terminal.open()
    terminal.wait(f"✓ done.*{name}")
    terminal.press("e")
    terminal.wait("folder")
    terminal.press("F5")
    terminal.wait("✓ read back")
    assert (tmp_path / f"{name}-peft" / "adapter_model.safetensors").stat().st_size > 1000
    terminal.press("Escape")
    terminal.wait("New run")
    terminal.press("q")
    terminal.wait("left with 0")


def test_the_terminal_is_as_it_was(terminal: Terminal) -> None:
    """An app that is ended by a signal leaves the screen, the cursor and the keys as they were."""
    terminal.open()
    terminal.wait("New run")
    pid = terminal.tmux("display-message", "-p", "-t", "t", "#{pane_pid}").strip()
    child = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True, check=True).stdout.split()[0]
    os.kill(int(child), signal.SIGTERM)
    text = terminal.wait("left with 0")
    assert "New run" not in text
    flags = terminal.tmux("display-message", "-p", "-t", "t", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}")
    assert flags.split() == ["0", "1", "0"]
