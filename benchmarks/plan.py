"""Claim: a plan's peak memory and step time are those of the run, and what it says fits runs within an enforced budget.

python benchmarks/plan.py [OUT] [--quick] [--what run,budget,start,load]
                                              on a GPU about seven minutes; --quick, or a CPU: a tiny shape
python benchmarks/plan.py --table             the README's table, from the catalogue alone; needs no GPU

It writes the result after every row and goes on where it stopped, on the same machine with the same versions.

Llama shapes at random weights, as benchmarks/step.py makes them. The machine's rates are measured first, as `zolite
profile` does. Each row is a run as training makes it: adapters, an evaluation, then steps as CUDA graphs.

predicted_bytes, measured_bytes   what torch's allocator has in use at most
predicted_card, measured_card     what the process takes of the card: with the driver's context and what torch reserves
predicted_s, measured_s           one step; corrected_s is the prediction times the median error of the other rows of
                                  that shape and format, which is what a later plan on this machine would say
budget_bytes                      the smallest of 4, 6, 8, 12, 16 and 24 GiB that the plan says it fits; the allocator
                                  is held to it, less the context. `reason` where that failed.
what: budget                      for each budget the plan that comes nearest to it; there memory alone counts
what: load                        the embedded model: the peak of loading it in each format
what: start                       what a run of rows without labels does before its first step: start_s of start_steps
                                  batches of it, looks at dev and all; adamw_s is a step of AdamW with checkpointing
                                  on LoRA of q_proj and v_proj and the same rows, null where that did not fit

On a CPU peaks are the process's since it began, the measuring of rates included: there it only shows that it runs.
"""

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import RESULTS, Case, provenance, slug
from textbook import first_order, restored

from zolite.common.errors import DoesNotFit
from zolite.common.paths import paths
from zolite.config import catalog
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.config.spaces import SPACES
from zolite.data.lengths import Rows
from zolite.engine import device_memory
from zolite.engine.bases import bases
from zolite.model.devices import pick as pick_device
from zolite.model.load import Loaded, load, resolve, select
from zolite.model.lora import PerturbedLinear
from zolite.model.quant import replace_
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner.backprop import needed
from zolite.planner.hardware import Hardware
from zolite.planner.memory import Ledger, allocated, laid_out, ledger, ours, peak, weights
from zolite.planner.model_spec import ModelSpec
from zolite.planner.plan import layouts, plan, wish
from zolite.planner.step_time import step_seconds
from zolite.tools import bench
from zolite.tools import profile as profiles
from zolite.tools.bench import Shape, Step
from zolite.training.evaluate import evaluate
from zolite.training.feedback import EVERY, least, start_from_feedback_
from zolite.training.prepare import assemble
from zolite.training.run import Run, batches_of, stepper

GIB = 2**30
BUDGETS = (4, 6, 8, 12, 16, 24)  # GiB
FORMATS = ("int8", "nf4", "bf16")
EVALUATED = 64  # rows
OWN = 72  # texts of the model's own
TINY = Shape(256, 512, 2, 4, 2, 1024, True)

Result = dict[str, Any]


def cases(hardware: Hardware) -> list[Case]:
    """Model by model, since making one takes longest."""
    found = [Case(s, b, t, q) for s in SIZES for q in FORMATS for b, t in ((16, 64), (16, 256), (2, 2048))]
    if "lora-core" in SPACES:
        found += [Case(s, 16, 256, q, "lora-core") for s in SIZES for q in FORMATS]
    found += [Case(s, 16, 256, q, what=("start",)) for s in SIZES for q in ("int8", "nf4")]
    found += [tightest(hardware, gib * GIB) for gib in BUDGETS]
    return sorted(found, key=lambda case: (SIZES.index(case.shape), FORMATS.index(case.weights)))


SIZES = ("135M", "1.7B", "8B")
ROOMY = ((16, 512), (64, 512), (16, 2048))  # batch, tokens: what fills a budget
RANKS = {"int8": (8, 16), "nf4": (8, 16, 32, 64), "bf16": (8, 16, 32, 64)}
LONGEST_S = 2.0  # of a step, by its plan


