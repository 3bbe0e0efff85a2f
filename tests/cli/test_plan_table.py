"""Claims about `zolite plan`: one document for programs, what people need in 80 columns, and nothing heavy loaded."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from zolite.cli import plan_table
from zolite.common.errors import DoesNotFit
from zolite.common.text import human_bytes, human_seconds
from zolite.config import catalog
from zolite.data.lengths import Rows
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner.plan import DAY, Planning, plan, wish

GIB = 2**30


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
    """People get the plans, the best one with what it takes, how to start it, and what backpropagation needs."""
    rows = tmp_path / "rows.jsonl"
    lines = [{"prompt": "What is it?", "completion": "It is a fish. " * (1 + i % 9)} for i in range(40)]
    rows.write_text("\n".join(map(json.dumps, lines)))
    done = command("--vram", "8GiB", "--hardware", "rtx-4060", "--data", str(rows))
    assert done.returncode == 0, done.stderr
    for text in ("best: ", "weights ", "`zolite train", "QLoRA", "published", "--verbose"):
        assert text in done.stdout
    assert "log2" not in done.stdout and "residual stream" not in done.stdout
    context = json.loads(command("--vram", "8GiB", "--hardware", "rtx-4060", "--data", str(rows), "--json").stdout)
    assert context["plans"][0]["context"] in range(24, 80)


def written(made: Planning, verbose: bool, explain: bool = False) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan_table.render(made, verbose, explain))
    return console.export_text()


def test_the_choice_is_explained_in_words_and_its_formula_where_it_is_asked_for() -> None:
    names = ("smollm2-135m", "llama-3.1-8b")
    made = plan(machine.published("rtx-4060"), wish([model_spec.spec(n) for n in names], Rows(512, 64)))
    text, formula = written(made, False), written(made, False, explain=True)
    assert "why: a larger model" in text and "log2" not in text and "log2(parameters)" in formula
    assert "log2" not in written(made, True)


def test_what_others_hold_is_not_part_of_a_models_own_size() -> None:
    """The sizes of the plans, their sum and QLoRA's are the same beside other programs, and fit into what is free."""
    alone = replace(machine.published("rtx-3060-12gb"), others_bytes=0)
    beside = replace(alone, others_bytes=3 * GIB)
    specs = [model_spec.spec("qwen3-1.7b")]
    here, there = (plan(card, wish(specs, Rows(512, 64))) for card in (alone, beside))
    assert [p.own_bytes for p in here.plans] == [p.own_bytes for p in there.plans]
    assert all(p.own_bytes <= there.hardware.free_bytes for p in there.plans)
    text = written(there, True)
    assert "3.0 GiB in use by other programs, 9.0 GiB free" in " ".join(text.split()) and "other processes" not in text
    quick = written(there, False)
    assert f"{human_bytes(there.plans[0].own_bytes)} of 9.0 GiB free" in " ".join(quick.split())


def test_a_run_of_days_is_never_the_best() -> None:
    """It comes behind every shorter one, and where there is none it is said that it is long, and what makes it less."""
    card = replace(machine.published("rtx-3050-laptop-4gb"), others_bytes=0)
    specs = [model_spec.spec(name) for name in ("smollm2-135m", "qwen3-1.7b")]
    steps = [2_000, 60_000, 300_000]
    for count in steps:
        try:
            made = plan(card, wish(specs, Rows(512, 64), steps=count))
        except DoesNotFit:
            continue
        long = [each.total_seconds > DAY for each in made.plans]
        assert long == sorted(long)
        assert ("best: " in written(made, False)) is not long[0]
        assert ("takes long" in written(made, False)) is long[0]


def test_every_number_with_verbose() -> None:
    """--verbose has the best plan's memory line by line, the rule, what was rejected and what QLoRA would need."""
    names = ("smollm2-135m", "llama-3.1-8b")
    text = written(plan(machine.published("rtx-4060"), wish([model_spec.spec(n) for n in names], Rows(512, 64))), True)
    for part in ("linear layers", "margin", "peak", "rejected", "QLoRA", "at once"):
        assert part in text


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("card", ["rtx-4060", "rtx-5090"])
def test_narrow_terminals(card: str, verbose: bool) -> None:
    """In 80 columns every model's whole name and every number is there, and no line is longer."""
    made = plan(machine.published(card), wish([model_spec.spec(name) for name in catalog.models()], Rows(512, 64)))
    lines = written(made, verbose).splitlines()
    assert max(map(len, lines)) <= 80 and not [line for line in lines if "…" in line]
    for each in made.plans[: plan_table.SHOWN]:
        name, quant = each.spec.name.rpartition("/")[2], each.recipe.model.quant
        row = next(line for line in lines if line.startswith(f"{name} ") and f" {quant} " in line)
        assert human_bytes(each.own_bytes) in row and human_seconds(each.total_seconds) in row
