"""Claims about ledgers: they are what was measured, and what the code that loads torch holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zolite.common.text import human_bytes
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.config.spaces import SPACES
from zolite.config.weights import WEIGHT_FORMATS
from zolite.data.lengths import Rows
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner import plan as planner
from zolite.planner.memory import GROUPS, allocated, blocks, by_group, ledger, mapped, ours, peak, segments, targeted
from zolite.planner.step_time import step_seconds

from .conftest import STEPS, case, h100, named


@pytest.mark.parametrize("row", STEPS, ids=named)
def test_measured_peaks(row: dict[str, Any]) -> None:
    """The memory of every step measured so far is what its ledger says, to 1%; there was no load and no start."""
    lines = ledger(h100(), *case(row))
    said = allocated(line for line in lines if line.what not in ("load", "start"))
    assert 0.99 < said / row["peak_bytes"] < 1.01


def test_adapter_numbers(tiny: Path) -> None:
    """The blocks that a plan counts have the shapes of those that training makes."""
    from zolite.engine.adapter import attach
    from zolite.model.devices import pick as pick_device
    from zolite.model.load import load, resolve

    loaded = load(resolve(str(tiny)), "float32", pick_device("cpu"), tiny)
    for space in SPACES:
        recipe = recipes.resolve(recipes.override(Recipe(), {"model.quant": "float32", "adapter.space": space}))
        made = attach(load(resolve(str(tiny)), "float32", loaded.device, tiny), recipe)
        known, factors = model_spec.spec(str(tiny)), SPACES[space]
        trained, frozen = (blocks(known, recipe, which).values() for which in (factors.trained, factors.frozen))
        assert sorted(trained) == sorted(block.shape for block in made.space.blocks)
        bases = [t for basis in made.bases.layers.values() for t in (basis.v, basis.u)] if made.bases else []
        assert sorted(frozen) == sorted(tuple(t.shape) for t in (*made.frozen.values(), *bases))


@pytest.mark.parametrize("name", ["qwen3-1.7b", "gemma-3-1b", "phi-4-mini", "opt-1.3b"])
@pytest.mark.parametrize("weights", planner.FORMATS)
def test_more_takes_more(name: str, weights: str) -> None:
    """More rows, longer ones, more copies or a larger rank never take less memory, nor more rows less time."""
    spec, hardware = model_spec.spec(name), machine.published("rtx-3060-12gb")

    def of(tokens: int = 256, **changes: Any) -> tuple[int, float]:
        settings = {"model.quant": weights, "data.context": tokens, "train.batch": 8} | changes
        recipe, rows = recipes.resolve(recipes.override(Recipe(), settings)), Rows(tokens, 32)
        return peak(ledger(hardware, spec, recipe, rows)), step_seconds(hardware, spec, recipe, rows)

    small = of()
    for larger in (of(512), of(**{"train.batch": 16}), of(**{"adapter.rank": 32}), of(**{"train.copies": 4})):
        assert larger[0] >= small[0]
    assert of(**{"train.batch": 16})[1] > small[1] and of(**{"train.microbatch": 1})[0] <= small[0]


def test_a_start_counts_where_there_is_one() -> None:
    """Of rows without labels, unless it is turned off; then no plan is larger."""
    spec, hardware = model_spec.spec("qwen3-1.7b"), machine.published("rtx-3060-12gb")

    def of(labels: int, **changes: Any) -> list[int]:
        recipe = recipes.resolve(recipes.override(Recipe(), {"train.batch": 1, "data.context": 64} | changes))
        return [
            line.bytes for line in ledger(hardware, spec, recipe, Rows(64, 32, labels=labels)) if line.what == "start"
        ]

    assert of(0)[0] > 0
    assert of(2) == of(0, **{"adapter.feedback": False}) == of(0, **{"adapter.space": "lora-core"}) == []


def test_segments() -> None:
    """The allocator's rounding: small tensors share, middling ones fill 20 MiB together, large ones round up to 2."""
    mib = 2**20
    assert segments(1000, 7) == 7000
    assert segments(4 * mib, 6) == 2 * 20 * mib
    assert segments(11 * mib, 3) == 3 * 12 * mib


def test_lines_say_why() -> None:
    """A line without bytes stays, with the reason, so that a ledger always has the same purposes."""
    lines = ledger(machine.published("rtx-4060"), *case(STEPS[0]))
    assert {"context", "load", "streamed layers", "margin"} <= {line.what for line in lines}


def test_every_line_has_its_group() -> None:
    """Weights, adapters, activations, libraries, margin and other programs: together they are the peak."""
    lines = ledger(h100(), *case(STEPS[0]))
    sums = by_group(lines)
    assert tuple(sums) == GROUPS and sum(sums.values()) == peak(lines)
    assert sums["weights"] == sum(line.bytes for line in lines[1:5])
    assert {line.what for line in lines if line.group == "adapter"} >= {"trained numbers", "frozen factors"}


@pytest.mark.parametrize("card", ["rtx-4060", "h100", "cpu"])
def test_every_purpose_is_counted_once(card: str) -> None:
    """No line stands twice in a ledger, and none is in another's sum."""
    hardware = machine.here("cpu") if card == "cpu" else h100() if card == "h100" else machine.published(card)
    lines = ledger(hardware, *case(STEPS[0]))
    names = [line.what for line in lines]
    assert len(set(names)) == len(names)
    assert names[:5] == ["context", "linear layers", "embeddings", "head", "norms and biases"]
    assert peak(lines) == ours(lines) + sum(line.bytes for line in lines if line.where == "outside")


@pytest.mark.parametrize("quant", ["float32", "bf16", "int8"])
def test_a_load_on_a_cpu_holds_the_embeddings_twice_more(quant: str) -> None:
    """Where a run takes less than its load did, the load's line has what a load holds beside what stays."""
    spec = model_spec.spec("smollm2-135m")
    changes = {"model.quant": quant, "data.context": 8, "train.batch": 1, "train.copies": 1, "train.microbatch": 1}
    recipe = recipes.resolve(recipes.override(Recipe(), changes | {"adapter.rank": 1}))
    cpu = machine.here("cpu")
    (load,) = (line for line in ledger(cpu, spec, recipe, Rows(8, 8, evaluated=False)) if line.what == "load")
    activation = WEIGHT_FORMATS[quant].activation_bytes("cpu")
    largest = max(linear.inputs * linear.outputs for linear in spec.linears)
    copies = {"int8": 2 * activation + 1}.get(quant, 0) * largest
    assert 0.9 < load.bytes / (2 * activation * spec.embedding + copies) <= 1


def test_single_layers(tiny: Path) -> None:
    """Layers chosen by their full names are counted one by one, those of a last name all together."""
    linears = model_spec.spec(str(tiny)).linears
    counts = {each.name: each.count for each in targeted(linears, ("model.layers.1.self_attn.q_proj", "up_proj"))}
    assert {name: count for name, count in counts.items() if count} == {"q_proj": 1, "up_proj": 2}
    assert targeted(linears, ()) == list(linears)


def test_a_gguf_file_takes_a_tensor_of_the_hosts_memory() -> None:
    """It is said of a GPU's plan; no file stays mapped into memory, as one of safetensors does."""
    spec, recipe = model_spec.spec("builtin:smollm2-135m"), recipes.resolve(Recipe())
    (load,) = (line for line in ledger(h100(), spec, recipe, Rows(8, 8, evaluated=False)) if line.what == "load")
    assert human_bytes(4 * spec.embedding) in load.why
    assert mapped(spec) == 0 and mapped(replace(spec, packed="")) == 2 * spec.parameters