def tightest(hardware: Hardware, budget: int) -> Case:
    """The layout that comes nearest to a budget of those that its plan says fit, and are over soon."""
    card, best, most = machine.pretended(hardware, budget), None, 0
    for shape, quant, (batch, tokens) in itertools.product(SIZES, FORMATS, ROOMY):
        for rank in RANKS[quant]:
            case = Case(shape, batch, tokens, quant, rank=rank, budget_bytes=budget, what=("budget",))
            for layout in layouts(recipe_of(case)):
                needs = peak(ledger(card, spec_of(shape), layout, rows_of(case)))
                if most < needs <= budget and step_seconds(card, spec_of(shape), layout, rows_of(case)) < LONGEST_S:
                    t = layout.train
                    best, most = dataclasses.replace(case, microbatch=t.microbatch, copies=t.copies), needs
    assert best is not None
    return best


QUICK = (
    Case("tiny", 4, 64, "int8"),
    Case("tiny", 4, 64, "nf4"),
    Case("tiny", 4, 128, "bf16", microbatch=2),
    Case("tiny", 4, 64, "bf16", "lora-core"),
    Case("tiny", 4, 128, "bf16", "lora-b", microbatch=1, copies=1, budget_bytes=24 * GIB, what=("budget",)),
    Case("tiny", 4, 64, "int8", what=("start",)),
)


def spec_of(shape: str) -> ModelSpec:
    """The shape that bench.random_model makes."""
    s = bench.SHAPES[shape]
    config = {
        "model_type": "llama",
        "vocab_size": s.vocabulary,
        "hidden_size": s.hidden,
        "intermediate_size": s.intermediate,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": s.tied,
    }
    return model_spec.from_config(shape, config)


def recipe_of(case: Case) -> Recipe:
    """The product's defaults but for what is measured."""
    changes = {"adapter.space": case.space, "train.microbatch": case.microbatch, "train.copies": case.copies}
    changes |= {"adapter.rank": case.rank} if case.rank else {}
    return recipes.resolve(recipes.override(bench.recipe_of(case.weights, case.batch, case.tokens, ()), changes))


def rows_of(case: Case) -> Rows:
    return Rows(case.tokens, min(bench.ANSWER, case.tokens), lengths=1)


def measured(hardware: Hardware, loaded: Loaded, case: Case) -> Result:
    """One row: predicted, then run under the budget. The model is given back as it was."""
    recipe, spec, rows = recipe_of(case), spec_of(case.shape), rows_of(case)
    lines = ledger(hardware, spec, recipe, rows)
    bench.settle(loaded.device)
    budget = case.budget_bytes or budget_of(machine.pretended(hardware, 0), spec, recipe, rows)
    about = asked(case) | {
        "resting_bytes": device_memory.used_bytes(loaded.device),
        "budget_bytes": budget,
    }
    starts = case.what == ("start",)
    plan = {
        "predicted_bytes": predicted(lines, loaded.device, ("load",) if starts else ("load", "start")),
        "predicted_card": ours(lines),
    }
    plan |= {} if starts else {"predicted_s": step_seconds(hardware, spec, recipe, rows)}
    if case.space == "lora-core":
        bases(loaded, select(loaded.model, ()), recipe)  # found once and kept, which is part of a load
    device_memory.hold_to(loaded.device, budget, hardware.context_bytes)
    try:
        seen = (as_started if starts else as_stepped)(hardware, loaded, recipe, case)
    except torch.OutOfMemoryError as error:
        seen = {"reason": str(error).splitlines()[0][:200]}
    finally:
        device_memory.hold_to(loaded.device, None)
        unwrap_(loaded.model)
    return about | plan | seen | ({"adamw_s": by_gradients(loaded, case)} if starts else {})


def as_stepped(hardware: Hardware, loaded: Loaded, recipe: Recipe, case: Case) -> Result:
    found = bench.measure(lambda: as_trained(loaded, recipe, case), loaded.device)
    return {"measured_bytes": found.peak_bytes, "measured_card": card_bytes(hardware), "measured_s": found.ms / 1e3}


