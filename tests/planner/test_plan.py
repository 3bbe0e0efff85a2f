"""Claims about plans: they keep to the budget, and what is none has its reason."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.cli import plan_table
from zolite.common.errors import DoesNotFit, UsageError
from zolite.common.text import parsed_bytes
from zolite.config import catalog
from zolite.data.lengths import Rows
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner import plan as planner
from zolite.planner.hardware import Hardware
from zolite.planner.plan import Planning, Wish, plan, wish

from .conftest import GIB, wished


def tried(hardware: Hardware, asked: Wish) -> Planning | DoesNotFit:
    try:
        return plan(hardware, asked)
    except DoesNotFit as error:
        return error


@settings(deadline=None)
@given(
    gib=st.sampled_from([2, 4, 6, 8, 12, 16, 24, 32]),
    quant_=st.sampled_from([None, *planner.FORMATS]),
    batch=st.integers(1, 64),
    tokens=st.sampled_from([8, 64, 512, 2048]),
    card=st.sampled_from(sorted(catalog.cards())),
)
def test_budget(gib: int, quant_: str | None, batch: int, tokens: int, card: str) -> None:
    """Every plan's lines sum to its peak and keep to the budget; every rejected choice has a reason; none is lost."""
    hardware = machine.pretended(machine.published(card), gib * GIB)
    asked = wished(quant=quant_, batch=batch, tokens=tokens)
    made = tried(hardware, asked)
    if isinstance(made, DoesNotFit):
        assert made.message.startswith("nothing") and made.hint
        return
    for each in made.plans:
        assert sum(line.bytes for line in each.ledger) == each.peak_bytes <= hardware.total_bytes
        assert all(line.bytes >= 0 and line.why for line in each.ledger)
        assert each.recipe.train.batch == batch and 1 <= each.recipe.train.microbatch <= batch
        assert 0 < each.seconds_per_step < each.total_seconds
    assert all(rejected.reason for rejected in made.rejected)
    assert len(made.plans) + len(made.rejected) == 3 * len(asked.quants)
    assert list(made.plans) == sorted(made.plans, key=lambda p: (p.long, -p.score))


def test_smallest_thing() -> None:
    """An absurd budget is refused with the smallest thing that would fit, which then does."""
    hardware = machine.pretended(machine.published("rtx-3060-12gb"), 2**20)
    with pytest.raises(DoesNotFit) as caught:
        plan(hardware, wished())
    assert "SmolLM2-135M" in caught.value.hint and "1 MiB" in caught.value.message
    size = re.findall(r"[\d.]+ [KMG]iB", caught.value.hint)[-1]
    enough = machine.pretended(hardware, int(parsed_bytes(size) * 1.01))
    assert plan(enough, wished()).plans[0].spec.name == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_context_beyond() -> None:
    """Rows longer than a context are refused where the model was named, and rejected with a reason elsewhere."""
    with pytest.raises(UsageError) as caught:
        planner.asked("opt-125m", "8GiB", "rtx-4060", 4096, None, None, {})
    assert "2,048" in caught.value.message
    made = plan(machine.published("rtx-4090"), wished(("opt-125m", "qwen3-0.6b"), tokens=4096))
    assert {r.spec.architecture for r in made.rejected if "context" in r.reason} == {"opt"}


def test_packed() -> None:
    """A model that lies in 4 bits is planned as it will be held; one that nothing reads is none."""
    whole = model_spec.spec("qwen3-0.6b")
    kinds = {method: dataclasses.replace(whole, packed=method) for method in ("", "gptq", "hqq")}
    card = machine.published("rtx-4090")
    peaks = {m: [p.peak_bytes for p in plan(card, wish([kinds[m]], Rows(64, 8))).plans] for m in ("", "gptq")}
    assert peaks["gptq"] == peaks[""]
    with pytest.raises(UsageError, match="hqq"):
        plan(card, wish([kinds["hqq"]], Rows(64, 8)))


def test_a_common_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget on a machine without a card is planned for a common one that has it, by name; a named card wins."""
    monkeypatch.setattr(machine, "first_gpu", lambda: None)
    for size, title in (("8GiB", "RTX 4060"), ("7 GB", "RTX 4060"), ("12GiB", "RTX 3060 12 GB"), ("99GiB", "RTX 5090")):
        made = planner.asked("qwen3-0.6b", size, None, 64, None, None, {})
        assert title in made.hardware.name and made.hardware.total_bytes == parsed_bytes(size)
        assert made.hardware.device == "cuda" and "a common card" in plan_table.heading(made).plain
    named = planner.asked("qwen3-0.6b", "8GiB", "rtx-3090", 64, None, None, {})
    assert "3090" in named.hardware.name and "common" not in plan_table.heading(named).plain
    sizes = [machine.published(name).total_bytes for name in machine.TYPICAL]
    assert sizes == sorted(set(sizes))
