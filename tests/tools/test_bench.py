"""Claims about the benchmarks: what is compared computes the same, on weights that are left as they were."""

import importlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from zolite.cli import main
from zolite.model.load import Loaded
from zolite.model.quant import linear_names
from zolite.tools import bench
from zolite.tools.bench import Rates, Shape

CPU = torch.device("cpu")
TINY = Shape(64, 128, 2, 4, 2, 300, True)
BATCH, TOKENS = 4, 32
TOLERANCE = 1e-2  # of a loss of 6: bf16, int8 activations in the textbook's int8, and ε


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny shape beside the real ones, timed by one step."""
    monkeypatch.setitem(bench.SHAPES, "tiny", TINY)
    monkeypatch.setattr(bench, "STEPS", 1)
    monkeypatch.setattr(bench, "REPETITIONS", 1)
    monkeypatch.setattr(bench, "SPREAD", 0.1)  # so that the loss says which tokens were asked for
    monkeypatch.setattr(bench, "rates", lambda device: Rates(1e10, 1e11, 2e11))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """script("step") is benchmarks/step.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module


@pytest.fixture(params=["int8", "nf4", "bf16"])
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return bench.random_model("tiny", request.param, CPU)


def weights(loaded: Loaded) -> str:
    kind = type(loaded.model.get_submodule(linear_names(loaded.model)[0])).__name__
    return {"Int8Linear": "int8", "Nf4Linear": "nf4", "Linear": "bf16"}[kind]


def test_contenders_agree(loaded: Loaded, script: Callable[[str], ModuleType]) -> None:
    """At step 0 all measure the loss of the same rows under the same weights, and each is gone before the next."""
    other, rows = script("textbook"), bench.random_rows(TINY.vocabulary, BATCH, TOKENS)
    before = [type(module) for module in loaded.model.modules()]
    losses = {}
    with other.restored(loaded.model):
        estimate: Any = bench.zolite_step(loaded, bench.recipe_of(weights(loaded), BATCH, TOKENS), rows)(0)
        losses["zolite"] = float(estimate.losses.mean())
    with other.restored(loaded.model):
        losses["textbook"] = math.fsum(other.textbook(loaded, rows, BATCH)(0)) / 2
    for checkpointed in (False, True):
        with other.restored(loaded.model):
            losses[f"first order {checkpointed}"] = float(other.first_order(loaded, rows, BATCH, checkpointed)(0))
    assert losses == dict.fromkeys(losses, pytest.approx(losses["zolite"], abs=TOLERANCE))
    assert abs(losses["zolite"] - math.log(TINY.vocabulary)) > 4 * TOLERANCE
    assert [type(module) for module in loaded.model.modules()] == before


def test_full_loss_is_of_the_answers(script: Callable[[str], ModuleType]) -> None:
    """The textbook's loss is the mean over the last tokens of each row, each predicted from the position before."""
    loaded = bench.random_model("tiny", "float32", CPU)
    rows = bench.random_rows(TINY.vocabulary, BATCH, TOKENS)
    batch = script("textbook").Batch.of(rows, CPU)
    logits = loaded.model(input_ids=batch.ids).logits.log_softmax(-1)
    scored = [logits[i, q.position, q.token] for i, row in enumerate(rows) for q in row.queries]
    assert len(scored) == BATCH * bench.ANSWER
    assert float(script("textbook").full_loss(loaded.model, batch)) == pytest.approx(-float(sum(scored)) / len(scored))


def test_perturbing_returns(script: Callable[[str], ModuleType]) -> None:
    """Without a learning rate, a textbook step ends where it began, up to rounding."""
    loaded = bench.random_model("tiny", "float32", CPU)
    rows = bench.random_rows(TINY.vocabulary, BATCH, TOKENS)
    step = script("textbook").textbook(loaded, rows, BATCH, lr=0.0)
    before = [p.clone() for p in step.parameters]
    plus, minus = step(0)
    assert plus != minus
    assert len(before) == 2 * 2 * TINY.layers
    assert all(torch.allclose(p, q, rtol=0, atol=1e-7) for p, q in zip(step.parameters, before, strict=True))


def test_parameters(loaded: Loaded) -> None:
    """The floor counts every weight of the decoder's linear layers, and nothing else."""
    layers = [loaded.model.get_submodule(name) for name in linear_names(loaded.model)]
    assert sum(layer.in_features * layer.out_features for layer in layers) == TINY.parameters
    assert bench.SHAPES["135M"].parameters == 106_168_320


