"""A planning as people read it: what fits and how long it takes; with `verbose`, every number behind that."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zolite.common.text import human_bytes, human_seconds
from zolite.planner.backprop import needed
from zolite.planner.memory import by_group
from zolite.planner.plan import RULE, Plan, Planning

SHOWN = 12


def render(planning: Planning, verbose: bool = False, explain: bool = False) -> Group:
    parts = [heading(planning), plans(planning, verbose), *(details(planning) if verbose else summary(planning))]
    parts += [Text(RULE)] if explain else []
    return Group(*(piece for part in parts for piece in (part, Text())))


def heading(planning: Planning) -> Text:
    h = planning.hardware
    held = f"{human_bytes(h.others_bytes)} in use by other programs, {human_bytes(h.free_bytes)} free"
    used = f", {held}" if h.others_bytes else ""
    taken = ", a common card of that memory, as there is none here" if h.origin == "typical" else ""
    rates = "published" if taken else h.origin
    return Text(f"{h.name}{taken}: {human_bytes(h.total_bytes)}{used}; speeds {rates}")


PLAIN = {"weights": 7, "memory": 8, "a step": 6, "in all": 6}  # columns beside the model, and their widths
VERBOSE = {"weights": 7, "at once": 7, "memory": 8, "a step": 6, "in all": 6, "QLoRA": 8}


def plans(planning: Planning, verbose: bool) -> Table:
    """What is alike in all of them is in the title, so that the rest has room in 80 columns."""
    r = planning.plans[0].recipe
    title = f"{r.train.steps:,} steps of {r.train.batch} rows, at most {r.data.context} tokens each"
    if planning.rows.train:
        title += f": {r.train.steps * r.train.batch / planning.rows.train:.3g} passes over {planning.rows.train:,} rows"
    title += f"; {r.method.name}, {r.adapter.space}, rank {r.adapter.rank}" if verbose else ""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    columns = VERBOSE if verbose else PLAIN
    for name, width in columns.items():
        table.add_column(name, no_wrap=True, min_width=width)
    for each in planning.plans[:SHOWN]:
        cells = _cells(planning, each)
        table.add_row(_short(each), *(cells[name] for name in columns))
    return table


def _cells(planning: Planning, each: Plan) -> dict[str, str]:
    t = each.recipe.train
    return {
        "weights": each.recipe.model.quant,
        "at once": f"{t.microbatch} × {t.copies}",
        "memory": human_bytes(each.own_bytes),
        "a step": _step(each),
        "in all": human_seconds(each.total_seconds),
        "QLoRA": _backprop(planning, each),
    }


def _short(each: Plan) -> str:
    return each.spec.name.rpartition("/")[2]


# --- what a person needs ---------------------------------------------------------------------------------------------


def summary(planning: Planning) -> Iterator[RenderableType]:
    best, has = planning.plans[0], human_bytes(planning.hardware.free_bytes)
    sizes = (item for item in by_group(best.ledger).items() if item[0] != "other programs")
    where = ", ".join(f"{group} {human_bytes(size)}" for group, size in sizes if size)
    label = "it fits, but takes long" if best.long else "best"
    model = (
        f"{label}: {_short(best)} with {best.recipe.model.quant} weights, {human_seconds(best.total_seconds)} in all"
    )
    yield Text(f"{model}, {human_bytes(best.own_bytes)} of {has} free: {where}")
    yield Text(why(planning))
    yield Text(f"`zolite train {best.spec.name} --data PATH --quant {best.recipe.model.quant}` starts it")
    if planning.backprop.recommended:
        yield Text(_advice(planning))
    yield from _sources(planning)
    yield Text(
        "--verbose shows where the memory goes line by line and what did not fit; --explain how plans are ranked"
    )


def why(planning: Planning) -> str:
    """Why the first plan is the first, beside the next larger and the quickest one, without a formula."""
    best = planning.plans[0]
    size = best.spec.parameters
    larger = next((p for p in planning.plans if p.spec.parameters > size), None)
    smaller = [p for p in planning.plans if p.spec.parameters < size and p.total_seconds < best.total_seconds]
    parts = ["a larger model mostly learns more from the same rows, if its steps are quick enough"]
    parts += [f"{_short(larger)} fits too, but takes {human_seconds(larger.total_seconds)}"] if larger else []
    if not larger and any(each.spec.parameters > size for each in planning.rejected):
        parts.append("none that is larger fits")
    if smaller:
        quick = min(smaller, key=lambda p: p.total_seconds)
        parts.append(f"{_short(quick)} is done in {human_seconds(quick.total_seconds)}, and knows less")
    if best.long:
        parts.append(f"half as long: --steps {best.recipe.train.steps // 2}, or shorter rows (--context)")
    return f"why: {'; '.join(parts)}"


def _advice(planning: Planning) -> str:
    b = planning.backprop
    size = human_bytes(max(0, b.peak_bytes - planning.hardware.others_bytes))
    return f"backpropagation (QLoRA) of {b.model} would take {size}: {b.why}"


def _sources(planning: Planning) -> Iterator[Text]:
    """How far the numbers are to be trusted."""
    c = planning.correction
    if c.runs:
        yield Text(f"corrected by {c.runs} runs on this machine: the next one is within about {c.spread:.0%}")
    elif planning.hardware.origin not in ("measured", "typical"):
        yield Text(f"speeds are {planning.hardware.origin}: `zolite profile` measures this machine in half a minute")


# --- every number ----------------------------------------------------------------------------------------------------


def details(planning: Planning) -> Iterator[RenderableType]:
    yield ledger(planning.plans[0])
    yield Text(
        "at once: rows × perturbed copies of the adapter in one forward pass; QLoRA: what backpropagation would "
        "need, no: more than there is"
    )
    hidden = len(planning.plans) - SHOWN
    if hidden > 0:
        yield Text(f"{hidden} more plans with --json")
    if planning.rejected:
        yield rejected(planning)
    yield Text(_advice(planning))
    c = planning.correction
    if c.runs:
        yield Text(
            f"predicted and measured so far, {c.runs} runs: memory {c.bytes - 1:+.1%}, time {c.seconds - 1:+.0%}, "
            f"corrected above; largest departure {c.spread:.0%}"
        )
    yield from _sources(planning)


def ledger(best: Plan) -> Table:
    title = f"{best.spec.name} in {best.recipe.model.quant}: where {human_bytes(best.own_bytes)} go"
    table = Table("what", "size", "why", title=title, title_justify="left", box=None, pad_edge=False)
    for line in best.ledger:
        if line.bytes and line.group != "other programs":
            table.add_row(line.what, human_bytes(line.bytes), line.why)
    table.add_row("peak", human_bytes(best.own_bytes), "")
    return table


def rejected(planning: Planning) -> Table:
    many = len(planning.rejected)
    title = f"{many} rejected" + (f", such as these {SHOWN}" if many > SHOWN else "")
    table = Table("model", "weights", "why", title=title, title_justify="left", box=None, pad_edge=False)
    for each in planning.rejected[:SHOWN]:
        table.add_row(each.spec.name.rpartition("/")[2], each.recipe.model.quant, each.reason)
    return table


def _step(each: Plan) -> str:
    s = each.seconds_per_step
    return f"{1e3 * s:.0f} ms" if s < 1 else f"{s:.1f} s"


def _backprop(planning: Planning, each: Plan) -> str:
    h = planning.hardware
    need = needed(h, each.spec, each.recipe.adapter.rank, each.recipe.data.context)
    return human_bytes(need - h.others_bytes) if need <= h.total_bytes else "no"
