"""Claims about plans: their ledgers are what was measured, they keep to the budget, and nothing heavy is loaded."""

import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from zolite.cli import plan_table
from zolite.common.errors import DoesNotFit, UsageError
from zolite.common.text import human_bytes, human_seconds, parsed_bytes
from zolite.config import catalog
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data.lengths import Rows
from zolite.engine import adapter
from zolite.model import quant
from zolite.planner import calibration, model_spec
from zolite.planner import hardware as machine
from zolite.planner import plan as planner
from zolite.planner.activations import Forward, Model, working
from zolite.planner.backprop import needed
from zolite.planner.calibration import Correction, Seen
from zolite.planner.hardware import Hardware
from zolite.planner.memory import CODES, SPACES, activation, allocated, blocks, ledger, peak, segments
from zolite.planner.plan import Planning, Wish, plan, wish
from zolite.planner.step_time import step_seconds

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MEASURED = json.loads((RESULTS / "step-nvidia-h100-80gb-hbm3.json").read_text(encoding="utf-8"))
SHAPES = {"135M": "smollm2-135m", "1.7B": "smollm2-1.7b", "8B": "llama-3.1-8b"}
STEPS = [row for row in MEASURED["rows"] if row["what"] == "zolite" and row["ms"]]
GIB = 2**30


def h100() -> Hardware:
    """The card that the steps were measured on, by the rates measured with them."""
    rates = MEASURED["rates"]
    copy = rates["copy_bytes_per_s"]
    return Hardware(
        name="H100",
        device="cuda",
        total_bytes=80 * GIB,
        others_bytes=0,
        context_bytes=0,
        copy_per_s=copy,
        float32_per_s=rates["float32_flops_per_s"],
        tensor16_per_s=rates["bf16_flops_per_s"],
        pairs_per_s=1.2e15,  # benchmarks/results/products-nvidia-h100-80gb-hbm3.json: 8,192 rows, 14336 × 4096
        expand_per_s={name: copy * share for name, share in machine.EXPAND.items()},
        capability=(9, 0),
    )


def case(row: dict[str, Any]) -> tuple[model_spec.ModelSpec, Recipe, Rows]:
    targets = ("q_proj", "v_proj") if row["targets"] == "q,v" else ()
    changes = {
        "model.quant": row["weights"],
        "adapter.space": "lora-b",
        "adapter.targets": targets,
        "data.context": row["tokens"] + 1,
        "train.batch": row["batch"],
    }
    recipe = recipes.resolve(recipes.override(Recipe(), changes))
    return model_spec.spec(SHAPES[row["shape"]]), recipe, Rows(row["tokens"], 16, lengths=1, evaluated=False)


def named(row: dict[str, Any]) -> str:
    return "-".join(str(row[key]) for key in ("shape", "batch", "tokens", "weights", "targets"))


@pytest.mark.parametrize("row", STEPS, ids=named)
def test_measured_peaks(row: dict[str, Any]) -> None:
    """The memory of every step measured so far is what its ledger says, to 1%; weights that were never loaded apart."""
    lines = ledger(h100(), *case(row))
    said = allocated(line for line in lines if line.what != "load")
    assert 0.99 < said / row["peak_bytes"] < 1.01


@pytest.mark.parametrize("row", STEPS, ids=named)
def test_measured_times(row: dict[str, Any]) -> None:
    """The time of every step measured so far is what its kernels take, to 15%."""
    assert 0.85 < 1e3 * step_seconds(h100(), *case(row)) / row["ms"] < 1.15


FORWARDS = [row for row in MEASURED["rows"] if row["what"] == "forward" and row["ms"]]


@pytest.mark.parametrize("row", FORWARDS, ids=named)
def test_measured_forwards(row: dict[str, Any]) -> None:
    """transformers' decoder, which other architectures run through, held what the planner says, to 1.5%."""
    spec, rows = model_spec.spec(SHAPES[row["shape"]]), row["batch"] * row["tokens"]
    model = Model(spec, row["weights"], 2, False, True, 8, frozenset())
    work = working(model, Forward(1, row["batch"], row["tokens"], 1))
    kept = (row["steps"] - 1) * rows * spec.hidden * 2  # results of earlier forwards that the benchmark did not drop
    said = row["resting_bytes"] + 32 * 2**20 + work.residual + work.layer + kept
    assert 0.985 < said / row["peak_bytes"] < 1.015


def test_measured_backprop() -> None:
    """First-order LoRA with checkpointing on nf4 weights took what the planner says, to 3%."""
    bare = dataclasses.replace(machine.published("rtx-3090"), context_bytes=0, others_bytes=0)
    rows = [r for r in MEASURED["rows"] if r["what"] == "first_order_checkpointed" and r["weights"] == "nf4"]
    assert rows
    for row in rows:
        said = needed(bare, model_spec.spec(SHAPES[row["shape"]]), 8, row["batch"] * row["tokens"])
        assert 0.97 < said / row["peak_bytes"] < 1.03


