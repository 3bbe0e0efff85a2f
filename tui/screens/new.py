"""New run: a model, rows, a plan; then it starts."""

import shlex
from collections.abc import Iterable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Button, DataTable, DirectoryTree, Footer, Input, Static, TabbedContent, TabPane
from textual.worker import get_current_worker

from zolite.common.errors import ZoliteError
from zolite.common.text import human_bytes, human_seconds
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data.lengths import Rows as Lengths
from zolite.data.readers.registry import stem_of, unsupported
from zolite.data.split_names import NAMES
from zolite.planner.backprop import needed
from zolite.planner.calibration import Correction, so_far
from zolite.planner.hardware import Hardware
from zolite.planner.model_spec import ModelSpec
from zolite.planner.plan import Plan, Planning, Rejected, layouts

from .. import planning
from ..paint import cell
from ..planning import Offer, Priced
from ..widgets.form import Form
from ..widgets.models import Models
from ..widgets.report import described, shapes
from ..widgets.slider import Slider
from ..widgets.stack import Stack
from ..widgets.table import Table
from .columns import ColumnPicker
from .dialogs import Confirm

if TYPE_CHECKING:
    from ..context import Context

GIB = 2**30
DEMO_TEMPLATE = "{text}\n\nTopic: {label}"
WAIT = 0.4  # seconds after the last key before plans are made anew
# Settings that all plans share; weights are what they differ in.
SHARED = {
    "adapter.space": "space",
    "adapter.rank": "rank",
    "method.name": "method",
    "train.batch": "batch",
    "train.steps": "steps",
}
# Columns of the plans where the table is so wide.
SHORT = ("model", "weights", "at once", "memory", "a step", "in all")
PLAN_COLUMNS = (
    (
        126,
        (
            "model",
            "weights",
            "space",
            "rank",
            "method",
            "batch",
            "at once",
            "context",
            "memory",
            "a step",
            "in all",
            "QLoRA",
        ),
    ),
    (86, (*SHORT, "QLoRA")),
    (0, SHORT),
)
TABLES = {"model": "#model-list", "data": "#tree", "plan": "#plans"}


class Rows(DirectoryTree):
    """Folders, and files that can be rows."""

    ICON_NODE, ICON_NODE_EXPANDED, ICON_FILE = "▸ ", "▾ ", "· "

    def filter_paths(self, paths: Iterable[Path]) -> Iterable[Path]:
        shown = (path for path in paths if not path.name.startswith("."))
        return [path for path in shown if not unsupported(path) or path.is_dir()]


