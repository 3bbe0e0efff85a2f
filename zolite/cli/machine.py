"""What this machine can do: `zolite plan`, `doctor`, `profile`, `bench` and `paths`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table

from zolite.cli.flags import Given, takes
from zolite.cli.process import Json, Plain, Verbose, aside, outline, report
from zolite.cli.terminal import Terminal, say_json
from zolite.common.paths import paths as all_paths
from zolite.common.text import human_bytes

if TYPE_CHECKING:
    from zolite.tools.bench import Report, Row

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, xpu, xpu:N or mps")]


@takes(
    "data.path", "data.context", "data.template", "data.columns", "data.task", "adapter.space", "adapter.rank",
    "model.quant", "method.name", "train.batch", "train.steps",
    helps={
        "data.path": "rows as for train: how long they are",
        "data.context": "longest row in tokens; 512 if neither this nor --data",
    },
)  # fmt: skip
def plan(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="as for train; the whole catalogue if left out")
    ] = None,
    *,
    given: Given,
    vram: Annotated[str | None, typer.Option(metavar="SIZE", help="plan for so much memory, such as 8GiB")] = None,
    hardware: Annotated[str | None, typer.Option(help="plan for another card, such as rtx-3060-12gb")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="the formula by which plans are ranked")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """What fits this machine or another, how fast it is, and where the memory goes; loads nothing."""
    from zolite.cli import plan_table
    from zolite.planner import plan as planner

    keys = ("context", "path", "template", "columns", "task")
    context, data, template, columns, task = (given.pop(f"data.{key}", None) for key in keys)
    asked = {path.rpartition(".")[2] if path != "method.name" else "method": value for path, value in given.items()}
    planning = planner.asked(model, vram, hardware, context, data, template, asked, columns or "", task or "")
    if as_json:
        say_json(planner.document(planning))
    else:
        Terminal().print(plan_table.render(planning, verbose, explain))


def doctor(as_json: Json = False) -> None:
    """Driver, torch, bitsandbytes, disk and memory: what is wrong, and how to mend it."""
    from zolite.tools import doctor as clinic

    checks = []
    with aside(as_json):
        for check in clinic.checkup():
            checks.append(check)
            if not as_json:
                Terminal().print(clinic.render([check], clinic.NAME_WIDTH))
    if as_json:
        say_json([asdict(check) for check in checks])
    raise typer.Exit(clinic.worst(checks))


def profile(
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure this machine, memory and rates, for `zolite plan`; half a minute at most."""
    from zolite.model import devices
    from zolite.tools.profile import measure

    document = measure(devices.pick(device))
    report(document, "\n".join(outline(document)), as_json)


def bench(
    shape: Annotated[str, typer.Option(help="a Llama of this size, at random weights: 135M, 1.7B or 8B")] = "135M",
    device: Device = "auto",
    plain: Plain = False,
    as_json: Json = False,
) -> None:
    """Time and memory of a step on this machine, in each weight format; downloads nothing."""
    from zolite.model import devices
    from zolite.tools import bench as bench_

    report = bench_.report(shape, devices.pick(device))
    if as_json:
        say_json(asdict(report))
    elif plain:
        print("\n".join(_bench_lines(report)))
    else:
        Terminal().print(_bench_table(report))


def paths(as_json: Json = False) -> None:
    """Where zolite keeps things."""
    where = {name: str(path) for name, path in all_paths().items()}
    report(where, "\n".join(f"{name:9} {path}" for name, path in where.items()), as_json)


def _bench_cells(row: "Row") -> dict[str, str]:
    return {
        "ms a step": f"{row.ms:.1f}",
        "tokens/s": f"{row.tokens_per_s:,.0f}",
        "× the floor": f"{row.ms / row.floor_ms:.1f}",
        "ms a forward": f"{row.forward_ms:.1f}",
        "peak": human_bytes(row.peak_bytes),
        "weights alone": human_bytes(row.resting_bytes),
    }


def _bench_title(report: "Report") -> str:
    return f"{report.shape}, {report.batch} rows of {report.tokens} tokens, {report.device}"


def _bench_remarks(report: "Report") -> tuple[str, str]:
    r = report.rates
    copy, bf16, float32 = r.copy_bytes_per_s, r.bf16_flops_per_s, r.float32_flops_per_s
    rates = f"copies {human_bytes(copy)}/s, products bf16 {bf16 / 1e12:.3g} and float32 {float32 / 1e12:.3g} TFLOP/s"
    return rates, "floor: two forwards' products at the rate of what their activations are"


def _bench_lines(report: "Report") -> list[str]:
    """A line a weight format, and the device's rates below."""
    rows = (f"{row.weights}: " + ", ".join(f"{v} {k}" for k, v in _bench_cells(row).items()) for row in report.rows)
    return [_bench_title(report), *rows, *_bench_remarks(report)]


def _bench_table(report: "Report") -> Group:
    """A row a weight format, and the device's rates below."""
    columns = ("weights", *_bench_cells(report.rows[0]))
    table = Table(*columns, title=_bench_title(report), title_justify="left", box=None, pad_edge=False)
    for row in report.rows:
        table.add_row(row.weights, *_bench_cells(row).values())
    return Group(table, *_bench_remarks(report))
