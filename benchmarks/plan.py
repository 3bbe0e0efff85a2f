"""Claim: a plan's peak and pace are those of the run, and what it says fits runs within an enforced budget.

python benchmarks/plan.py [OUT] [--quick]     on a GPU a quarter of an hour; --quick, or a CPU: two small cases
python benchmarks/plan.py --table             the README's table, from the catalogue alone; needs no GPU

Llama shapes at random weights, as benchmarks/step.py makes them. The machine's rates are measured first, as `zolite
profile` does. Each row is a run as training makes it: adapters, an evaluation, then steps as CUDA graphs.

predicted_bytes, measured_bytes   what torch's allocator has in use at most
predicted_card, measured_card     what the process takes of the card: with the driver's context and what torch reserves
predicted_s, measured_s           one step; corrected_s is the prediction times the median error of the other rows of
                                  that format, which is what a later plan on this machine would say
budget_bytes                      the smallest of 4, 6, 8, 12, 16 and 24 GiB that the plan says it fits; the allocator
                                  is held to it, less the context. `reason` where that failed.
load                              rows of the embedded model: the peak of loading it in each format

On a CPU peaks are the process's since it began, the measuring of rates included: there it only shows that it runs.
"""

import argparse
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import RESULTS, provenance

from zolite import bench, catalog, facts, machine
from zolite import recipe as recipes
from zolite.backprop import needed
from zolite.bench import Step
from zolite.engine import probe
from zolite.engine import profile as profiles
from zolite.errors import DoesNotFit
from zolite.evaluate import evaluate
from zolite.ledger import Ledger, Rows, allocated, laid_out, ledger, ours, peak, weights
from zolite.machine import Hardware
from zolite.model.load import Loaded, load, pick_device, resolve
from zolite.pace import step_seconds
from zolite.paths import paths
from zolite.plan import Plan, plan, wish
from zolite.recipe import Recipe
from zolite.train import assemble, batches_of, stepper

GIB = 2**30
BUDGETS = (4, 6, 8, 12, 16, 24)  # GiB
SPECS = {"135M": "smollm2-135m", "1.7B": "smollm2-1.7b", "8B": "llama-3.1-8b"}  # of the same shapes
FORMATS = ("int8", "nf4", "bf16")
EVALUATED = 64  # rows

Result = dict[str, Any]


@dataclass(frozen=True)
class Case:
    shape: str
    batch: int
    tokens: int


CASES = tuple(Case(s, b, t) for s in SPECS for b, t in ((16, 64), (16, 256), (2, 2048)))
QUICK = (Case("135M", 2, 32), Case("135M", 4, 32))


def recipe_of(case: Case, quant: str, space: str) -> Recipe:
    """The product's defaults but for what is measured."""
    return recipes.resolve(
        recipes.override(bench.recipe_of(quant, case.batch, case.tokens, ()), {"adapter.space": space})
    )


def measured(hardware: Hardware, loaded: Loaded, case: Case, quant: str, space: str) -> Result:
    """One row: predicted, then run under the smallest budget that the plan says it fits."""
    recipe, spec = recipe_of(case, quant, space), facts.spec(SPECS[case.shape])
    rows = Rows(case.tokens, min(bench.ANSWER, case.tokens), lengths=1)
    lines = ledger(hardware, spec, recipe, rows)
    resting = probe.used_bytes(loaded.device)
    about = dataclasses.asdict(case) | {"weights": quant, "space": space, "budget_bytes": budget_of(lines)}
    said = {
        "predicted_bytes": predicted(lines, loaded.device),
        "predicted_card": ours(lines),
        "predicted_s": step_seconds(hardware, spec, recipe, rows),
    }
    probe.hold_to(loaded.device, about["budget_bytes"], hardware.context_bytes)
    try:
        found = bench.measure(lambda: as_trained(loaded, recipe, case), loaded.device)
        seen = {"measured_bytes": found.peak_bytes, "measured_card": card_bytes(hardware), "measured_s": found.ms / 1e3}
    except torch.OutOfMemoryError as error:
        seen = {"reason": str(error).splitlines()[0][:200]}
    finally:
        probe.hold_to(loaded.device, None)
    return about | said | seen | {"resting_bytes": resting}