def test_copies() -> None:
    """What the planner knows of formats and spaces without torch is what the code that loads torch does."""
    assert {name: factors.trained for name, factors in SPACES.items()} == adapter.TRAINED
    for name, form in quant.FORMATS.items():
        assert CODES[name] == pytest.approx(form.bits / 8)
        for device, dtype in (("cpu", form.cpu), ("cuda", form.cuda)):
            assert activation(device, name) == dtype.itemsize


def test_adapter_numbers(tiny: Path) -> None:
    """The blocks that a plan counts have the shapes of those that training makes."""
    from zolite.engine.adapter import attach
    from zolite.model.load import load, pick_device, resolve

    loaded = load(resolve(str(tiny)), "float32", pick_device("cpu"), tiny)
    for space in recipes.SPACES:
        recipe = recipes.resolve(recipes.override(Recipe(), {"model.quant": "float32", "adapter.space": space}))
        made = attach(load(resolve(str(tiny)), "float32", loaded.device, tiny), recipe)
        known, factors = model_spec.spec(str(tiny)), SPACES[space]
        trained, frozen = (blocks(known, recipe, which).values() for which in (factors.trained, factors.frozen))
        assert sorted(trained) == sorted(block.shape for block in made.space.blocks)
        bases = [t for basis in made.bases.layers.values() for t in (basis.v, basis.u)] if made.bases else []
        assert sorted(frozen) == sorted(tuple(t.shape) for t in (*made.frozen.values(), *bases))


# --- plans -----------------------------------------------------------------------------------------------------------


def wished(names: tuple[str, ...] = ("smollm2-135m", "qwen3-1.7b", "llama-3.1-8b"), **asked: Any) -> Wish:
    return wish([model_spec.spec(name) for name in names], Rows(asked.pop("tokens", 512), 64), **asked)


def tried(hardware: Hardware, asked: Wish) -> Planning | DoesNotFit:
    try:
        return plan(hardware, asked)
    except DoesNotFit as error:
        return error


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
    assert [p.score for p in made.plans] == sorted((p.score for p in made.plans), reverse=True)


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
    """A model that lies in 4 bits already is not quantized twice."""
    spec = dataclasses.replace(model_spec.spec("qwen3-0.6b"), packed="gptq")
    with pytest.raises(UsageError, match="gptq"):
        plan(machine.published("rtx-4090"), wish([spec], Rows(64, 8)))


def test_backprop_beside() -> None:
    """QLoRA of a 7B and an 8B, a row of 512 tokens, is up to two fifths over what Unsloth publishes, 5 and 6 GB."""
    hardware = machine.pretended(machine.published("rtx-3060-12gb"), 12 * GIB)
    assert 1 < needed(hardware, model_spec.spec("mistral-7b"), 16, 512) / 5e9 < 1.4
    assert 1 < needed(hardware, model_spec.spec("llama-3.1-8b"), 16, 512) / 6e9 < 1.4
    made = plan(hardware, wished(("llama-3.1-8b",)))
    assert made.backprop.fits and made.backprop.recommended
    longer = wished(("llama-3.1-8b",), quant="nf4", batch=1, tokens=2048)
    beside = plan(machine.pretended(hardware, 8 * GIB), longer).backprop
    assert not (beside.fits or beside.recommended)


def test_segments() -> None:
    """The allocator's rounding: small tensors share, middling ones fill 20 MiB together, large ones round up to 2."""
    mib = 2**20
    assert segments(1000, 7) == 7000
    assert segments(4 * mib, 6) == 2 * 20 * mib
    assert segments(11 * mib, 3) == 3 * 12 * mib


# --- correction ------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for what is known of the machine."""
    monkeypatch.setattr(machine, "paths", lambda: {"state": tmp_path / "state"})
    monkeypatch.setattr(calibration, "paths", lambda: {"state": tmp_path / "state"})
    return tmp_path / "state"


def so_far() -> Correction:
    return calibration.so_far(machine.here("cpu"))


def seen(weights: str = "int8", space: float = 1.02, time_: float = 1.2, **changes: Any) -> Seen:
    values = {"machine": calibration.machine_name(), "model": "m", "weights": weights, "batch": 1, "tokens": 8}
    values |= {"device": "cpu", "rates": machine.here("cpu").origin}
    return Seen(
        **values | changes, predicted_bytes=10**9, measured_bytes=int(space * 1e9), predicted_s=1, measured_s=time_
    )