class NewScreen(Screen[None]):
    """Three steps to a run. Model: take one that fits, or leave it to zolite. Data: a folder with train and dev, or one
    file of rows; you see what the model will read, and what is wrong with which line; where the columns are not known,
    you say which is which (c). Plan: what fits this machine, best first, with where the memory goes (d: line by line).
    Every value can be changed and the bar follows; "auto" leaves it to zolite. Start begins the run in a process of its
    own.
    """

    TITLE = "New run"
    DEFAULT_CSS = """
    NewScreen {
        TabbedContent { height: 1fr; }
        TabPane { padding: 0 1; }
        ContentSwitcher { height: 1fr; }
        #data-row { height: 1fr; }
        #tree { width: 30; height: 1fr; background: $background; border-right: solid $panel; padding: 0; }
        #report-side { width: 1fr; padding: 0 1; }
        #report { height: auto; width: 1fr; }
        #data-fields { height: auto; }
        #data-fields Button { min-width: 8; }
        #path { width: 1fr; }
        #template-row { height: 1; }
        #template-row Static { width: 10; color: $text-muted; }
        #template { width: 1fr; }
        #plan-side { height: auto; }
        #plans { height: auto; max-height: 6; }
        #why { height: auto; color: $text-warning; }
        #verdict, #advice { height: auto; }
        #advice { color: $text-muted; }
        #lines { display: none; text-wrap: nowrap; text-overflow: ellipsis; color: $text-muted; margin-top: 1; }
        #form-side { height: auto; }
        #start-row { height: 1; }
        #start { width: 20; margin-right: 2; }
        #command { width: 1fr; height: auto; color: $text-muted; margin-top: 1; }
    }
    NewScreen.-wide {
        #tree { width: 44; }
        #plan-pane { layout: horizontal; }
        #plan-side { width: 2fr; height: 1fr; padding-right: 2; }
        #form-side { width: 1fr; min-width: 38; height: 1fr; border-left: solid $panel; padding: 0 1; }
        #form { margin-top: 1; }
        #form #main { grid-size: 1; }
    }
    NewScreen.-high {
        #plans { max-height: 14; }
        #template-row, #ledger, #verdict { margin-top: 1; }
    }
    NewScreen.-narrow #command { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", id="leave-new", show=False),
        Binding("1", "tab('model')", "Model", id="tab-model", show=False),
        Binding("2", "tab('data')", "Data", id="tab-data", show=False),
        Binding("3", "tab('plan')", "Plan", id="tab-plan", show=False),
        Binding("f5", "start", "Start", id="start"),
        Binding("c", "columns", "Columns", id="columns"),
        Binding("d", "details", "Details", id="plan-details"),
        Binding("backspace", "up", "Folder above", id="folder-up", show=False),
    ]
    app: "Context"

    def __init__(self, where: Path | None = None) -> None:
        super().__init__()
        self.where = where or Path.cwd()  # the folder that data is looked for in
        self.machine: Hardware | None = None
        self.correction = Correction()
        self.model = ""
        self.path = ""
        self.columns = ""  # of the rows, as --columns spells it
        self.report: dict[str, Any] | None = None
        self.planned: Planning | None = None
        self.rejected: tuple[Rejected, ...] = ()
        self.choice: Plan | Rejected | None = None
        self.cost: Priced | None = None
        self.waiting: Timer | None = None

    def compose(self) -> ComposeResult:
        with TabbedContent(id="tabs"):
            with TabPane("1 Model", id="model"):
                yield Models(id="models")
            with TabPane("2 Data", id="data"), Vertical():
                with Horizontal(id="data-fields"):
                    yield Input(placeholder="rows: a file, a folder, a pattern or hf:NAME", id="path", compact=True)
                    yield Button("Demo rows", id="demo-rows", compact=True)
                    yield Button("Plans →", id="to-plan", compact=True, variant="primary", disabled=True)
                with Horizontal(id="template-row"):
                    yield Static("prompt")
                    yield Input(spelled_lines(recipes.DataPart.template), id="template", compact=True)
                with Horizontal(id="data-row"):
                    yield Rows(self.where, id="tree")
                    with VerticalScroll(id="report-side"):
                        yield Static(DATA_HELP, id="report")
            with TabPane("3 Plan", id="plan"), VerticalScroll(id="plan-pane", can_focus=False):
                with Vertical(id="plan-side"):
                    yield Slider("budget", GIB // 2, 8 * GIB, GIB // 2, id="budget")
                    yield Table(id="plans", cursor_type="row")
                    yield Static("", id="why", markup=False)
                    yield Stack(id="ledger")
                    yield Static("", id="verdict")
                    yield Static("", id="advice", markup=False)
                    yield Static("", id="lines", markup=False)
                with VerticalScroll(id="form-side", can_focus=False):
                    with Horizontal(id="start-row"):
                        yield Button("Start  F5", id="start", variant="success", compact=True)
                        yield Static("auto: chosen", classes="dim", markup=False)
                    yield Form(id="form")
                    yield Static("", id="command", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#model-list").focus()
        self.query_one("#template-row").display = False
        self.query_one("#why").display = False
        self.check_machine()

    @property
    def plans(self) -> "DataTable[Any]":
        return self.query_one("#plans", DataTable)

    @property
    def form(self) -> Form:
        return self.query_one(Form)

    # --- moving about ----------------------------------------------------------------------------------------------

    def action_tab(self, name: str) -> None:
        self.query_one(TabbedContent).active = name
        self.query_one(TABLES[name]).focus()

    async def action_leave(self) -> None:
        """Out of a field first, then out of the screen."""
        if isinstance(self.focused, Input):
            self.query_one(TABLES[self.query_one(TabbedContent).active]).focus()
        else:
            await self.app.action_back()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Details are of the plan, and columns of rows that were not recognised."""
        tab = self.query_one(TabbedContent).active
        if action == "columns":
            return tab == "data" and bool(self.report and self.report.get("examples"))
        return action != "details" or tab == "plan"

    def action_details(self) -> None:
        """Every line of the memory plan, with its reason, or the bar alone."""
        lines = self.query_one("#lines")
        lines.display = not lines.display

    def action_up(self) -> None:
        tree = self.query_one(Rows)
        tree.path = Path(tree.path).resolve().parent

    @on(TabbedContent.TabActivated)
    def arrived(self, event: TabbedContent.TabActivated) -> None:
        self.refresh_bindings()
        if event.pane.id == "plan":
            self.plan()

    # --- machine and model -----------------------------------------------------------------------------------------

    @work(thread=True, group="machine")
    def check_machine(self) -> None:
        machine = self.app.machine()
        offers, correction = planning.offers(machine), so_far(machine)
        self.app.call_from_thread(self.machine_checked, machine, offers, correction)

    def machine_checked(self, machine: Hardware, offers: list[Offer], correction: Correction) -> None:
        self.machine, self.correction = machine, correction
        self.query_one(Models).show(offers)
        self.query_one("#budget", Slider).range(GIB // 2, machine.total_bytes)

    @on(Models.Chosen)
    def model_chosen(self, event: Models.Chosen) -> None:
        self.model = event.name
        self.choice = None
        self.action_tab("data")
        if self.path:
            self.check()

    # --- data ------------------------------------------------------------------------------------------------------

    @on(DirectoryTree.FileSelected)
    def file_selected(self, event: DirectoryTree.FileSelected) -> None:
        # train.jsonl stands for its folder: dev and test lie beside it
        self.take(event.path.parent if stem_of(event.path).lower() in NAMES else event.path)

    @on(Input.Submitted, "#path")
    def path_typed(self, event: Input.Submitted) -> None:
        self.take(event.value.strip())

    @on(Button.Pressed, "#demo-rows")
    def demo_rows(self) -> None:
        self.query_one("#template", Input).value = spelled_lines(DEMO_TEMPLATE)
        self.take(Path(str(resources.files("zolite"))) / "demo" / "data")

    @on(Input.Submitted, "#template")
    def template_typed(self) -> None:
        if self.path:
            self.check()

    @on(Button.Pressed, "#to-plan")
    def to_plan(self) -> None:
        self.action_tab("plan")

    def take(self, path: Path | str) -> None:
        self.path, self.columns = str(path), ""
        self.query_one("#path", Input).value = self.path
        self.check()

    @property
    def template(self) -> str:
        return self.query_one("#template", Input).value.replace("\\n", "\n")

    def check(self) -> None:
        self.query_one("#report", Static).update("◐ reading …")
        self.query_one("#template-row").display = True
        self.examine(self.path, self.template, self.columns, self.model)

    @work(thread=True, exclusive=True, group="data")
    def examine(self, path: str, template: str, columns: str, model: str) -> None:
        """By letters first, which takes a moment, then by the model's tokenizer."""
        worker = get_current_worker()
        for arguments in ([], ["--model", model]) if model else ([],):
            named = ["--columns", columns] if columns else []
            longest = str(planning.LONGEST)  # the context is chosen by what is found
            asked = ["data", "check", path, "--template", template, "--context", longest, *named, *arguments]
            try:
                report = self.app.client.ask(*asked, gone=lambda: worker.is_cancelled)
            except ZoliteError as error:
                if not arguments:
                    report = {"problems": error.message.splitlines(), "hint": error.hint, "tokens": 0}
                else:  # such as no network: letters will do for now
                    self.app.call_from_thread(partial(self.notify, error.message, severity="warning", markup=False))
                    return
            if worker.is_cancelled:
                return
            self.app.call_from_thread(self.examined, report)
            if report["problems"]:
                return

    def examined(self, report: dict[str, Any]) -> None:
        self.report = report
        sound = not report["problems"]
        self.query_one("#report", Static).update(described(report, 0))
        self.query_one("#to-plan", Button).disabled = not sound
        self.query_one("#template-row").display = not sound or bool(report["labels"])
        self.refresh_bindings()
        if report.get("examples"):
            self.action_columns()
        if sound:
            self.form.put({"data.context": str(planning.context_for(report))})
            if self.query_one(TabbedContent).active == "plan":
                self.plan()

    @work
    async def action_columns(self) -> None:
        """Where the file's columns are not recognised: which of them are which."""
        if self.report is None:
            return
        asked = ColumnPicker(self.report["examples"], self.report["guess"])
        if (columns := await self.app.push_screen_wait(asked)) is not None:
            self.columns = columns
            self.check()

    # --- plan ------------------------------------------------------------------------------------------------------

    @on(Slider.Changed)
    @on(Form.Changed)
    def edited(self, event: Slider.Changed | Form.Changed) -> None:
        """The bar at once; the table when the keys rest."""
        self.reprice()
        if isinstance(event, Slider.Changed) or event.paths & {*SHARED, "data.context"}:
            if self.waiting is not None:
                self.waiting.stop()
            self.waiting = self.set_timer(WAIT, self.plan)

    @property
    def hardware(self) -> Hardware | None:
        """This machine, with the budget of the slider."""
        return self.machine and planning.within(self.machine, self.query_one("#budget", Slider).value)

    def rows(self) -> Lengths:
        context = self.form.value("data.context")
        return planning.rows_of(self.report, int(context) if context.isdigit() else 0)

    def plan(self) -> None:
        if self.hardware is not None:
            asked = {flag: asked_of(self.form.value(path)) for path, flag in SHARED.items()}
            self.make_plans(self.hardware, self.model, self.rows(), asked, self.correction)

    @work(thread=True, exclusive=True, group="plan")
    def make_plans(self, *asked: Any) -> None:
        made = planning.proposed(*asked)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self.show_plans, *made)

    def show_plans(self, planned: Planning | None, rejected: tuple[Rejected, ...], why: str) -> None:
        self.planned, self.rejected = planned, rejected
        self.query_one("#why", Static).update(f"✗ {why}")
        self.query_one("#why").display = bool(why)
        self.list_plans()
        if planned:
            known = self.choice.spec.name if self.choice else ""
            if not isinstance(self.choice, Plan) or known not in [each.spec.name for each in planned.plans]:
                self.pick(planned.plans[0])
        self.reprice()

    def on_resize(self) -> None:
        self.call_after_refresh(self.list_plans)

    def list_plans(self) -> None:
        """The table, with as many columns as there is room for."""
        table, planned = self.plans, self.planned
        columns = next(columns for width, columns in PLAN_COLUMNS if table.size.width >= width)
        row = table.cursor_row
        if [str(column.label) for column in table.ordered_columns] == list(columns):
            table.clear()
        else:
            table.clear(columns=True)
            table.add_columns(*columns)
        if planned is None:
            return
        for i, each in enumerate(planned.plans):
            cells = self.plan_cells(each, planned.hardware)
            table.add_row(*(cells[name] for name in columns), key=str(i))
        table.move_cursor(row=min(row, max(0, table.row_count - 1)))

    def plan_cells(self, each: Plan, hardware: Hardware) -> dict[str, Any]:
        r, t, step = each.recipe, each.recipe.train, each.seconds_per_step
        need = needed(hardware, each.spec, r.adapter.rank, r.data.context)
        symbol, colour = ("✓", "success") if need <= hardware.total_bytes else ("✗", "text-muted")
        return {
            "model": each.spec.name.rpartition("/")[2].removeprefix("builtin:"),
            "weights": r.model.quant,
            "space": r.adapter.space,
            "rank": str(r.adapter.rank),
            "method": r.method.name,
            "batch": str(t.batch),
            "at once": f"{t.microbatch} rows" + (", 1 copy" if t.copies == 1 else ""),
            "context": str(r.data.context),
            "memory": human_bytes(each.own_bytes),
            "a step": step_time(step),
            "in all": human_seconds(each.total_seconds),
            "QLoRA": cell(self.app, (f"{symbol} {human_bytes(need)}", colour)),
        }

    @on(DataTable.RowSelected, "#plans")
    @on(DataTable.RowHighlighted, "#plans")
    def plan_taken(self, event: DataTable.RowSelected | DataTable.RowHighlighted) -> None:
        if self.planned and event.row_key is not None and self.plans.has_focus:
            self.pick(self.planned.plans[int(str(event.row_key.value))])
            self.reprice()

    def pick(self, choice: Plan) -> None:
        """A plan's values into the fields."""
        self.choice = choice
        r = choice.recipe
        halved = "" if r.train.microbatch == r.train.batch else str(r.train.microbatch)
        copies = "1" if r.train.copies == 1 else ""
        self.form.put({"model.quant": r.model.quant, "train.microbatch": halved, "train.copies": copies})

    def reprice(self) -> None:
        """What the fields as they are would take. Milliseconds: it runs at every key."""
        spec, hardware = self.spec(), self.hardware
        recipe, wrong = self.recipe()
        if spec is None or hardware is None:
            return
        if wrong:
            self.query_one("#verdict", Static).update(Content.assemble((f"✗ {wrong}", "$text-error")))
            self.cost = None
            return
        self.cost = cost = planning.priced(hardware, spec, recipe, self.rows(), self.correction)
        self.query_one("#ledger", Stack).show(planning.parts(cost.ledger), cost.budget_bytes)
        self.query_one("#verdict", Static).update(verdict(cost, self.smaller(cost)))
        self.query_one("#advice", Static).update(planning.advice(hardware, cost))
        self.query_one("#lines", Static).update(ledger_lines(cost))
        self.query_one("#command", Static).update("zolite " + " ".join(map(quoted, self.command())))

    def smaller(self, cost: Priced) -> str:
        """The largest microbatch that would fit, where this does not."""
        spec, hardware = self.spec(), self.hardware
        if cost.fits or spec is None or hardware is None:
            return ""
        rows = self.rows()
        for layout in layouts(recipes.resolve(cost.recipe, rows.labels)):
            if planning.priced(hardware, spec, layout, rows, self.correction).fits:
                return f"a microbatch of {layout.train.microbatch} fits" + (
                    " with 1 perturbed copy" if layout.train.copies == 1 else ""
                )
        return "no microbatch is small enough: take other weights, a shorter context or a smaller model"

    def spec(self) -> ModelSpec | None:
        if self.choice is not None:
            return self.choice.spec
        return self.rejected[0].spec if self.rejected else None

    def recipe(self) -> tuple[Recipe, str]:
        spec = self.spec()
        given = {"data.template": self.template, "data.columns": self.columns, **self.form.values()}
        made, wrong = planning.changed(Recipe(), given)
        name = self.model or (spec.name if spec else "")
        made, _ = planning.changed(made, {"model.name": name, "data.path": self.path})
        return made, wrong

    def command(self) -> list[str]:
        return planning.command(self.recipe()[0], self.form.value("name"))

    @on(Button.Pressed, "#start")
    @work
    async def action_start(self) -> None:
        """Starts what the fields say; asks where it would not fit."""
        problem, tab = self.missing()
        if problem:
            self.notify(problem, severity="warning", markup=False)
            self.action_tab(tab)
            return
        assert self.cost is not None
        if not self.cost.fits:
            over = f"It would take {human_bytes(self.cost.own_bytes)}; {human_bytes(self.cost.free_bytes)} are free."
            if not await self.app.push_screen_wait(Confirm("This does not fit. Start all the same?", over)):
                return
        self.app.begin(*self.command(), over=self)

    def missing(self) -> tuple[str, str]:
        """(what is not there yet, the tab where it is put right)."""
        if not self.path or self.report is None:
            return "choose the rows to learn from first", "data"
        if self.report["problems"]:
            return "the rows have problems", "data"
        if self.cost is None:
            _, wrong = self.recipe()
            return wrong or "plans are still being made", "plan"
        return self.cost.problem, "plan"


