"""Claims about `zolite plan`: one document for programs, what people need in 80 columns, and nothing heavy loaded."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from zolite.cli import plan_table
from zolite.common.text import human_bytes, human_seconds
from zolite.config import catalog
from zolite.data.lengths import Rows
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner.plan import Planning, plan, wish

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


def written(made: Planning, verbose: bool) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan_table.render(made, verbose))
    return console.export_text()


def test_every_number_with_verbose() -> None:
    """--verbose has the best plan's memory line by line, the rule, what was rejected and what QLoRA would need."""
    names = ("smollm2-135m", "llama-3.1-8b")
    text = written(plan(machine.published("rtx-4060"), wish([model_spec.spec(n) for n in names], Rows(512, 64))), True)
    for part in ("linear layers", "margin", "peak", "best first by", "rejected", "QLoRA", "at once"):
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
        assert human_bytes(each.peak_bytes) in row and human_seconds(each.total_seconds) in row