def test_correction(state: Path) -> None:
    """What runs took is remembered for this machine and its rates, by weight format, and moves the next plan so far."""
    assert so_far() == Correction()
    others = (seen(machine="another"), seen(device="cuda"), seen(rates="measured"))
    for each in (seen(), seen(), seen("nf4", 1.02, 2.0), *others):
        calibration.keep(each)
    known = so_far()
    assert (known.runs, known.bytes, known.seconds_of("int8", ""), known.seconds_of("nf4", "")) == (3, 1.02, 1.2, 2.0)
    assert known.seconds_of("bf16", "") == 1.2
    calibration.keep(seen("int8", 1.02, 1.5, model="small"))
    assert (so_far().seconds_of("int8", "small"), so_far().seconds_of("int8", "m")) == (1.5, 1.2)  # its own runs first
    hardware, asked = machine.published("rtx-3090"), wished(("qwen3-1.7b",), quant="int8")
    before, after = plan(hardware, asked).plans[0], plan(hardware, asked, known).plans[0]
    assert after.seconds_per_step == pytest.approx(1.2 * before.seconds_per_step)
    mine = sum(line.bytes for line in before.ledger if line.where != "outside")
    assert after.peak_bytes - before.peak_bytes == pytest.approx(0.02 * mine, rel=1e-3)


def test_record(state: Path, tiny: Path) -> None:
    """A run that took exactly what is predicted leaves no error."""
    recipe = recipes.resolve(recipes.override(Recipe(), {"model.name": str(tiny), "data.context": 64}))
    first = calibration.record(recipe, Rows(64, 8), 64, 1, 1.0, "cpu")
    (state / calibration.FILE).unlink()
    calibration.record(recipe, Rows(64, 8), 64, first.predicted_bytes, first.predicted_s, "cpu")
    known = so_far()
    assert (known.runs, known.bytes, known.seconds, known.spread) == (1, 1.0, 1.0, 0.0)


def test_broken_store(state: Path) -> None:
    """A file that another version wrote, or that is no JSON, is forgotten, and the next run is remembered."""
    state.mkdir()
    for text in ("{", '[{"a": 1}]', "3"):
        (state / calibration.FILE).write_text(text)
        assert so_far() == Correction()
        calibration.keep(seen())
        assert so_far().runs == 1


