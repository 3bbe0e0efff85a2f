"""The command line: parse, call, render events."""

import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table

from zolite import __version__
from zolite.cli import chat as chat_commands
from zolite.cli import data as data_commands
from zolite.cli import live
from zolite.cli import sessions as session_commands
from zolite.cli.process import INTERRUPTED, Detach, Json, Name, Plain, detached, follow, interrupt, outline, report
from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import to_json
from zolite.common.paths import paths as all_paths
from zolite.common.text import human_bytes
from zolite.config import catalog
from zolite.config import recipe as recipes
from zolite.config.composition import deterministic
from zolite.config.recipe import Recipe
from zolite.sessions import session as sessions

if TYPE_CHECKING:
    from zolite.tools.bench import Report
    from zolite.training.learn_scales import Progress, Task

app = typer.Typer(
    help="Fine-tune language models with forward passes alone, on the GPU you already own. Alone it opens the app.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(session_commands.app, name="sessions")
app.add_typer(data_commands.app, name="data")
app.command()(session_commands.watch)
app.command()(session_commands.replay)
app.command()(chat_commands.chat)

# Command-line options and the settings they set; everything else goes through --set.
FLAGS = {
    "method": "method.name",
    "space": "adapter.space",
    "rank": "adapter.rank",
    "targets": "adapter.targets",
    "quant": "model.quant",
    "device": "model.device",
    "steps": "train.steps",
    "batch": "train.batch",
    "lr": "train.lr",
    "eps": "train.eps",
    "copies": "train.copies",
    "seed": "train.seed",
    "context": "data.context",
    "template": "data.template",
}


def _lines(text: str | None) -> str | None:
    """A shell hands on backslash and n as two characters; who types them means a new line."""
    return text.replace("\\n", "\n") if text else text


def _gib(text: str | None) -> str | None:
    """A size as people write it, in GiB."""
    from zolite.planner.plan import size

    return f"{size(text) / 2**30}" if text else text


Template = Annotated[
    str | None, typer.Option(callback=_lines, help=r"prompt of rows with labels, {label} last; \n is a new line")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting of the recipe")]


def main() -> None:
    """Run a command; errors become one line of what, one of what to do, and an exit code."""
    try:
        app()
    except ZoliteError as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=lambda v: _version(v))] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", is_eager=True, callback=lambda s: _serve(s), help="the app in a browser")
    ] = False,
) -> None:
    """Options of every command."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"zolite {__version__}")
        raise typer.Exit


def _serve(wanted: bool) -> None:
    if not wanted:
        return
    try:
        from zolite.tui.serve import serve
    except ImportError:
        raise UsageError("textual-serve is not installed", "`pip install textual-serve`, then once more") from None
    serve()
    raise typer.Exit


@app.command()
def demo(
    steps: Annotated[int | None, typer.Option(help="fewer or more steps than the demo's own")] = None,
    quant: Annotated[str | None, typer.Option(help="int8, nf4, bf16 or float32")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")] = None,
    seed: Annotated[int | None, typer.Option(help="another run of the same demo")] = None,
    detach: Detach = False,
    plain: Plain = False,
    as_json: Json = False,
) -> None:
    """Fine-tune the embedded model on embedded messages, from first look to exported adapter."""
    if detach:
        _detached(as_json)
        return
    from zolite.demo.run import demo, demo_recipe

    recipe = _with_flags(demo_recipe(), steps=steps, quant=quant, device=device, seed=seed)
    follow(lambda stop: demo(recipe, stop), plain, as_json)


@app.command()
def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="hub id, folder, .gguf file or builtin:NAME")],
    data: Annotated[str, typer.Option(metavar="PATH", help="JSONL or CSV file, or a folder with train, dev and test")],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="a recipe file, or a model's in the catalogue; other options override it"
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="a row of `zolite methods`")] = None,
    space: Annotated[str | None, typer.Option(help=", ".join(recipes.SPACES))] = None,
    rank: Annotated[int | None, typer.Option(help="rank of the adapter")] = None,
    targets: Annotated[str | None, typer.Option(help="linear layers, comma between; all if left out")] = None,
    from_adapter: Annotated[
        Path | None, typer.Option(metavar="DIR", help="go on from a LoRA as peft writes it; sets rank, alpha, targets")
    ] = None,
    quant: Annotated[str | None, typer.Option(help=", ".join(recipes.QUANTS))] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")] = None,
    steps: Annotated[int | None, typer.Option(help="optimisation steps")] = None,
    batch: Annotated[int | None, typer.Option(help="rows a step")] = None,
    lr: Annotated[float | None, typer.Option(help="first learning rate")] = None,
    eps: Annotated[float | None, typer.Option(help="perturbation scale")] = None,
    copies: Annotated[int | None, typer.Option(help="points measured in one forward")] = None,
    seed: Annotated[int | None, typer.Option(help="decides directions, data order and first values")] = None,
    context: Annotated[int | None, typer.Option(help="longest row in tokens")] = None,
    template: Template = None,
    vram: Annotated[
        str | None, typer.Option(metavar="SIZE", callback=_gib, help="take no more memory than so much, such as 8GiB")
    ] = None,
    name: Annotated[str | None, typer.Option(help="the session's name")] = None,
    sets: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check recipe and data, load nothing")] = False,
    detach: Detach = False,
    plain: Plain = False,
    as_json: Json = False,
) -> None:
    """Fine-tune MODEL on your rows and save a session."""
    given = {flag: value for flag, value in locals().items() if flag in FLAGS}
    base, changes = _base(recipe), _settings(sets) | ({"train.vram_gib": vram} if vram else {})
    if from_adapter:
        from zolite.training import warm_start

        asked = {FLAGS[flag]: value for flag, value in given.items() if value is not None} | changes
        changes = warm_start.settings(from_adapter.expanduser(), asked, base.adapter) | asked
        given = {}
    chosen = _with_flags(base, **given, changes={"model.name": model, "data.path": data, **changes})
    sessions.ensure_free(name)
    if dry_run:
        _dry_run(chosen, as_json)
        return
    if detach:
        _detached(as_json)
        return
    from zolite.training.resume import begin

    follow(lambda stop: begin(chosen, name, stop), plain, as_json)


@app.command()
def resume(
    name: Name,
    sets: Sets = None,
    force: Annotated[bool, typer.Option(help="go on although model, data or recipe changed")] = False,
    detach: Detach = False,
    plain: Plain = False,
    as_json: Json = False,
) -> None:
    """Go on with a session where it stopped."""
    if detach:
        _detached(as_json)
        return
    from zolite.training.resume import resume

    follow(lambda stop: resume(name, _settings(sets), force, stop), plain, as_json)


@app.command("learn-optimizer")
def learn_optimizer(
    out: Annotated[Path, typer.Option(metavar="FILE", help="a new file; FILE.json beside it says what it is for")],
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="hub id, folder, .gguf or builtin:NAME")] = None,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="any rows: the file serves other tasks too")] = None,
    convert: Annotated[
        Path | None, typer.Option(help="instead of learning: a checkpoint its authors published")
    ] = None,
    space: Annotated[str | None, typer.Option(help=", ".join(recipes.SPACES))] = None,
    rank: Annotated[int | None, typer.Option(help="rank of the adapter")] = None,
    targets: Annotated[str | None, typer.Option(help="linear layers, comma between; all if left out")] = None,
    quant: Annotated[str | None, typer.Option(help=", ".join(recipes.QUANTS))] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")] = None,
    steps: Annotated[int | None, typer.Option(help="steps; 750 if left out")] = None,
    batch: Annotated[int | None, typer.Option(help="rows a step; 8 if left out")] = None,
    lr: Annotated[float | None, typer.Option(help="rate of the zeroth-order step that is learned for")] = None,
    eps: Annotated[float | None, typer.Option(help="perturbation scale")] = None,
    seed: Annotated[int | None, typer.Option(help="decides directions, data order and first values")] = None,
    context: Annotated[int | None, typer.Option(help="longest row in tokens")] = None,
    template: Template = None,
    restart_every: Annotated[int, typer.Option(help="steps until the adapter goes back to its start")] = 250,
    lr_mlp: Annotated[float, typer.Option(help="rate of the networks")] = 0.1,
    lr_llm: Annotated[float, typer.Option(help="first-order rate of the adapter")] = 1e-2,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Learn what the method zo-finetuner needs, once per MODEL. The one command that uses gradients.

    It needs the memory of first-order LoRA with activation checkpointing; `zolite train MODEL --method zo-finetuner
    --set method.optimizer=FILE` then runs on forward passes alone, on any data.
    """
    given = {flag: value for flag, value in locals().items() if flag in FLAGS}
    from zolite.training import learn_scales, scale_nets

    target = out.expanduser()
    scale_nets.ensure_free(target)
    if convert is not None:
        count = scale_nets.convert(convert.expanduser(), target)
        report({"path": str(target), "networks": count}, f"{target}: {count} networks", as_json)
        return
    if model is None or data is None:
        raise UsageError("learn-optimizer needs MODEL and --data PATH", "or --convert FILE, a published checkpoint")
    recipe = _with_flags(
        learn_scales.BASE, **given, changes={"model.name": model, "data.path": data, **_settings(sets)}
    )
    task = learn_scales.prepare(recipe, learn_scales.Settings(restart_every, lr_mlp, lr_llm))
    print(learn_scales.explained(task), file=sys.stderr)
    _follow_learning(task, target, as_json)


