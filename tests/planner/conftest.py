"""The steps that were measured on one card, with what was planned for them, and what plans are asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data.lengths import Rows
from zolite.planner import calibration, model_spec
from zolite.planner import hardware as machine
from zolite.planner.hardware import Hardware
from zolite.planner.plan import Wish, wish

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


def wished(names: tuple[str, ...] = ("smollm2-135m", "qwen3-1.7b", "llama-3.1-8b"), **asked: Any) -> Wish:
    return wish([model_spec.spec(name) for name in names], Rows(asked.pop("tokens", 512), 64), **asked)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for what is known of the machine."""
    monkeypatch.setattr(machine, "paths", lambda: {"state": tmp_path / "state"})
    monkeypatch.setattr(calibration, "paths", lambda: {"state": tmp_path / "state"})
    return tmp_path / "state"
