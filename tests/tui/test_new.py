"""Claims about New run: it shows what fits and what is wrong, follows every edit, and starts what it shows."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Collapsible, DataTable, Input, Select, Static, TabbedContent
from zolite.tui import planning
from zolite.tui.planning import Offer
from zolite.tui.screens.columns import ColumnPicker, Part
from zolite.tui.screens.dialogs import Confirm
from zolite.tui.screens.new import NewScreen
from zolite.tui.widgets.form import Field, Form, ident
from zolite.tui.widgets.slider import Slider

from zolite.common.errors import ZoliteError
from zolite.config import recipe as recipes
from zolite.data.preview import report
from zolite.planner import hardware as machine

from .conftest import GIB, LAYOUTS, SIZES, FakeClient, drive, settled, shown, until

Make = Callable[..., Any]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: FakeClient) -> Path:
    """A folder of rows in the folder that the app is opened in; what other processes would say of rows is true."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "rows"
    folder.mkdir()
    labels = ("returns", "billing", "delivery")
    lines = [{"text": f"message {i} about a parcel {'again ' * (i % 9)}", "label": labels[i % 3]} for i in range(60)]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    client.answers["data"] = told
    return folder


def told(asked: tuple[str, ...]) -> dict[str, Any]:
    """What `zolite data check` prints."""
    columns = asked[asked.index("--columns") + 1] if "--columns" in asked else ""
    return asdict(report(Path(asked[2]), asked[4], columns=columns))


@pytest.fixture(scope="module")
def offered() -> list[Offer]:
    return planning.offers(replace(machine.published("rtx-3060-12gb"), others_bytes=GIB))