@app.command("eval")
def evaluate(
    target: Annotated[str, typer.Argument(metavar="NAME|MODEL", help="a session, or a model as it is")],
    data: Annotated[str, typer.Option(metavar="PATH", help="a file, or a folder's test rows")],
    quant: Annotated[str | None, typer.Option(help="for a MODEL: int8, nf4, bf16 or float32")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")] = None,
    template: Template = None,
    as_json: Json = False,
) -> None:
    """Accuracy on rows with labels, token loss on others."""
    from zolite.monitor.run_state import metric_text
    from zolite.training.score import score

    flags = {FLAGS[k]: v for k, v in {"quant": quant, "device": device, "template": template}.items() if v is not None}
    event = score(target, Path(data), flags)
    report(json.loads(to_json(event)), f"{event.split}: {metric_text(event)}", as_json)


@app.command()
def export(
    name: Name,
    to: Annotated[Path, typer.Option(metavar="DIR", help="a new or empty folder")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="peft; gguf, the adapter for llama.cpp; merged, the model in 16 bits; merged-gguf, that for llama.cpp",
        ),
    ] = "peft",
    step: Annotated[
        str, typer.Option(help="a number, last, best (on dev), or numbers with commas for their mean")
    ] = "last",
    dtype: Annotated[str, typer.Option(help="gguf: f16 or f32; merged-gguf: f16 or q8_0; the first if left out")] = "",
    force: Annotated[bool, typer.Option("--force", help="replace what an earlier export left in DIR")] = False,
    verify: Annotated[
        bool, typer.Option(help="load the export with its own reader and compare it with the session")
    ] = True,
    as_json: Json = False,
) -> None:
    """Write the adapter, or the model with it, for other programs: read back and compared before it appears.

    DIR gets a model card, a Modelfile for Ollama where it can read the format, and the comparison in export.json.
    """
    from zolite.export import formats

    folder = to.expanduser()
    with sessions.open_(name) as session:
        done = formats.export(session, folder, format_, step, dtype, force, verify)
        document = formats.about(done, session, format_) | {"path": str(to)}
    report(document, "\n".join(formats.told(done, name, format_)), as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Driver, torch, bitsandbytes, disk and memory: what is wrong, and how to mend it."""
    from dataclasses import asdict

    from zolite.tools import doctor as clinic

    checks = clinic.checkup()
    if as_json:
        print(json.dumps([asdict(check) for check in checks], ensure_ascii=False))
    else:
        Console().print(clinic.render(checks))
    raise typer.Exit(clinic.worst(checks))


@app.command()
def plan(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="as for train; the whole catalogue if left out")
    ] = None,
    vram: Annotated[str | None, typer.Option(metavar="SIZE", help="plan for so much memory, such as 8GiB")] = None,
    hardware: Annotated[str | None, typer.Option(help="plan for another card, such as rtx-3060-12gb")] = None,
    context: Annotated[int | None, typer.Option(help="longest row in tokens; 512 if neither this nor --data")] = None,
    batch: Annotated[int | None, typer.Option(help="rows a step")] = None,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="rows as for train: how long they are")] = None,
    template: Template = None,
    space: Annotated[str | None, typer.Option(help=", ".join(recipes.SPACES))] = None,
    rank: Annotated[int | None, typer.Option(help="rank of the adapter")] = None,
    quant: Annotated[str | None, typer.Option(help=", ".join(recipes.QUANTS))] = None,
    method: Annotated[str | None, typer.Option(help="a row of `zolite methods`")] = None,
    steps: Annotated[int | None, typer.Option(help="optimisation steps")] = None,
    as_json: Json = False,
) -> None:
    """What fits this machine or another, how fast it is, and where the memory goes; loads nothing."""
    from zolite.cli import plan_table
    from zolite.planner import plan as planner

    asked = {"space": space, "rank": rank, "quant": quant, "method": method, "batch": batch, "steps": steps}
    planning = planner.asked(model, vram, hardware, context, data, template, asked)
    if as_json:
        print(json.dumps(planner.document(planning), ensure_ascii=False))
    else:
        Console().print(plan_table.render(planning))


@app.command()
def profile(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    as_json: Json = False,
) -> None:
    """Measure this machine, memory and rates, for `zolite plan`; half a minute at most."""
    from zolite.model.load import pick_device
    from zolite.tools.profile import measure

    document = measure(pick_device(device))
    report(document, "\n".join(outline(document)), as_json)


@app.command()
def bench(
    shape: Annotated[str, typer.Option(help="a Llama of this size, at random weights: 135M, 1.7B or 8B")] = "135M",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    as_json: Json = False,
) -> None:
    """Time and memory of a step on this machine, in each weight format; downloads nothing."""
    from dataclasses import asdict

    from zolite.model.load import pick_device
    from zolite.tools import bench as bench_

    report = bench_.report(shape, pick_device(device))
    if as_json:
        print(json.dumps(asdict(report), ensure_ascii=False))
    else:
        Console().print(_bench_table(report))


@app.command()
def methods(as_json: Json = False) -> None:
    """The estimators zolite has, and what each costs."""
    from zolite.config import methods as table

    rows = [_method_row(m, table) for m in table.METHODS.values()]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        print(f"{row['name']:14} {row['summary']}\n{'':14} {row['paper']}")
        print(f"{'':14} {row['forwards_per_step']:g} forwards a step; bytes held: {row['state_bytes']}")


def _method_row(m: Any, table: Any) -> dict[str, Any]:
    given = {"optimizer": "FILE"} if m.name == "zo-finetuner" else {}
    recipe = recipes.resolve(
        recipes.override(recipes.Recipe(), {f"method.{k}": v for k, v in ({"name": m.name} | given).items()})
    )
    part = recipe.method
    return {
        "name": m.name,
        "paper": m.paper,
        "summary": m.summary,
        "sampler": part.sampler,
        "estimator": part.estimator,
        "rule": list(part.rule),
        "forwards_per_step": table.forwards_per_step(part, recipe.train),
        "state_bytes": table.state_formula(part),
        "spaces": list(m.spaces),
        "deterministic": deterministic(part),
    }


@app.command()
def paths(as_json: Json = False) -> None:
    """Where zolite keeps things."""
    where = {name: str(path) for name, path in all_paths().items()}
    report(where, "\n".join(f"{name:9} {path}" for name, path in where.items()), as_json)


def _follow_learning(task: "Task", target: Path, as_json: bool) -> None:
    """A line a step: all of them as JSON, else the first, the last and one every two seconds."""
    from zolite.training.learn_scales import learn

    stop, steps, row, shown = interrupt(), task.recipe.train.steps, None, -float("inf")
    for row in learn(task, target, stop):
        if as_json or row.step == steps or time.monotonic() - shown >= live.PlainView.EVERY:
            print(_progress_json(row) if as_json else _progress_text(row, steps), flush=True)
            shown = time.monotonic()
    taken = row.step if row else 0
    print(f"{target}: learned in {taken} steps" if taken else "nothing was learned", file=sys.stderr)
    if taken < steps:
        raise typer.Exit(INTERRUPTED)


def _progress_json(row: "Progress") -> str:
    """JSON knows no NaN: numbers that are not finite become null."""
    from dataclasses import asdict

    fields = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(row).items()}
    return json.dumps({"event": "learned", **fields})


def _progress_text(row: "Progress", steps: int) -> str:
    losses = "skipped" if row.skipped else f"loss {row.loss:.4f}, after a step {row.meta_loss:.4f}"
    return f"{row.step}/{steps}  {losses}  σ {row.sigma_min:.3g} to {row.sigma_max:.3g}  {row.seconds:.2g} s"


def _detached(as_json: bool) -> None:
    """This very command, in a process of its own."""
    mine = ("--detach", "--json", "--plain")
    name = detached([argument for argument in sys.argv[1:] if argument not in mine])
    report({"session": name}, f"session {name} runs by itself; `zolite watch {name}` looks on", as_json)


def _base(recipe: str | None) -> Recipe:
    """A file's, or that of a model in the catalogue, by its short name."""
    if recipe is None:
        return Recipe()
    known = catalog.models().get(recipe)
    return recipes.from_dict(dict(known.recipe)) if known else recipes.load(Path(recipe).expanduser())


def _with_flags(recipe: Recipe, changes: dict[str, Any] | None = None, **flags: Any) -> Recipe:
    given = {FLAGS[flag]: value for flag, value in flags.items() if value is not None}
    return recipes.override(recipe, given | (changes or {}))


def _settings(sets: list[str] | None) -> dict[str, str]:
    bad = [item for item in sets or [] if "=" not in item]
    if bad:
        raise UsageError(f"--set {bad[0]!r} is not KEY=VALUE", "for example --set train.eval_every=100")
    values = {key.strip(): value for key, _, value in (item.partition("=") for item in sets or [])}
    return values | {key: _lines(values[key]) or "" for key in values.keys() & {"data.template"}}


def _dry_run(recipe: Recipe, as_json: bool) -> None:
    from zolite.data import rows as tables

    dataset = tables.load(Path(recipe.data.path).expanduser(), recipe.data.template)
    recipe = recipes.resolve(recipe, len(dataset.labels))
    counts = {split: len(rows) for split, rows in dataset.splits.items()}
    about = {"recipe": recipes.to_dict(recipe), "rows": counts, "kind": dataset.kind, "labels": list(dataset.labels)}
    report(about, "\n".join(outline(about)), as_json)


def _bench_table(report: "Report") -> Group:
    """A row a weight format, and the device's rates below."""
    columns = ("weights", "ms a step", "tokens/s", "÷ floor", "ms a forward", "peak", "weights alone")
    title = f"{report.shape}, {report.batch} rows of {report.tokens} tokens, {report.device}"
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in report.rows:
        times = (f"{row.ms:.1f}", f"{row.tokens_per_s:,.0f}", f"{row.ms / row.floor_ms:.1f}", f"{row.forward_ms:.1f}")
        table.add_row(row.weights, *times, human_bytes(row.peak_bytes), human_bytes(row.resting_bytes))
    r = report.rates
    copy, bf16, float32 = r.copy_bytes_per_s, r.bf16_flops_per_s, r.float32_flops_per_s
    rates = f"copies {human_bytes(copy)}/s, products bf16 {bf16 / 1e12:.3g} and float32 {float32 / 1e12:.3g} TFLOP/s"
    return Group(table, rates, "floor: two forwards' products at the rate of what their activations are")
