"""Claims about tables: what was drawn too early is drawn again."""

import asyncio

from textual.app import App, ComposeResult
from zolite.tui.widgets.table import Table


class Tabled(App[None]):
    CSS = "Table { height: 1fr; }"  # else its size would change, and all be drawn again

    def compose(self) -> ComposeResult:
        yield Table()


def test_rows_drawn_before_columns_are_measured() -> None:
    """A row that is drawn as soon as it is there, as on a busy machine, is whole in the end."""
    app = Tabled()

    async def run() -> None:
        async with app.run_test() as pilot:
            table = app.query_one(Table)
            table.add_column("a")
            await pilot.pause()
            table.add_row("a long way down")
            assert "long" not in table.render_line(1).text
            while table._require_update_dimensions:
                await pilot.pause()
            assert "a long way down" in table.render_line(1).text

    asyncio.run(run())
