"""Claim: a step costs about the arithmetic of two forwards, and little memory beyond the weights at rest.

python benchmarks/step.py [OUT] [--shapes 135M,1.7B] [--weights int8,nf4] [--what zolite,textbook] [--cases 16x64,…]
                          [--profile]

Architectures of Llama shapes at random weights, made on the device; batch × tokens random ids, of which the last 16
positions of each row predict. In one process, on the same frozen weights and rows:

zolite                    the product's step, collating included: method mezo, space lora-b, rank 8, both points in one
                          forward; on q_proj and v_proj, and once more on all linear layers, its default
textbook                  MeZO as published, LoRA A and B on q_proj and v_proj (textbook.py)
first_order               the same LoRA by AdamW and backpropagation
first_order_checkpointed  the same with activation checkpointing
forward                   one bare decoder forward of the batch, without logits

By default all cases run zolite and forward, textbook all but 8B at 2×2048, the first-order two 1.7B alone. On a CPU
only 135M runs, at 4×64 (all five) and 16×64, and peak_bytes is the most the process has ever held.

ms            see zolite.bench: the median of three repetitions of `steps` steps back to back; null where it failed,
              with the `reason`
peak_bytes    the allocator's most, from before the adapters were made until the last repetition
resting_bytes the weights alone
parameters    of the decoder's linear layers: without the embedding table, and without the head, whose logits are needed
              at 16 positions of a row only
floor_ms      2 forwards (1 for `forward`) · 2 · parameters · batch · tokens / measured matrix rate

--profile adds a row {"what": "idle"}: the share of the time between the first and the last kernel of 20 zolite steps
(135M, 16×64, int8) in which the GPU did nothing. `--shapes "" --profile` measures nothing else.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, Case, provenance, slug
from textbook import first_order, restored, textbook

from zolite.data.examples import Example
from zolite.engine import device_memory
from zolite.model.devices import pick as pick_device
from zolite.model.load import Loaded
from zolite.model.quant import activations
from zolite.tools import bench
from zolite.tools.bench import SHAPES, Rates, Step

FORMATS = ("int8", "nf4", "bf16")
WHAT = ("zolite", "textbook", "first_order", "first_order_checkpointed", "forward")
BUSY = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of a trace in which the GPU works
PROFILED = 20  # steps

KEYS = ("shape", "batch", "tokens", "weights", "what", "targets")  # what tells rows apart

Result = dict[str, Any]


CPU_CASES = (Case("135M", 4, 64, what=WHAT), Case("135M", 16, 64, what=("zolite", "textbook", "forward")))
CASES = (
    Case("135M", 16, 64, what=("zolite", "textbook", "forward")),
    Case("135M", 16, 256, what=("zolite", "textbook", "forward")),
    Case("1.7B", 16, 64, what=WHAT),
    Case("1.7B", 16, 256, what=WHAT),
    Case("8B", 16, 256, what=("zolite", "textbook", "forward")),
    Case("8B", 2, 2048, what=("zolite", "forward")),
)


def contenders(
    loaded: Loaded, case: Case, weights: str, rows: Sequence[Example]
) -> Iterator[tuple[str, str, Callable[[], Step]]]:
    """(what, targets, what builds its step) of everything a case compares, the product first."""

    def ours(targets: tuple[str, ...]) -> Callable[[], Step]:
        recipe = bench.recipe_of(weights, case.batch, case.tokens, targets)
        return lambda: bench.zolite_step(loaded, recipe, rows)

    every = (
        ("zolite", "q,v", ours(bench.TARGETS)),
        ("zolite", "all", ours(())),
        ("textbook", "q,v", lambda: textbook(loaded, rows, case.batch)),
        ("first_order", "q,v", lambda: first_order(loaded, rows, case.batch)),
        ("first_order_checkpointed", "q,v", lambda: first_order(loaded, rows, case.batch, checkpointed=True)),
        ("forward", "none", lambda: bench.forward_step(loaded, rows[: case.batch])),
    )
    return (contender for contender in every if contender[0] in case.what)


def measured(name: str, weights: str, cases: Sequence[Case], rates: Rates, device: torch.device) -> Iterator[Result]:
    """Rows of all the cases of one shape in one format, on the same weights."""
    bench.settle(device)
    try:
        loaded = bench.random_model(name, weights, device)
    except torch.OutOfMemoryError:
        print(f"{name} in {weights} does not fit", file=sys.stderr)
        return
    resting, shape = device_memory.used_bytes(device), SHAPES[name]
    for case in cases:
        examples = bench.random_rows(shape.vocabulary, case.batch * bench.BATCHES, case.tokens)
        for what, targets, build in contenders(loaded, case, weights, examples):
            forwards = 1 if what == "forward" else 2
            floor = rates.floor_ms(shape, case.batch, case.tokens, activations(weights, device), forwards)
            yield {
                "shape": name,
                "batch": case.batch,
                "tokens": case.tokens,
                "weights": weights,
                "what": what,
                "targets": targets,
                **timed(loaded, build),
                "resting_bytes": resting,
                "parameters": shape.parameters,
                "floor_ms": floor,
            }


def timed(loaded: Loaded, build: Callable[[], Step]) -> Result:
    """ms, steps and peak_bytes; the reason where there are none: one that fails must not cost the others their time."""
    try:
        with restored(loaded.model):
            return asdict(bench.measure(build, loaded.device))
    except Exception as error:  # noqa: BLE001 - see above
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        return {"ms": None, "steps": 0, "peak_bytes": None, "reason": f"{type(error).__name__}: {reason}"}


def idle(device: torch.device) -> Result:
    """The shares of PROFILED steps' time in which the GPU is idle: between two steps, and between a step's kernels."""
    case, weights = Case("135M", 16, 64, what=("zolite",)), "int8"
    loaded = bench.random_model(case.shape, weights, device)
    rows = bench.random_rows(SHAPES[case.shape].vocabulary, case.batch * bench.BATCHES, case.tokens)
    step = bench.zolite_step(loaded, bench.recipe_of(weights, case.batch, case.tokens), rows)
    for number in range(bench.WARMUP[device.type]):
        step(number)
    torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for number in range(PROFILED):
            step(bench.WARMUP[device.type] + number)
        torch.cuda.synchronize(device)
    busy = intervals(profile)
    between = between_share(busy, PROFILED)
    about = {"shape": case.shape, "batch": case.batch, "tokens": case.tokens, "weights": weights}
    return {
        "what": "idle",
        **about,
        "steps": PROFILED,
        "kernels": len(busy),
        "share": between,
        "within": idle_share(busy) - between,
    }


def intervals(profile: Any) -> list[tuple[float, float]]:
    """(start, end) in µs of everything that ran on the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return [(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in BUSY]


def idle_share(busy: Sequence[tuple[float, float]]) -> float:
    """The share of the time between the first start and the last end that no interval covers; they may overlap."""
    covered, reached = 0.0, min(start for start, _ in busy)
    first, last = reached, max(end for _, end in busy)
    for start, end in sorted(busy):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return 1 - covered / (last - first) if last > first else 0.0


def between_share(busy: Sequence[tuple[float, float]], steps: int) -> float:
    """The share of the whole time that lies between the end of a step and the start of the next.

    Every step must have as many intervals as every other: replays of one graph do.
    """
    if len(busy) % steps:
        raise ValueError(f"{len(busy)} intervals do not divide into {steps} steps")
    ordered, each = sorted(busy), len(busy) // steps
    parts = [ordered[i : i + each] for i in range(0, len(ordered), each)]
    ends = [max(end for _, end in part) for part in parts]
    gaps = sum(max(0.0, after[0][0] - end) for end, after in zip(ends, parts[1:], strict=False))
    return gaps / (ends[-1] - parts[0][0][0])


HEAD = f"{'shape':6}{'case':>9}{'weights':>9}  {'what':25}{'ms':>10}{'floor':>10}{'peak':>8}{'resting':>9} MiB"


def line(r: Result) -> str:
    """A row of the table."""
    what = f"{r['what']} ({r['targets']})" if r["what"] == "zolite" else r["what"]
    case = f"{r['batch']}x{r['tokens']}"
    head = f"{r['shape']:6}{case:>9}{r['weights']:>9}  {what:25}"
    if r["what"] == "idle":
        return f"{head}{r['share']:10.1%} of {r['steps']} steps, {r['kernels']} kernels"
    if r["ms"] is None:
        return f"{head}  {r['reason']}"
    return f"{head}{r['ms']:10.2f}{r['floor_ms']:10.2f}{r['peak_bytes'] >> 20:8}{r['resting_bytes'] >> 20:9}"


def ratios(rows: Sequence[Result]) -> Iterator[str]:
    """What each of zolite's rows is to the others of its case."""
    by = {tuple(r[k] for k in KEYS): r for r in rows if r.get("ms") is not None}
    for key, row in by.items():
        shape, batch, tokens, weights, what, targets = key
        if what != "zolite":
            continue

        def other(what: str, targets: str = "q,v", key: tuple[Any, ...] = key, **changes: str) -> Result | None:
            wanted = dict(zip(KEYS, key, strict=True)) | {"what": what, "targets": targets} | changes
            return by.get(tuple(wanted[k] for k in KEYS))

        found = (
            ("textbook ÷ step", _ratio(other("textbook"), row)),
            ("step ÷ floor", row["ms"] / row["floor_ms"]),
            ("step ÷ two forwards", _ratio(row, other("forward", "none"), "ms", 0.5)),
            ("step ÷ bf16's", _ratio(row, other("zolite", targets, weights="bf16")) if weights != "bf16" else None),
            ("peak ÷ resting", row["peak_bytes"] / row["resting_bytes"]),
            ("peak ÷ first-order checkpointed", _ratio(row, other("first_order_checkpointed"), "peak_bytes")),
        )
        shown = "   ".join(f"{name} {value:.3g}" for name, value in found if value is not None)
        yield f"{shape} {batch}x{tokens} {weights} ({targets}):   {shown}"


def _ratio(a: Result | None, b: Result | None, what: str = "ms", scale: float = 1.0) -> float | None:
    return a[what] / b[what] * scale if a and b else None


def chosen(options: argparse.Namespace, device: torch.device) -> list[Case]:
    """The default cases, or those asked for; what is asked for by name runs in every case."""
    cases = CASES if device.type == "cuda" else CPU_CASES
    shapes = list(dict.fromkeys(c.shape for c in cases))
    if options.cases is not None:
        sizes = [tuple(map(int, case.split("x"))) for case in options.cases]
        cases = tuple(Case(shape, *size, what=WHAT) for shape in shapes for size in sizes)
    wanted = options.shapes if options.shapes is not None else shapes
    return [replace(c, what=tuple(options.what or c.what)) for c in cases if c.shape in wanted]


def parsed() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [part for part in text.split(",") if part]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--shapes", type=names, help=", ".join(SHAPES))
    parser.add_argument("--weights", type=names, default=list(FORMATS), help=", ".join(FORMATS))
    parser.add_argument("--what", type=names, help=", ".join(WHAT))
    parser.add_argument("--cases", type=names, help="batch x tokens, for example 16x64,2x2048")
    parser.add_argument("--profile", action="store_true", help="add the GPU's idle share; needs CUDA")
    options = parser.parse_args()
    if options.profile and not torch.cuda.is_available():
        parser.error("--profile needs CUDA")
    return options


def every_row(options: argparse.Namespace, rates: Rates, device: torch.device) -> Iterator[Result]:
    """Small shapes first, so that a run that is cut off has most cases."""
    cases = chosen(options, device)
    for name in dict.fromkeys(case.shape for case in cases):
        for weights in options.weights:
            yield from measured(name, weights, [c for c in cases if c.shape == name], rates, device)
    if options.profile:
        yield idle(device)


def origin(device: torch.device) -> Result:
    """Provenance, with the GPU and its driver apart."""
    about = provenance()
    driver = about["machine"].split(", ")[1] if device.type == "cuda" else None
    return {"gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU", "driver": driver} | about


def main() -> None:
    options, device = parsed(), pick_device("auto")
    rates, about = bench.rates(device), origin(device)
    rows: list[Result] = []
    path = options.out / f"step-{slug(about['gpu'])}.json"
    options.out.mkdir(parents=True, exist_ok=True)
    print(rates, HEAD, sep="\n", flush=True)
    try:
        for row in every_row(options, rates, device):
            rows.append(row)
            text = json.dumps({"provenance": about, "rates": asdict(rates), "rows": rows}, indent=1, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")  # after each row, so that a run that is cut off keeps them
            print(line(row), flush=True)
    finally:
        print("", *ratios(rows), path, sep="\n")


if __name__ == "__main__":
    main()