def test_profile_is_kept(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored profile is used while the machine and its versions are the same, and no longer."""
    fast = machine.pretended(machine.here(), 2**40)
    stored = Hardware(**{**fast.__dict__, "copy_per_s": 123.0, "origin": "measured"})
    machine.store(stored, {})
    assert (machine.here().copy_per_s, machine.here().origin) == (123.0, "measured")
    assert machine.here().total_bytes != 2**40  # what is there is asked anew
    monkeypatch.setattr(machine, "VERSIONED", ("zolite",))
    assert machine.here().origin != "measured"


class NVMLError(Exception):
    pass


class Driver:
    """An NVML that answers as under WSL: nothing about processes, cores or clocks."""

    NVMLError, NVML_CLOCK_SM, NVML_CLOCK_MEM = NVMLError, 1, 2

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetHandleByIndex": object(),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=12 * GIB - 2**27, free=10 * GIB, used=2 * GIB),
            "nvmlDeviceGetCount": 1,
            "nvmlSystemGetCudaDriverVersion_v2": 13000,
            "nvmlDeviceGetName": "NVIDIA GeForce RTX 3060",
            "nvmlSystemGetDriverVersion": "580.1",
            "nvmlDeviceGetCudaComputeCapability": (8, 6),
        }

        def answer(*_: Any) -> Any:
            if name not in answers:
                raise NVMLError("Not Supported")
            return answers[name]

        return answer


def test_driver_that_tells_little(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the driver says nothing of processes and clocks, the card is known by its name and memory."""
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    found = machine.here()
    assert (found.name, found.device, found.origin) == ("GeForce RTX 3060 12 GB", "cuda", "published")
    assert found.total_bytes == 12 * GIB - 2**27 and found.others_bytes == 2 * GIB - 2**27
    monkeypatch.setattr(catalog, "cards", dict)
    unknown = machine.here()
    assert unknown.origin == "estimated" and unknown.copy_per_s > 0 and unknown.tensor16_per_s > 0


def test_measuring(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zolite profile` measures every rate that this device has, stores it, and plans use it from then on."""
    from zolite.model.load import pick_device
    from zolite.tools import profile

    device = pick_device("auto")
    monkeypatch.setattr(profile, "WIDE", {"cpu": (64, 128), "cuda": (64, 128)})
    monkeypatch.setattr(profile.bench, "rates", lambda _: profile.bench.Rates(1e9, 2e9, 3e9))
    document = profile.measure(device)
    rates = document["hardware"]
    assert rates["copy_per_s"] == 1e9 and rates["tensor16_per_s"] == 2e9
    assert min(*rates["expand_per_s"].values(), rates["context_bytes"]) > 0
    assert (machine.here().copy_per_s, machine.here().origin) == (1e9, "measured")
    assert json.loads(machine.profile_path().read_text())["details"]["disk_free"]["data"] > 0


# --- the command -----------------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zolite", "plan", *arguments], capture_output=True, text=True, check=False
    )


def test_document() -> None:
    """--json is one document of what was asked, best first, with a ledger that sums to each peak."""
    done = command("--hardware", "rtx-3060-12gb", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["budget_bytes"] == 12 * GIB
    for each in document["plans"]:
        assert sum(line["bytes"] for line in each["ledger"]) == each["peak_bytes"] <= document["budget_bytes"]
        assert each["seconds_per_step"] > 0 and each["total_seconds"] > 0
    keys = {"model", "weights", "space", "rank", "method", "batch", "context", "copies"}
    assert all(keys <= set(each) for each in document["plans"] + document["rejected"])
    assert all(each["reason"] for each in document["rejected"])
    assert document["backprop"]["peak_bytes"] > 0 and document["backprop"]["fits"] in (True, False)


def test_no_torch() -> None:
    """Planning everything in the catalogue loads neither torch nor transformers nor textual."""
    code = (
        "import sys; sys.argv = ['zolite', 'plan', '--hardware', 'rtx-4060', '--json']\n"
        "from zolite.cli.main import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'textual') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["plans"] and done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("Qwen/Qwen3-0.6", "--vram", "8GiB"), 2, "nearest: Qwen/Qwen3-0.6B"),
        (("who/knows",), 2, "HF_HUB_OFFLINE"),
        (("qwen3-8b", "--vram", "1MiB"), 3, "the smallest that would"),
        (("opt-125m", "--context", "5000"), 2, "--context 2048"),
        (("--vram", "lots"), 2, "8GiB"),
        (("--hardware", "rtx-9999"), 2, "nearest"),
        (("--quant", "int3"), 2, "int8, nf4"),
        (("--batch", "0"), 2, "train.batch"),
        (("--method", "who"), 2, "mezo"),
        (("--context", "3"), 2, "8 is the least"),
        (("--data", "/no/such/place"), 2, "/no/such/place"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], code: int, said: str) -> None:
    """What cannot be planned is refused in two lines, with the remedy and the right exit code."""
    done = command(*arguments, "--json")
    assert done.returncode == code and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


def test_for_people(tmp_path: Path) -> None:
    """People get the plans, the best one's ledger, the rule, what was rejected and what backpropagation needs."""
    rows = tmp_path / "rows.jsonl"
    lines = [{"prompt": "What is it?", "completion": "It is a fish. " * (1 + i % 9)} for i in range(40)]
    rows.write_text("\n".join(map(json.dumps, lines)))
    done = command("--vram", "8GiB", "--hardware", "rtx-4060", "--data", str(rows))
    assert done.returncode == 0, done.stderr
    for text in ("linear layers", "margin", "peak", "best first by", "rejected, such as", "QLoRA", "published"):
        assert text in done.stdout
    context = json.loads(command("--vram", "8GiB", "--hardware", "rtx-4060", "--data", str(rows), "--json").stdout)
    assert context["plans"][0]["context"] in range(24, 80)


@pytest.mark.parametrize("card", ["rtx-4060", "rtx-5090"])
def test_narrow_terminals(card: str) -> None:
    """In 80 columns every model's whole name and every number is there, and no line is longer."""
    made = plan(machine.published(card), wish([model_spec.spec(name) for name in catalog.models()], Rows(512, 64)))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan_table.render(made))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80 and not [line for line in lines if "…" in line]
    for each in made.plans[: plan_table.SHOWN]:
        name, quant = each.spec.name.rpartition("/")[2], each.recipe.model.quant
        row = next(line for line in lines if line.startswith(f"{name} ") and f" {quant} " in line)
        assert human_bytes(each.peak_bytes) in row and human_seconds(each.total_seconds) in row


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


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * GIB),
        ("8 GB", 8 * 10**9),
        ("500M", 500 * 2**20),
        ("1.5g", 3 * GIB // 2),
        ("1024", 1024),
        ("2kb", 2000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes are read as people write them."""
    assert parsed_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "0", "8XiB", "nan", "inf", "8 G i"])
def test_no_sizes(text: str) -> None:
    """What is no size is not read as one."""
    with pytest.raises(ValueError, match=r"float|size"):
        parsed_bytes(text)


def test_lines_say_why() -> None:
    """A line without bytes stays, with the reason, so that a ledger always has the same purposes."""
    lines = ledger(machine.published("rtx-4060"), *case(STEPS[0]))
    assert {"context", "load", "streamed layers", "margin"} <= {line.what for line in lines}
