"""Tables of the app."""

from __future__ import annotations

from typing import Any

from textual.widgets import DataTable


class Table(DataTable[Any]):
    """Textual measures columns when it has nothing else to do, and keeps rows as they were drawn before that: on a busy
    machine with every cell as narrow as its heading. Here they are drawn again once the columns are measured."""

    def watch_virtual_size(self) -> None:
        self.notify_style_update()