DATA_HELP = Content("\n").join(
    [
        Content("Choose a file or a folder on the left, type a path above, or take the demo's rows.\n"),
        Content("Rows have these columns:"),
        *shapes(),
        Content(
            "\nA folder has train, and if you like dev and test; without dev, a tenth of train is held out as dev.\n"
            "Backspace goes to the folder above."
        ),
    ]
)


def verdict(cost: Priced, smaller: str) -> Content:
    """Does it fit, and how long will it take."""
    own, free = human_bytes(cost.own_bytes), human_bytes(cost.free_bytes)
    if cost.problem:
        return Content.assemble((f"✗ {cost.problem}", "$text-error"))
    if not cost.fits:
        over = human_bytes(cost.peak_bytes - cost.budget_bytes)
        return Content.assemble((f"✗ {over} too much: ", "$text-error bold"), f"{own} of {free} free; {smaller}")
    steps, total = recipes.resolve(cost.recipe).train.steps, human_seconds(cost.total_seconds)
    fits = ("✓ fits: ", "$text-success bold")
    return Content.assemble(
        fits, f"{own} of {free} free · {step_time(cost.seconds_per_step)} a step · {steps:,} steps in {total}"
    )


def step_time(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def ledger_lines(cost: Priced) -> str:
    lines = [line for line in cost.ledger if line.bytes]
    width = max((len(line.what) for line in lines), default=0)
    return "\n".join(f"{line.what:<{width}} {human_bytes(line.bytes):>9}  {line.why}" for line in lines)


def asked_of(value: str) -> Any:
    """A field's text for the planner: numbers as numbers, nothing as None."""
    return int(value) if value.isdigit() else value or None


def spelled_lines(text: str) -> str:
    return text.replace("\n", "\\n")


def quoted(argument: str) -> str:
    return shlex.quote(spelled_lines(argument))
