"""What a screen may ask of the app beside what every Textual app has. `app.py` is the one that answers.

Screens import this and never `app.py`, which imports the screens; a screen declares `app: "Context"`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.screen import Screen

from zolite.common.errors import ZoliteError

if TYPE_CHECKING:
    from zolite.planner.hardware import Hardware

    from .client import Client
    from .config import Config


class Context(App[None]):
    """The app as its screens see it."""

    client: "Client"
    """commands of zolite in processes of their own; blocking"""
    machine: Callable[[], "Hardware"]
    """the machine as it is now; blocking, since it asks the driver"""
    clock: Callable[[], float]
    """unix seconds"""
    config: "Config"
    config_path: Path

    def prefer(self, **changes: Any) -> None:
        """Changes a preference, here and in the file."""
        raise NotImplementedError

    def report(self, error: ZoliteError, title: str = "") -> None:
        """What went wrong, with the way out, until it is read."""
        raise NotImplementedError

    def begin(self, *command: str, over: Screen[Any] | None = None) -> None:
        """Starts a trainer that needs nobody, and opens its Run screen once it runs, in place of `over`."""
        raise NotImplementedError

    def open_report(self, *names: str) -> None:
        """A page about a session, or several beside each other, in the browser."""
        raise NotImplementedError
