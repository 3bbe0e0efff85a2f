"""What readers of a session ask of the run that writes it, through the journal's command table."""

import time
from collections.abc import Callable

from zolite.sessions.journal import Journal

VERBS = {
    "pause": "save, then wait; the memory stays taken",
    "continue": "go on after a pause",
    "checkpoint": "save after this step",
    "stop": "save and end; `zolite resume` goes on",
}
LOOK_SECONDS = 0.2


class Orders:
    """The commands that a run has been given, looked for a few times a second; `stop` is asked before every step."""

    def __init__(self, journal: Journal, stop: Callable[[], bool]) -> None:
        self.journal, self.stop = journal, stop
        self.looked = float("-inf")
        self.paused = self.saving = self.ended = False

    def stopped(self) -> bool:
        return self.stop() or self.ended

    def look(self) -> None:
        """Take in what was asked since the last look. A verb of a later version of zolite means nothing."""
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        for verb in self.journal.take():
            self.paused = verb == "pause" or (self.paused and verb != "continue")
            self.saving = self.saving or verb == "checkpoint"
            self.ended = self.ended or verb == "stop"
        self.looked = time.monotonic()