def as_started(hardware: Hardware, loaded: Loaded, recipe: Recipe, case: Case) -> Result:
    """The start alone, as often as its least; texts of random tokens stand for the model's own."""
    run, own = assembled(loaded, recipe, case), bench.random_rows(loaded.model.config.vocab_size, OWN, 32)
    texts = [row.sequences[0] for row in own]
    start = lambda: start_from_feedback_(run.engine, run.examples, texts, case.batch, 0, least(case.batch) + 1)  # noqa: E731
    ms = bench.elapsed_ms(start, loaded.device)
    seen = {"measured_bytes": device_memory.peak_bytes(loaded.device), "measured_card": card_bytes(hardware)}
    return seen | {"start_s": ms / 1e3, "start_steps": EVERY}


def by_gradients(loaded: Loaded, case: Case) -> float | None:
    """Seconds of a step of AdamW with activation checkpointing."""
    bench.settle(loaded.device)
    try:
        with restored(loaded.model):
            rows = bench.random_rows(loaded.model.config.vocab_size, case.batch * bench.BATCHES, case.tokens)
            return (
                bench.measure(lambda: first_order(loaded, rows, case.batch, checkpointed=True), loaded.device).ms / 1e3
            )
    except torch.OutOfMemoryError:
        return None


def unwrap_(model: Any) -> None:
    """Take the adapters off again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, PerturbedLinear):
            replace_(model, name, module.base)


def predicted(lines: Ledger, device: torch.device, without: tuple[str, ...]) -> int:
    """The part that is measured: these weights were made in their format, so nothing was loaded."""
    kept = [line for line in lines if line.what not in without]
    return allocated(kept) if device.type == "cuda" else ours(kept)


def as_trained(loaded: Loaded, recipe: Recipe, case: Case) -> Step:
    """Adapters, an evaluation, and what takes steps."""
    run = assembled(loaded, recipe, case)
    evaluate(run.engine, run.examples["dev"], "dev", 0)
    steps = stepper(run)
    return lambda number: steps(batches_of(run, number), number)


def assembled(loaded: Loaded, recipe: Recipe, case: Case) -> Run:
    rows = bench.random_rows(loaded.model.config.vocab_size, case.batch * bench.BATCHES, case.tokens)
    budget = device_memory.budget_bytes(loaded.device)
    return assemble(recipe, loaded, {"train": rows, "dev": rows[:EVALUATED]}, {}, (), budget)


def budget_of(alone: Hardware, spec: ModelSpec, recipe: Recipe, rows: Rows) -> int | None:
    needs = peak(ledger(alone, spec, recipe, rows))
    return next((gib * GIB for gib in BUDGETS if needs <= gib * GIB), None)


def card_bytes(hardware: Hardware) -> int:
    """The card's memory in use that is not others'; on a CPU the process's."""
    if hardware.device != "cuda":
        return device_memory.peak_bytes(torch.device("cpu"))
    reserved = torch.cuda.max_memory_reserved()
    free, total = torch.cuda.mem_get_info()
    return total - free - hardware.others_bytes + reserved - torch.cuda.memory_reserved()


def every_row(hardware: Hardware, chosen: list[Case], device: torch.device) -> Iterator[Result]:
    for (shape, quant), group in itertools.groupby(chosen, key=lambda case: (case.shape, case.weights)):
        loaded = bench.random_model(shape, quant, device)
        for case in group:
            yield measured(hardware, loaded, case)
        del loaded
        bench.settle(device)


def loads(hardware: Hardware, device: torch.device, quants: list[str]) -> Iterator[Result]:
    """The embedded model, loaded as training loads it."""
    name = "builtin:smollm2-135m"
    for quant in quants:
        recipe = recipes.resolve(recipes.override(Recipe(), {"model.quant": quant}))
        model = laid_out(hardware, model_spec.spec(name), recipe)
        largest = max(linear.inputs * linear.outputs for linear in model.spec.linears)
        copies = {"int8": 2 * model.activation + 1, "nf4": model.activation}.get(quant, 0)  # ledger.py: load
        bench.settle(device)
        before = device_memory.used_bytes(device)
        load(resolve(name), quant, device, paths()["cache"])
        yield {
            "what": "load",
            "weights": quant,
            "predicted_bytes": sum(line.bytes for line in weights(model)) + copies * largest,
            "measured_bytes": device_memory.peak_bytes(device) - before,
        }