def predicted(lines: Ledger, device: torch.device) -> int:
    """The part that is measured: these weights were made in their format, so nothing was loaded."""
    kept = [line for line in lines if line.what != "load"]
    return allocated(kept) if device.type == "cuda" else ours(kept)


def as_trained(loaded: Loaded, recipe: Recipe, case: Case) -> Step:
    """Adapters, an evaluation, and what takes steps."""
    rows = bench.random_rows(loaded.model.config.vocab_size, case.batch * bench.BATCHES, case.tokens)
    budget = probe.budget_bytes(loaded.device)
    run = assemble(recipe, loaded, {"train": rows, "dev": rows[:EVALUATED]}, {}, (), budget)
    evaluate(run.engine, run.examples["dev"], "dev", 0)
    steps = stepper(run)
    return lambda number: steps(batches_of(run, number), number)


def budget_of(lines: Ledger) -> int | None:
    return next((gib * GIB for gib in BUDGETS if peak(lines) <= gib * GIB), None)


def card_bytes(hardware: Hardware) -> int:
    """The card's memory in use that is not others'; on a CPU the process's."""
    if hardware.device != "cuda":
        return probe.peak_bytes(torch.device("cpu"))
    reserved = torch.cuda.max_memory_reserved()
    free, total = torch.cuda.mem_get_info()
    return total - free - hardware.others_bytes + reserved - torch.cuda.memory_reserved()


def every_row(hardware: Hardware, cases: tuple[Case, ...], device: torch.device) -> Iterator[Result]:
    for shape in dict.fromkeys(case.shape for case in cases):
        for quant in FORMATS:
            for case in (each for each in cases if each.shape == shape):
                for space in recipes.SPACES:  # a fresh model each: adapters are put into it
                    bench.settle(device)
                    yield measured(hardware, bench.random_model(shape, quant, device), case, quant, space)


def loads(hardware: Hardware, device: torch.device) -> Iterator[Result]:
    """The embedded model, loaded as training loads it."""
    name = "builtin:smollm2-135m"
    for quant in FORMATS:
        recipe = recipes.resolve(recipes.override(Recipe(), {"model.quant": quant}))
        model = laid_out(hardware, facts.spec(name), recipe)
        largest = max(linear.inputs * linear.outputs for linear in model.spec.linears)
        copies = {"int8": 2 * model.activation + 1, "nf4": model.activation}.get(quant, 0)  # ledger.py: load
        bench.settle(device)
        before = probe.used_bytes(device)
        load(resolve(name), quant, device, paths()["cache"])
        yield {
            "what": "load",
            "weights": quant,
            "predicted_bytes": sum(line.bytes for line in weights(model)) + copies * largest,
            "measured_bytes": probe.peak_bytes(device) - before,
        }


def with_corrections(rows: list[Result]) -> list[Result]:
    """Each prediction of time times the median error of the other rows of its format."""
    timed = [row for row in rows if row.get("measured_s")]

    def corrected(row: Result) -> Result:
        others = [o["measured_s"] / o["predicted_s"] for o in timed if o["weights"] == row["weights"] and o is not row]
        return row | {"corrected_s": row["predicted_s"] * median(others or [1.0])}

    return [corrected(row) if row in timed else row for row in rows]


def line(row: Result) -> str:
    what = row.get("what") or f"{row['shape']} {row['batch']}x{row['tokens']} {row['space']}"
    head = f"{what:24}{row['weights']:6}"
    if "reason" in row:
        return f"{head} {row['reason']}"
    text = f"{head} memory {row['predicted_bytes'] / 2**20:9.1f} of {row['measured_bytes'] / 2**20:9.1f} MiB"
    text += f" {row['predicted_bytes'] / row['measured_bytes']:.3f}"
    if "measured_s" not in row:
        return text
    card, pace = row["predicted_card"] / row["measured_card"], row["predicted_s"] / row["measured_s"]
    return f"{text}   card {card:.3f}   time {1e3 * row['measured_s']:8.2f} ms {pace:.3f}"