def test_random_model_is_real(loaded: Loaded) -> None:
    """Nothing stays on the meta device, and a forward is finite."""
    assert not any(t.is_meta for t in [*loaded.model.parameters(), *loaded.model.buffers()])
    hidden: Any = bench.forward_step(loaded, bench.random_rows(TINY.vocabulary, 2, 8))(0)
    assert hidden.shape == (2, 8, TINY.hidden) and bool(torch.isfinite(hidden).all())


@pytest.mark.parametrize(
    ("busy", "share"),
    [
        ([(0.0, 1.0)], 0.0),
        ([(0.0, 1.0), (3.0, 4.0)], 0.5),
        ([(3.0, 4.0), (0.0, 2.0), (1.0, 3.0)], 0.0),  # touching and overlapping, in no order
        ([(10.0, 20.0), (12.0, 13.0), (15.0, 22.0), (28.0, 30.0)], 0.3),  # one inside another
    ],
)
def test_idle_share(script: Callable[[str], ModuleType], busy: list[tuple[float, float]], share: float) -> None:
    """The share of the time between first start and last end that nothing covers."""
    assert script("step").idle_share(busy) == pytest.approx(share)


def test_script(
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every contender gets a row; one that fails says why, and the others go on."""
    step = script("step")
    monkeypatch.setattr(step, "CPU_CASES", (step.Case("tiny", BATCH, TOKENS, what=step.WHAT),))
    monkeypatch.setattr(step, "pick_device", lambda _: CPU)

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(step, "textbook", fails)
    monkeypatch.setattr(sys, "argv", ["step.py", str(tmp_path), "--weights", "bf16"])
    step.main()
    document = json.loads((tmp_path / "step-cpu.json").read_text())
    rows = {(row["what"], row["targets"]): row for row in document["rows"]}
    assert {what for what, _ in rows} == set(step.WHAT) and len(rows) == len(document["rows"]) == 6
    assert rows["textbook", "q,v"]["ms"] is None and "no room" in rows["textbook", "q,v"]["reason"]
    assert all(row["ms"] > 0 for (what, _), row in rows.items() if what != "textbook")
    assert document["rates"]["bf16_flops_per_s"] == 1e11
    assert rows["zolite", "all"]["floor_ms"] == pytest.approx(4e3 * TINY.parameters * BATCH * TOKENS / 1e11)
    assert "step ÷ floor" in capsys.readouterr().out


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["zolite", "bench", *words])
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_plain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`zolite bench --plain` is a line a format, and nothing that only a terminal can draw."""
    assert run(monkeypatch, "--shape", "tiny", "--device", "cpu", "--plain") == 0
    title, *lines, rates, _ = capsys.readouterr().out.splitlines()
    assert title.startswith("tiny, ") and [line.partition(":")[0] for line in lines] == ["int8", "nf4", "bf16"]
    assert all("ms a step" in line and "tokens/s" in line and "peak" in line for line in lines) and "TFLOP/s" in rates


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`zolite bench --json` is one document, and the table says the same of every format."""
    assert run(monkeypatch, "--shape", "tiny", "--device", "cpu", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    assert [row["weights"] for row in document["rows"]] == ["int8", "nf4", "bf16"]
    assert all(row["ms"] > 0 and row["forward_ms"] > 0 and row["floor_ms"] > 0 for row in document["rows"])


def test_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = bench.Row("int8", 15.1, 5.0, 5.0, 67800.0, 2**30, 2**29)
    report = bench.Report("tiny", "a GPU", 16, 64, Rates(3e12, 8e14, 5e13), (row,))
    monkeypatch.setattr(bench, "report", lambda *_: report)
    assert run(monkeypatch, "--shape", "tiny", "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("int8", "15.1", "67,800", "3.0", "1.0 GiB", "512 MiB", "800"))


def test_what_it_refuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A shape it does not have, and one that the memory does not hold."""
    assert run(monkeypatch, "--shape", "9B") == 2
    assert "135M, 1.7B, 8B" in capsys.readouterr().err
    monkeypatch.setattr("zolite.engine.device_memory.budget_bytes", lambda _: 2**30)
    assert run(monkeypatch, "--shape", "8B", "--device", "cpu") == 3
    assert "8B needs" in capsys.readouterr().err