def with_corrections(rows: list[Result]) -> list[Result]:
    """Each prediction of time times the median error of its shape's other rows in that format, as runs are kept."""
    timed = [row for row in rows if row.get("measured_s")]

    def corrected(row: Result) -> Result:
        kind = row["shape"], row["weights"]
        others = [
            o["measured_s"] / o["predicted_s"] for o in timed if (o["shape"], o["weights"]) == kind and o is not row
        ]
        return row | {"corrected_s": row["predicted_s"] * median(others or [1.0])}

    return [corrected(row) if row in timed else row for row in rows]


def asked(case: Case) -> Result:
    """The part of a row that says what was measured."""
    return dataclasses.asdict(case) | {"what": case.what[0]}


def named(row: Result) -> str:
    if row["what"] == "load":
        return f"load {row['weights']}"
    layout = f"/{row['microbatch']}" if row["microbatch"] else ""
    rank = f" rank {row['rank']}" if row["rank"] else ""
    budget = f" in {row['budget_bytes'] // GIB} GiB" if row["what"] == "budget" else ""
    size = f"{row['batch']}x{row['tokens']}{layout}{rank}{budget}"
    return f"{row['what']} {row['shape']} {row['weights']} {row['space']} {size}"


def line(row: Result) -> str:
    head = f"{named(row):54}"
    if "reason" in row:
        return f"{head} {row['reason']}"
    text = f"{head} memory {row['predicted_bytes'] / 2**20:9.1f} of {row['measured_bytes'] / 2**20:9.1f} MiB"
    text += f" {row['predicted_bytes'] / row['measured_bytes']:.3f}"
    if "start_s" in row:
        adamw = f"{1e3 * row['adamw_s']:8.2f} ms" if row["adamw_s"] else "does not fit"
        return f"{text}   {1e3 * row['start_s'] / row['start_steps']:8.2f} ms a batch, a step of AdamW {adamw}"
    if "measured_s" not in row:
        return text
    card, time = row["predicted_card"] / row["measured_card"], row["predicted_s"] / row["measured_s"]
    return f"{text}   card {card:.3f}   time {1e3 * row['measured_s']:8.2f} ms {time:.3f}"


def misses(rows: list[Result]) -> Iterator[str]:
    """Rows off by more than 5% of memory, or 2% under it; beyond the budget; off by 25% of time, or 10% corrected."""
    for row in rows:
        if "reason" in row:
            yield f"{named(row)}: did not run: {row['reason']}"
            continue
        memory = row["predicted_bytes"] / row["measured_bytes"]
        if not 0.98 <= memory <= 1.05:
            yield f"{named(row)}: memory {memory:.3f}"
        if "measured_s" not in row:
            continue
        if row["budget_bytes"] and row["measured_card"] > row["budget_bytes"]:
            yield f"{named(row)}: {row['measured_card']:,} of a card of {row['budget_bytes']:,}"
        for what, most in (("predicted_s", 0.25), ("corrected_s", 0.10)) if row["what"] == "run" else ():
            ratio = row[what] / row["measured_s"]
            if abs(ratio - 1) > most:
                yield f"{named(row)}: {what} {ratio:.3f}"


# --- the README's table ----------------------------------------------------------------------------------------------