@pytest.fixture
def new(app: Make, rows: Path, offered: list[Offer], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """new() is the app with this screen open; the card's models are priced once for all tests."""
    monkeypatch.setattr(planning, "offers", lambda hardware: offered)
    return lambda: app(lambda: NewScreen(rows.parent))


def screen_of(pilot: Pilot[None]) -> NewScreen:
    found = next(each for each in pilot.app.screen_stack if isinstance(each, NewScreen))
    assert isinstance(found, NewScreen)
    return found


async def to_plans(pilot: Pilot[None], model: str = "") -> NewScreen:
    """Model and rows chosen, plans made."""
    screen = screen_of(pilot)
    if model:
        screen.query_one("#model-text", Input).value = model
        screen.query_one("#model-text").focus()
    await settled(pilot)
    await pilot.press("enter")
    await settled(pilot)
    screen.query_one("#path", Input).value = "rows"
    screen.query_one("#path").focus()
    await pilot.press("enter")
    await settled(pilot)
    await pilot.click("#to-plan")
    await settled(pilot)
    return screen


def text_of(screen: NewScreen, name: str) -> str:
    return str(screen.query_one(name, Static).render())


@pytest.mark.parametrize("size", LAYOUTS)
def test_models(new: Make, size: tuple[int, int]) -> None:
    """Models are in the list with what they need here, those that fit first; what is typed filters or is one."""

    async def script(pilot: Pilot[None]) -> None:
        text = shown(pilot.app)
        assert "let zolite choose" in text and "✓ fits nf4" in text and "Qwen3-8B" in text
        table = screen_of(pilot).query_one("#model-list", DataTable)
        fits = [str(table.get_row_at(i)[3]).startswith("✓") for i in range(1, table.row_count)]
        assert fits == sorted(fits, reverse=True) and not all(fits)
        screen_of(pilot).query_one("#model-text", Input).value = "smol"
        await settled(pilot)
        assert "Qwen" not in shown(pilot.app) and "● here" in shown(pilot.app)
        screen_of(pilot).query_one("#model-text", Input).value = "me/my-model"
        screen_of(pilot).query_one("#model-text").focus()
        await pilot.press("enter")
        await settled(pilot)
        assert screen_of(pilot).model == "me/my-model"

    drive(new(), size, script)


@pytest.mark.parametrize("size", LAYOUTS)
def test_rows_as_the_model_reads_them(new: Make, rows: Path, size: tuple[int, int]) -> None:
    """Kind, counts, and the first rows with what is trained between brackets."""

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        screen_of(pilot).take(rows)
        await settled(pilot)
        text = shown(pilot.app)
        assert "rows with labels" in text and "train 54" in text and "⟦ returns⟧" in text

    drive(new(), size, script)


@pytest.mark.parametrize("size", LAYOUTS)
def test_bad_rows(new: Make, rows: Path, size: tuple[int, int]) -> None:
    """Problems are shown with their lines and the hint, and there are no plans to go on to."""
    (rows / "train.jsonl").write_text('{"text": "a", "label": "x"}\nnonsense\n{"text": "b"}\n')

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        screen_of(pilot).take(rows)
        await settled(pilot)
        text = " ".join(shown(pilot.app).split())
        assert "✗ 2 problems" in text and "line 2" in text and "line 3" in text and "→" in text
        assert screen_of(pilot).query_one("#to-plan", Button).disabled
        await pilot.press("f5")
        await settled(pilot)
        assert screen_of(pilot).query_one(TabbedContent).active == "data"

    drive(new(), (size), script)


ODD = "Category (final),Body\n" + "".join(
    f"{('Billing', 'Returns')[i % 2]},message {i} about a parcel that never came\n" for i in range(20)
)


@pytest.mark.parametrize("size", SIZES[:2])
def test_columns_are_picked(new: Make, rows: Path, size: tuple[int, int]) -> None:
    """Where no shape fits, a window has the file's columns; what is chosen is what the run is started with."""
    file = rows.parent / "odd.csv"
    file.write_text(ODD)

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        screen_of(pilot).take(file)
        await settled(pilot)
        picker = pilot.app.screen
        assert isinstance(picker, ColumnPicker) and "Category (final): Billing" in shown(pilot.app)
        assert {part.part: part.column for part in picker.query("#parts Part").results(Part)} == {
            "text": "Body", "label": "Category (final)",
        }  # fmt: skip
        await pilot.press("escape")
        await settled(pilot)
        assert screen_of(pilot).query_one("#to-plan", Button).disabled
        assert "press c to say which column is which" in " ".join(shown(pilot.app).split())
        screen_of(pilot).query_one("#tree").focus()
        await pilot.press("c")
        await settled(pilot)
        await pilot.click("#ok")
        await settled(pilot)
        screen = screen_of(pilot)
        assert screen.columns == "text=Body,label=Category (final)"
        assert screen.report is not None and screen.report["labels"] == {"Billing": 9, "Returns": 9}
        assert f"data.columns={screen.columns}" in screen.command()

    drive(new(), size, script)


def test_another_shape_has_other_parts(new: Make, rows: Path) -> None:
    """The parts follow the shape, and an optional one may be left out."""
    file = rows.parent / "odd.csv"
    file.write_text("Frage,Antwort\nwhat is it that you want,nothing at all\nwho goes there,nobody you would know\n")

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        screen_of(pilot).take(file)
        await settled(pilot)
        picker = pilot.app.screen
        assert isinstance(picker, ColumnPicker)
        picker.query(Select).first().value = "alpaca"
        await settled(pilot)
        parts = list(picker.query("#parts Part").results(Part))
        assert [part.part for part in parts] == ["instruction", "output", "input", "system"]
        parts[0].query_one(Select).value, parts[1].query_one(Select).value = "Frage", "Antwort"
        await settled(pilot)
        await pilot.click("#ok")
        await settled(pilot)
        assert screen_of(pilot).columns == "instruction=Frage,output=Antwort"
        report = screen_of(pilot).report
        assert report is not None and report["kind"] == "alpaca"

    drive(new(), SIZES[1], script)


def test_by_the_models_tokenizer(new: Make, rows: Path, client: FakeClient) -> None:
    """Letters come first; then the model's tokenizer counts, and where it cannot, the letters stay."""

    async def script(pilot: Pilot[None]) -> None:
        await to_plans(pilot, "Qwen/Qwen3-0.6B")
        assert [asked[-2:] for asked in client.asked][-1] == ("--model", "Qwen/Qwen3-0.6B")
        client.answers["data"] = lambda asked: (
            ZoliteError("no network", "check it") if "--model" in asked else told(asked)
        )
        screen_of(pilot).check()
        await settled(pilot)
        found = screen_of(pilot).report
        assert found is not None and found["counted"] == "letters"

    drive(new(), (120, 40), script)


@pytest.mark.parametrize("size", LAYOUTS)
def test_plans(new: Make, size: tuple[int, int]) -> None:
    """Plans are ranked with the first in the fields, its bar, its verdict and what backpropagation would need."""

    async def script(pilot: Pilot[None]) -> None:
        screen = await to_plans(pilot)
        text = shown(pilot.app)
        assert "✓ fits" in text and "weights" in text and "Backpropagation (QLoRA) would need" in text
        assert screen.planned is not None and screen.choice == screen.planned.plans[0]
        assert "auto" in text and "F5" in text

    drive(new(), size, script)


def test_details(new: Make) -> None:
    """The memory plan's lines with their reasons are behind a key, on the tab of the plan alone."""

    async def script(pilot: Pilot[None]) -> None:
        assert "Details" not in shown(pilot.app)
        screen = await to_plans(pilot, "Qwen/Qwen3-0.6B")
        screen.query_one("#plans").focus()
        assert not screen.query_one("#lines").display
        await pilot.press("d")
        await pilot.pause()
        assert screen.query_one("#lines").display and "linear layers" in text_of(screen, "#lines")

    drive(new(), (120, 40), script)


def test_the_space_follows_the_rows(new: Make, rows: Path) -> None:
    """Left on auto, plans and the price are of the space that the rows get; chosen, all plans are of that."""

    async def script(pilot: Pilot[None]) -> None:
        screen = await to_plans(pilot, "Qwen/Qwen3-0.6B")

        async def spaces() -> set[str]:
            await settled(pilot)
            assert screen.planned is not None
            return {each.recipe.adapter.space for each in screen.planned.plans}

        assert screen.form.value("adapter.space") == "" and await spaces() == {"lora-b"}
        screen.report = {**(screen.report or {}), "labels": []}
        screen.plan()
        assert await spaces() == {"lora"} and screen.form.value("adapter.space") == ""
        screen.form.put({"adapter.space": "lora-core"})
        screen.plan()
        assert await spaces() == {"lora-core"}

    drive(new(), (120, 40), script)


def test_every_edit_is_priced_at_once(new: Make) -> None:
    """A value that is typed changes the bar before anything else happens."""

    async def script(pilot: Pilot[None]) -> None:
        screen = await to_plans(pilot, "Qwen/Qwen3-0.6B")
        assert screen.cost is not None
        before = screen.cost.peak_bytes
        screen.query_one(f"#{ident('train.batch')}", Input).value = "64"
        screen.reprice()
        assert screen.cost.peak_bytes > before
        screen.query_one(f"#{ident('train.batch')}", Input).value = "no"
        await settled(pilot)
        assert screen.cost is None and "train.batch" in text_of(screen, "#verdict")

    drive(new(), (120, 40), script)


def test_what_does_not_fit(new: Make, client: FakeClient) -> None:
    """Too much is said in GiB with the microbatch that would do; starting it takes a second yes."""

    async def script(pilot: Pilot[None]) -> None:
        screen = await to_plans(pilot, "Qwen/Qwen3-4B")
        screen.query_one(Form).put({"train.batch": "4096", "train.microbatch": "", "data.context": "2048"})
        screen.report = {**(screen.report or {}), "tokens": 2048, "positions": 1}
        screen.reprice()
        verdict = text_of(screen, "#verdict")
        assert "too much" in verdict and "a microbatch of" in verdict and "fits" in verdict
        await pilot.press("f5")
        await settled(pilot)
        assert isinstance(pilot.app.screen, Confirm)
        await pilot.press("escape")
        await settled(pilot)
        assert not [asked for asked in client.asked if asked[0] == "train"]

    drive(new(), (120, 40), script)


def test_budget(new: Make) -> None:
    """A smaller budget, by keys or the mouse, leaves fewer plans, and none where nothing fits, with the reason."""

    async def script(pilot: Pilot[None]) -> None:
        screen = await to_plans(pilot)
        assert screen.planned is not None
        all_of_them = len(screen.planned.plans)
        slider = screen.query_one("#budget", Slider)
        slider.focus()
        await pilot.press(*["left"] * 10)
        assert slider.value == 7 * GIB
        await settled(pilot)
        assert 0 < len(screen.planned.plans) < all_of_them
        await pilot.press("home")
        await settled(pilot)
        assert screen.planned is None and "nothing fits" in text_of(screen, "#why")
        await pilot.click("#budget", offset=(slider.size.width - 25, 0))
        assert slider.value > 10 * GIB

    drive(new(), (120, 40), script)


@pytest.mark.parametrize("size", LAYOUTS)
def test_start(new: Make, client: FakeClient, made: Make, size: tuple[int, int]) -> None:
    """F5 starts what the fields say, as a command that the recipe understands, and opens its Run screen."""
    client.answers["train"] = made("first")

    async def script(pilot: Pilot[None]) -> None:
        screen = await to_plans(pilot, "Qwen/Qwen3-0.6B")
        screen.query_one(Form).put({"train.steps": "30", "name": "first-try"})
        await pilot.press("f5")
        await until(pilot, lambda: type(pilot.app.screen).__name__ == "RunScreen")
        command = client.asked[-1]
        assert command[:4] == ("train", "Qwen/Qwen3-0.6B", "--data", "rows")
        assert command[4:6] == ("--name", "first-try")
        given = dict(word.split("=", 1) for word in command[6:] if word != "--set")
        recipe = recipes.override(recipes.Recipe(), given)
        assert recipe.train.steps == 30 and recipe.train.lr is None and "train.lr" not in given
        assert type(pilot.app.screen).__name__ == "RunScreen"
        await pilot.press("escape")
        await settled(pilot)
        assert type(pilot.app.screen).__name__ == "HomeScreen"

    drive(new(), size, script)


def test_start_wants_rows_first(new: Make, client: FakeClient) -> None:
    """Started too early, it goes to what is missing and says it."""

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("f5")
        await settled(pilot)
        assert screen_of(pilot).query_one(TabbedContent).active == "data"
        assert not client.asked

    drive(new(), (80, 24), script)


def test_escape_leaves_a_field_first(new: Make) -> None:
    """Escape in a field goes to the list; the next one goes home."""

    async def script(pilot: Pilot[None]) -> None:
        screen_of(pilot).query_one("#model-text").focus()
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, NewScreen)
        await pilot.press("escape")
        await settled(pilot)
        assert not isinstance(pilot.app.screen, NewScreen)

    drive(new(), (80, 24), script)


def test_the_form_has_every_setting(new: Make) -> None:
    """The fields are the recipe's settings, all but those of the other tabs, and what they say is a recipe."""

    async def script(pilot: Pilot[None]) -> None:
        form = screen_of(pilot).query_one(Form)
        form.query_one(Collapsible).collapsed = False
        await settled(pilot)
        paths = {field.path for field in form.query(Field)} - {"name"}
        elsewhere = {"model.name", "data.path", "data.template", "data.columns", "train.epochs"}
        assert paths == recipes.SETTINGS.keys() - elsewhere

    drive(new(), (120, 40), script)


def test_demo_rows(new: Make) -> None:
    """The demo's rows are there at a click, with their own prompt."""

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await settled(pilot)
        await pilot.click("#demo-rows")
        await settled(pilot)
        assert "train 400" in shown(pilot.app) and "Topic:⟦" in shown(pilot.app)

    drive(new(), (120, 40), script)
