"""A planning as people read it: the plans, the best one's ledger, what was rejected, and what backpropagation needs."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zolite.common.text import human_bytes, human_seconds
from zolite.planner.memory import Ledger
from zolite.planner.plan import RULE, Plan, Planning
from zolite.planner.qlora import needed

SHOWN = 12


def render(planning: Planning, verbose: bool = False) -> Group:
    """`verbose`: with the rule that the plans are sorted by."""
    best = planning.plans[0]
    parts = [heading(planning), plans(planning), ledger(best), *remarks(planning, verbose)]
    return Group(*(piece for part in parts for piece in (part, Text())))


def heading(planning: Planning) -> Text:
    h = planning.hardware
    used = f", {human_bytes(h.others_bytes)} of it in use by others" if h.others_bytes else ""
    taken = ", a common card of that memory, as there is none here" if h.origin == "typical" else ""
    rates = "published" if taken else h.origin
    return Text(f"{h.name}{taken}: {human_bytes(h.total_bytes)}{used}; rates {rates}")


COLUMNS = {"weights": 7, "at once": 7, "peak": 8, "a step": 6, "in all": 6, "QLoRA": 8}  # and their widths


def plans(planning: Planning) -> Table:
    """What is alike in all of them is in the title, so that the rest has room in 80 columns."""
    r = planning.plans[0].recipe
    title = (
        f"{r.train.steps:,} steps of {r.train.batch} rows, at most {r.data.context} tokens each; "
        f"{r.method.name}, {r.adapter.space}, rank {r.adapter.rank}"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for name, width in COLUMNS.items():
        table.add_column(name, no_wrap=True, min_width=width)
    for each in planning.plans[:SHOWN]:
        table.add_row(
            each.spec.name.rpartition("/")[2], each.recipe.model.quant, _at_once(each), human_bytes(each.peak_bytes),
            _step(each), human_seconds(each.total_seconds), _backprop(planning, each),
        )  # fmt: skip
    return table


def _at_once(each: Plan) -> str:
    """Rows and points of a forward."""
    return f"{each.recipe.train.microbatch} × {each.recipe.train.copies}"


def ledger(best: Plan) -> Table:
    lines: Ledger = best.ledger
    title = f"{best.spec.name} in {best.recipe.model.quant}: where {human_bytes(best.peak_bytes)} go"
    table = Table("what", "size", "why", title=title, title_justify="left", box=None, pad_edge=False)
    for line in lines:
        if line.bytes:
            table.add_row(line.what, human_bytes(line.bytes), line.why)
    table.add_row("peak", human_bytes(best.peak_bytes), "")
    return table


def remarks(planning: Planning, verbose: bool) -> Iterator[RenderableType]:
    b, c = planning.backprop, planning.correction
    hidden = len(planning.plans) - SHOWN
    yield Text("at once: rows × points of a forward; QLoRA: what backpropagation would need, no: more than there is")
    order = RULE if verbose else "best first: large models and fast steps (--verbose: by what rule)"
    yield Text(order + (f"; {hidden} more plans with --json" if hidden > 0 else ""))
    if planning.rejected:
        r = planning.rejected[0]
        many = f"{len(planning.rejected)} rejected, such as"
        yield Text(f"{many} {r.spec.name} in {r.recipe.model.quant}: {r.reason}")
    advice = "backpropagation" if b.recommended else "for comparison"
    yield Text(
        f"{advice}: QLoRA with checkpointing on {b.model}, a row at a time: {human_bytes(b.peak_bytes)}; {b.why}"
    )
    if c.runs:
        yield Text(
            f"error so far on this machine, {c.runs} runs: memory {c.bytes - 1:+.1%}, time {c.seconds - 1:+.0%}, "
            f"corrected above; largest departure {c.spread:.0%}"
        )
    elif planning.hardware.origin not in ("measured", "typical"):
        yield Text(f"rates are {planning.hardware.origin}: `zolite profile` measures this machine's in half a minute")


def _step(each: Plan) -> str:
    s = each.seconds_per_step
    return f"{1e3 * s:.0f} ms" if s < 1 else f"{s:.1f} s"


def _backprop(planning: Planning, each: Plan) -> str:
    need = needed(planning.hardware, each.spec, each.recipe.adapter.rank, each.recipe.data.context)
    return human_bytes(need) if need <= planning.hardware.total_bytes else "no"