CARDS = machine.TYPICAL[: len(BUDGETS)]
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
    titles = (catalog.card(name).title.removeprefix("GeForce ") for name in CARDS)
    cards = (title.removesuffix(f" {gib} GB") for gib, title in zip(BUDGETS, titles, strict=True))
    columns = (f"{gib} GiB, {card}" for gib, card in zip(BUDGETS, cards, strict=True))
    yield "| family | weights | " + " | ".join(columns) + " |"
    yield "| --- " * (2 + len(BUDGETS)) + "|"
    for family, prefix in FAMILIES.items():
        specs = sorted(
            (model_spec.spec(n) for n in catalog.models() if n.startswith(prefix)), key=lambda s: s.parameters
        )
        for quant in ("int8", "nf4"):
            yield f"| {family} | {quant} | " + " | ".join(_cell(specs, quant, tokens, batch)) + " |"
        yield f"| {family} | QLoRA | " + " | ".join(_qlora(specs, tokens)) + " |"


def _hardware() -> Iterator[Hardware]:
    return (machine.pretended(machine.published(name), gib * GIB) for gib, name in zip(BUDGETS, CARDS, strict=True))


def _cell(specs: list[model_spec.ModelSpec], quant: str, tokens: int, batch: int) -> Iterator[str]:
    for hardware in _hardware():
        try:
            plans = plan(hardware, wish(specs, Rows(tokens, tokens // 8), quant=quant, batch=batch)).plans
        except DoesNotFit:
            yield "–"
            continue
        largest = max(plans, key=lambda each: each.spec.parameters)
        yield f"{_short(largest.spec)}, {largest.seconds_per_step:.1f} s"


def _qlora(specs: list[model_spec.ModelSpec], tokens: int) -> Iterator[str]:
    for hardware in _hardware():
        fitting = [spec for spec in specs if needed(hardware, spec, 8, tokens) <= hardware.total_bytes]
        yield _short(fitting[-1]) if fitting else "–"


def _short(spec: model_spec.ModelSpec) -> str:
    return f"{spec.parameters / 1e9:.1f}B"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--quick", action="store_true", help="a tiny shape")
    parser.add_argument("--what", default="run,budget,start,load", help="kinds of rows")
    parser.add_argument("--table", action="store_true", help="print the README's table")
    return parser.parse_args()


@dataclass(frozen=True)
class Results:
    """A file of rows, written anew after each."""

    path: Path
    about: dict[str, Any]
    hardware: Hardware
    rows: list[Result]

    def add(self, row: Result) -> None:
        self.rows.append(row)
        print(line(row), flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"provenance": self.about, "hardware": dataclasses.asdict(self.hardware)}
        beside = self.path.with_suffix(".partial")
        beside.write_text(json.dumps(kept | {"rows": with_corrections(self.rows)}, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.path)

    def missing(self, chosen: list[Case]) -> list[Case]:
        names = {named(row) for row in self.rows}
        return [case for case in chosen if named(asked(case)) not in names]


def opened(folder: Path, device: torch.device) -> Results:
    """What an earlier call left, if this is its machine and its version; else the machine is measured."""
    gpu = machine.first_gpu() if device.type == "cuda" else None
    path, about = folder / f"plan-{slug(gpu.name if gpu else 'cpu')}.json", provenance()
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if old and all(old["provenance"][key] == about[key] for key in ("machine", "versions", "commit")):
        known = old["hardware"] | {"capability": tuple(old["hardware"]["capability"])}
        return Results(path, about, Hardware(**known), old["rows"])
    return Results(path, about, profiles.hardware(device, gpu, profiles.context_bytes(device, gpu)), [])


def main() -> None:
    options = parsed()
    if options.table:
        print(*table(), sep="\n")
        return
    bench.SHAPES["tiny"] = TINY
    device = pick_device("auto")
    results = opened(options.out, device)
    print(results.hardware, flush=True)
    quick = options.quick or device.type == "cpu"
    whats = options.what.split(",")
    chosen = [case for case in (QUICK if quick else cases(results.hardware)) if case.what[0] in whats]
    for row in every_row(results.hardware, results.missing(chosen), device):
        results.add(row)
    done = {row["weights"] for row in results.rows if row["what"] == "load"}
    for row in loads(results.hardware, device, [q for q in FORMATS if q not in done and not quick and "load" in whats]):
        results.add(row)
    missed = list(misses(with_corrections(results.rows)))
    print(*missed, f"{len(missed)} misses in {len(results.rows)} rows", results.path, sep="\n")


if __name__ == "__main__":
    main()
