"""Control commands: what readers of a session ask of the run that writes it, through the journal's command table."""

import time
from collections.abc import Callable

from zolite.sessions.journal import Journal

COMMANDS = {
    "pause": "save, then wait; the memory stays taken",
    "continue": "go on after a pause",
    "checkpoint": "save after this step",
    "stop": "save and end; `zolite resume` goes on",
}
POLL_SECONDS = 0.2


class Control:
    """The commands given to a run, read a few times a second; `stop` is asked before every step."""

    def __init__(self, journal: Journal, stop: Callable[[], bool]) -> None:
        self.journal, self.stop = journal, stop
        self.polled = float("-inf")
        self.paused = self.saving = self.ended = False

    def stopped(self) -> bool:
        return self.stop() or self.ended

    def poll(self) -> None:
        """Take in what was asked since the last poll. A command of a later version of zolite is passed over."""
        if time.monotonic() - self.polled < POLL_SECONDS:
            return
        for command in self.journal.take():
            self.paused = command == "pause" or (self.paused and command != "continue")
            self.saving = self.saving or command == "checkpoint"
            self.ended = self.ended or command == "stop"
        self.polled = time.monotonic()