# --- the README's table ----------------------------------------------------------------------------------------------

CARDS = ("rtx-3050-laptop-4gb", "rtx-4050-laptop", "rtx-4060", "rtx-3060-12gb", "rtx-4060-ti-16gb", "rtx-3090")
FAMILIES = {
    "SmolLM": "smollm",
    "Qwen3": "qwen3",
    "Llama 3": "llama",
    "Gemma 3": "gemma",
    "Mistral": "mistral",
    "Phi-4": "phi",
}


def table(tokens: int = 512, batch: int = 16) -> Iterator[str]:
    """The largest model of each family per budget, int8 and nf4, with the time of a step; QLoRA's beside it."""
    yield "| family | weights | " + " | ".join(f"{gib} GiB" for gib in BUDGETS) + " |"
    yield "| --- " * (2 + len(BUDGETS)) + "|"
    yield "| card | | " + " | ".join(catalog.card(name).title for name in CARDS) + " |"
    for family, prefix in FAMILIES.items():
        specs = sorted((facts.spec(n) for n in catalog.models() if n.startswith(prefix)), key=lambda s: s.parameters)
        for quant in ("int8", "nf4"):
            yield f"| {family} | {quant} | " + " | ".join(_cell(specs, quant, tokens, batch)) + " |"
        yield f"| {family} | QLoRA | " + " | ".join(_qlora(specs, tokens)) + " |"


def _hardware() -> Iterator[Hardware]:
    return (machine.pretended(machine.published(name), gib * GIB) for gib, name in zip(BUDGETS, CARDS, strict=True))


def _cell(specs: list[facts.ModelSpec], quant: str, tokens: int, batch: int) -> Iterator[str]:
    for hardware in _hardware():
        try:
            plans = plan(hardware, wish(specs, Rows(tokens, tokens // 8), quant=quant, batch=batch)).plans
        except DoesNotFit:
            yield "–"
            continue
        largest: Plan = max(plans, key=lambda each: each.spec.parameters)
        yield f"{_short(largest.spec)}, {largest.seconds_per_step:.1f} s"


def _qlora(specs: list[facts.ModelSpec], tokens: int) -> Iterator[str]:
    for hardware in _hardware():
        fitting = [spec for spec in specs if needed(hardware, spec, 8, tokens) <= hardware.total_bytes]
        yield _short(fitting[-1]) if fitting else "–"


def _short(spec: facts.ModelSpec) -> str:
    return f"{spec.parameters / 1e9:.1f}B"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--quick", action="store_true", help="two small cases")
    parser.add_argument("--table", action="store_true", help="print the README's table")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    if options.table:
        print(*table(), sep="\n")
        return
    device = pick_device("auto")
    gpu = machine.first_gpu() if device.type == "cuda" else None
    hardware = profiles.hardware(device, gpu, profiles.context_bytes(device, gpu))
    cases = CASES if device.type == "cuda" and not options.quick else QUICK
    rows: list[Result] = []
    slug = re.sub(r"[^a-z0-9]+", "-", (gpu.name if gpu else "cpu").lower()).strip("-")
    path, about = options.out / f"plan-{slug}.json", provenance()
    options.out.mkdir(parents=True, exist_ok=True)
    print(hardware, flush=True)
    for row in itertools.chain(every_row(hardware, cases, device), loads(hardware, device)):
        rows.append(row)
        print(line(row), flush=True)
        document = {"provenance": about, "hardware": dataclasses.asdict(hardware), "rows": with_corrections(rows)}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")  # a run that is cut off keeps its rows
    print(path)


if __name__ == "__main__":
    main()
