"""A report of sessions, written where the app runs and shown in a browser."""

import os
import sys
import webbrowser
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from zolite.report.written import written

if TYPE_CHECKING:
    from .context import Context


def show_report(app: "Context", names: Sequence[str]) -> str:
    """Writes the page and opens it; what a person is told. For a thread. Raises what keeps it from being written."""
    page = written(names, None, app.machine)[0].resolve()
    if app.is_web:  # the browser is somewhere else, and takes it from this server
        app.call_from_thread(partial(app.deliver_text, page, open_method="browser", mime_type="text/html"))
        return f"{page.name} is in another tab, and at {page}"
    opened = has_browser() and webbrowser.open(page.as_uri())
    return f"in the browser: {page}" if opened else f"the report is at {page}: open it in a browser"


def has_browser() -> bool:
    """One with a window; those that draw in a terminal would draw over the app."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
