"""Claims about the arithmetic of New run, and the two widgets that show it."""

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zolite.tui import planning
from zolite.tui.widgets.stack import widths

from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data.lengths import Rows
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner import plan as planner
from zolite.planner.calibration import Correction
from zolite.planner.memory import ledger, peak

CARD = machine.published("rtx-3060-12gb")
SPEC = model_spec.of_catalogue("qwen3-0.6b")
ROWS = Rows(64, 1)


def test_what_a_plan_costs_is_what_its_fields_cost() -> None:
    """A plan put into the fields and priced again is the plan, to the byte."""
    planned, _, _ = planning.proposed(CARD, SPEC.name, ROWS, {}, Correction())
    assert planned is not None
    for each in planned.plans:
        r = each.recipe
        values = {"model.quant": r.model.quant, "adapter.space": r.adapter.space, "data.context": str(r.data.context)}
        values |= {"train.microbatch": str(r.train.microbatch), "train.copies": "1" if r.train.copies == 1 else ""}
        recipe, wrong = planning.changed(Recipe(), values)
        cost = planning.priced(CARD, each.spec, recipe, ROWS, Correction())
        assert not wrong and (cost.peak_bytes, cost.total_seconds) == (each.peak_bytes, each.total_seconds)


def test_parts_are_the_ledger() -> None:
    """The bar's parts sum to the ledger's peak, all that adapters take is one of them, and each looks otherwise."""
    lines = ledger(CARD, SPEC, recipes.resolve(recipes.override(Recipe(), {"adapter.space": "lora-b"})), ROWS)
    parts = {part.label: part for part in planning.parts(lines)}
    assert sum(part.bytes for part in parts.values()) == peak(lines)
    names = ("trained numbers", "perturbed copies", "frozen factors", "optimizer state", "directions")
    assert parts["adapter"].bytes == sum(line.bytes for line in lines if line.what in names)
    assert next(line.bytes for line in lines if line.what == "frozen factors") > 0
    assert len({part.fill for part in parts.values()}) == len(parts)


@given(st.lists(st.integers(0, 2**40), max_size=8), st.integers(1, 300))
def test_widths(sizes: list[int], width: int) -> None:
    """A bar never is wider than it may be, and what is there is seen while there is room."""
    total = sum(sizes)
    cells = widths(sizes, total, width)
    assert sum(cells) == (width if total else 0) and all(n >= 0 for n in cells)
    if width >= len(sizes) and total:
        assert all(n > 0 for n, size in zip(cells, sizes, strict=True) if size)


SETTINGS = {
    "train.steps": st.integers(1, 10**6), "train.batch": st.integers(2, 64), "adapter.rank": st.integers(1, 64),
    "train.lr": st.floats(1e-6, 1), "method.name": st.sampled_from(["mezo", "lozo", "fzoo"]),
    "adapter.targets": st.sampled_from(["", "q_proj,v_proj"]), "data.template": st.just("{text}\n{label}"),
}  # fmt: skip


@given(st.fixed_dictionaries({}, optional=SETTINGS))
def test_the_command_is_the_recipe(values: dict[str, Any]) -> None:
    """What is started has every setting of the fields, and none besides."""
    typed = {path: planning_text(value) for path, value in values.items()}
    recipe, wrong = planning.changed(Recipe(), {"model.name": "a/b", "data.path": "my rows", **typed})
    assert not wrong
    words = planning.command(recipe, "first")
    assert words[:6] == ["train", "a/b", "--data", "my rows", "--name", "first"]
    given_ = dict(word.split("=", 1) for word in words[6:] if word != "--set")
    again = recipes.override(Recipe(), {"model.name": "a/b", "data.path": "my rows", **given_})
    assert again == recipe and shlex.split(shlex.join(words)) == words


def planning_text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def test_what_is_typed_wrongly_is_said() -> None:
    """All problems of the fields come at once, and the recipe stays as it was; an empty field is the default."""
    recipe, wrong = planning.changed(Recipe(), {"train.steps": "x", "adapter.rank": "many"})
    assert recipe == Recipe() and "train.steps" in wrong and "adapter.rank" in wrong
    assert planning.changed(Recipe(), {"train.steps": " "}) == (Recipe(), "")


@pytest.mark.parametrize(
    ("counted", "tokens", "context"),
    [("letters", 40, 512), ("letters", 400, 800), ("m", 40, 512), ("m", 601, 608), ("m", 10**6, planning.LONGEST)],
)
def test_context(counted: str, tokens: int, context: int) -> None:
    """The context has room for the longest row, for twice that where only letters were counted."""
    assert planning.context_for({"counted": counted, "tokens": tokens}) == context


def test_nothing_fits() -> None:
    """A budget that is too small gives no plan and the reason with its numbers."""
    planned, _, why = planning.proposed(machine.pretended(CARD, 2**28), SPEC.name, ROWS, {}, Correction())
    assert planned is None and "nothing fits 256 MiB" in why and planner.RULE


def test_offers() -> None:
    """Those that fit come first, and the built-in model is here."""
    found = planning.offers(CARD)
    fits = [each.fits for each in found]
    assert fits == sorted(fits, reverse=True)
    assert [each.name for each in found if each.here] == ["builtin:smollm2-135m"]
