"""The recipe: what to train, on what, how. Every default and every check of it lives here.

A recipe is frozen. Files (TOML) and command-line flags are turned into one by `from_dict` and `override`,
which report all problems at once.
"""

import ast
import dataclasses
import difflib
import inspect
import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from zolite.common.errors import UsageError, listed
from zolite.config import composition
from zolite.config.composition import MOST_COPIES, ROWS, MethodPart, at_once, composed, queries_of, step_sizes

SPACES = ("lora", "lora-b", "lora-core")
RANKS = {"lora": 8, "lora-b": 8, "lora-core": 32}  # where the recipe leaves it open; a core costs r², not r (in + out)
MOST_RANK = 64  # that a run chooses by itself
LOOKS = ((11, 200), (41, 500))  # at dev in a run, its ends included, and the rows of one that these many need
LEAST_ROWS, MOST_ROWS = 50, 500
QUANTS = ("int8", "nf4", "bf16", "float32")
SCHEDULES = ("linear", "constant")


@dataclass(frozen=True)
class ModelPart:
    name: str = "builtin:smollm2-135m"
    """hub id, local folder, .gguf file or builtin:NAME"""
    quant: str = "int8"
    """how the frozen weights are stored: int8, nf4, bf16 or float32"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


@dataclass(frozen=True)
class AdapterPart:
    space: str = ""
    """what is trained: lora (A, B), lora-b (B) or lora-core (between bases); empty: lora-b for labels, else lora"""
    rank: int = 0
    """rank of the adapter; 0 takes the space's own: 8 or one less than there are labels, lora-core's is 32"""
    alpha: float = 16.0
    """the adapter's product is scaled by alpha / rank"""
    targets: tuple[str, ...] = ()
    """names of the linear layers that get an adapter; empty for all of them"""
    linear_probe: bool = True
    """where rows have labels, begin with what linear probes of the layers' features already know"""
    start: str = ""
    """folder of an adapter to go on from, as peft writes it; read once, when a session begins"""


@dataclass(frozen=True)
class DataPart:
    path: str = ""
    """a folder with train, dev and test files, or one file of which a tenth is held out as dev"""
    template: str = "{text}\nCategory: {label}"
    """prompt of rows with a label: any column in braces, {label} last"""
    context: int = 512
    """longest row in tokens, answer included"""


@dataclass(frozen=True)
class TrainPart:
    steps: int = 2000
    """optimisation steps"""
    batch: int = 16
    """rows a step"""
    microbatch: int = 0
    """rows a forward; 0 takes the whole batch at once"""
    copies: int = 0
    """points measured in one forward; 0 takes as many as the method wants, at most 8; 1 measures one after the other"""
    queries: int = 0
    """directions a step; 0 takes the method's own, mostly 1"""
    lr: float = 0.0
    """first learning rate; 0 measures what the model and the data bear"""
    eps: float = 0.0
    """perturbation scale ε; 0 measures where the slope is known best"""
    schedule: str = "linear"
    """linear (to zero at the last step) or constant"""
    seed: int = 0
    """decides directions, data order and the adapter's first values"""
    eval_every: int = 0
    """steps between evaluations on dev; 0 for ten in a run, fewer where they would cost more than a tenth of it"""
    eval_rows: int = 0
    """rows of dev that such an evaluation looks at; 0 for as many as a tenth of the run pays for, 50 to 500"""
    patience: int = 5
    """evaluations in a row without a better one, after which a run ends; with 0 it goes on to the last step"""
    save_every: int = 0
    """steps between checkpoints; 0 for ten in a run"""
    disk_gib: float = 4.0
    """disk for checkpoints; the first, the newest and the best on dev are kept whatever they take"""
    vram_gib: float = 0.0
    """memory that a run may take; the rest of a card is held back from it. 0 sets no limit"""


@dataclass(frozen=True)
class Recipe:
    model: ModelPart = field(default_factory=ModelPart)
    adapter: AdapterPart = field(default_factory=AdapterPart)
    data: DataPart = field(default_factory=DataPart)
    method: MethodPart = field(default_factory=MethodPart)
    train: TrainPart = field(default_factory=TrainPart)

    @staticmethod
    def of(settings: Mapping[str, Any]) -> "Recipe":
        """A checked recipe from settings as the command line names them: Recipe.of({"train.steps": 400, …}).

        What is left out keeps its default. Raises UsageError with everything that is wrong.
        """
        return override(Recipe(), dict(settings))


RENAMED = {"train.slots": "train.copies", "adapter.readout": "adapter.linear_probe"}
"""Settings by the names that they had before; sessions and recipe files of old may hold them."""


def from_dict(values: dict[str, Any]) -> Recipe:
    """Nested tables, as in a recipe file, to a checked Recipe."""
    return override(Recipe(), {f"{part}.{key}": value for part, key, value in _leaves(values)})


def to_dict(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The inverse of `from_dict`; tuples become lists."""
    parts = dataclasses.asdict(recipe)
    return {p: {k: list(v) if isinstance(v, tuple) else v for k, v in part.items()} for p, part in parts.items()}


def load(path: Path) -> Recipe:
    """A recipe file."""
    try:
        return from_dict(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise UsageError(f"recipe {path} cannot be read: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"recipe {path} is not UTF-8", "save it as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {path} is not TOML: {error}", "see profiles/recipes for examples") from error


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with `part.key` set to each given value (text is converted), checked as a whole."""
    problems: list[str] = []
    parts = {part.name: getattr(recipe, part.name) for part in dataclasses.fields(Recipe)}
    if "method.name" in changes and parts["method"].name in ROWS and composed(parts["method"]) == parts["method"]:
        parts["method"] = MethodPart()  # what another name had decided, and what follows from it
        parts["train"] = dataclasses.replace(parts["train"], queries=0, copies=0, lr=0.0, eps=0.0)
    for path, value in ((RENAMED.get(path, path), value) for path, value in changes.items()):
        part, _, key = path.partition(".")
        if part not in parts or key not in _types(parts[part]):
            problems.append(f"{path.rstrip('.')}: no such setting{_nearest(path.rstrip('.'), parts)}")
            continue
        try:
            parts[part] = dataclasses.replace(parts[part], **{key: _convert(value, _types(parts[part])[key])})
        except ValueError as error:
            problems.append(f"{path}: {error}")
    changed = Recipe(**parts)
    problems += check(changed)
    if problems:
        raise UsageError("the recipe has problems:\n" + listed(problems), "`zolite train --help` lists the settings")
    return changed


def check(recipe: Recipe) -> list[str]:
    """Everything wrong with a recipe that can be seen without the model, the data or the machine."""
    a, d, t = recipe.adapter, recipe.data, recipe.train
    rules = (
        (recipe.model.quant in QUANTS, f"model.quant is {recipe.model.quant!r}, not one of {', '.join(QUANTS)}"),
        (a.space in ("", *SPACES), f"adapter.space is {a.space!r}, not one of {', '.join(SPACES)}"),
        (0 <= a.rank <= 1024, f"adapter.rank is {a.rank}, not 0 to 1024"),
        (a.alpha > 0, f"adapter.alpha is {a.alpha:g}, not above 0"),
        (not a.start or a.space != "lora-core", "adapter.start: a core cannot hold any adapter; take space lora"),
        (d.context >= 8, f"data.context is {d.context}, below 8 tokens"),
        (d.template.rstrip().endswith("{label}"), "data.template does not end with {label}"),
        (t.steps >= 1, f"train.steps is {t.steps}, below 1"),
        (t.batch >= 1, f"train.batch is {t.batch}, below 1"),
        (0 <= t.microbatch <= t.batch, f"train.microbatch is {t.microbatch}, not 0 to train.batch ({t.batch})"),
        (0 <= t.copies <= 64, f"train.copies is {t.copies}, not 0 to 64"),
        (0 <= t.queries <= 256, f"train.queries is {t.queries}, not 0 to 256"),
        (t.lr >= 0, f"train.lr is {t.lr:g}, below 0"),
        (t.eps >= 0, f"train.eps is {t.eps:g}, below 0"),
        (t.schedule in SCHEDULES, f"train.schedule is {t.schedule!r}, not one of {', '.join(SCHEDULES)}"),
        (0 <= t.seed < 2**63, f"train.seed is {t.seed}, not 0 to 2⁶³ − 1"),
        (t.eval_every >= 0, f"train.eval_every is {t.eval_every}, below 0"),
        (t.eval_rows >= 0, f"train.eval_rows is {t.eval_rows}, below 0"),
        (t.patience >= 0, f"train.patience is {t.patience}, below 0"),
        (t.save_every >= 0, f"train.save_every is {t.save_every}, below 0"),
        (t.disk_gib > 0, f"train.disk_gib is {t.disk_gib:g}, not above 0"),
        (t.vram_gib >= 0, f"train.vram_gib is {t.vram_gib:g}, below 0"),
    )
    problems = [message for holds, message in rules if not holds]
    return problems + composition.check(recipe.method, t.queries, t.batch)


def resolve(recipe: Recipe, labels: int = 0) -> Recipe:
    """The recipe with every value that was left open filled in, as a session records it; for rows of so many labels."""
    method, space = composed(recipe.method), recipe.adapter.space or space_for(labels)
    t = dataclasses.replace(recipe.train, queries=recipe.train.queries or queries_of(method))
    lr, eps = step_sizes(method, space)
    tenth = max(1, -(-t.steps // 10))
    every, rows = evaluations(t)
    filled = dataclasses.replace(
        t,
        lr=t.lr or lr,
        eps=t.eps or eps,
        microbatch=t.microbatch or t.batch,
        copies=t.copies or min(MOST_COPIES, at_once(method, t.queries, t.batch)),
        eval_every=every,
        eval_rows=rows,
        save_every=t.save_every or tenth,
    )
    adapter = dataclasses.replace(recipe.adapter, space=space, rank=recipe.adapter.rank or rank_for(space, labels))
    return dataclasses.replace(recipe, adapter=adapter, method=method, train=filled)


def space_for(labels: int) -> str:
    """What learned most from as many forwards: a probe where there are labels, A and B elsewhere (docs/log.md)."""
    return "lora-b" if labels else "lora"


def rank_for(space: str, labels: int) -> int:
    """The space's own, or what a linear probe of so many labels takes where that is more."""
    return max(RANKS[space], min(labels - 1, MOST_RANK)) if space == "lora-b" else RANKS[space]


def reasons(given: Recipe, filled: Recipe, labels: int) -> tuple[str, ...]:
    """What was left open and is no measurement's to say, in words."""
    space, rank, t = filled.adapter.space, filled.adapter.rank, filled.train
    why = f"a linear probe of {labels} labels takes it" if rank > RANKS[space] else f"what {space} usually takes"
    looks = looks_at(t.steps, t.eval_every)
    share = looks * t.eval_rows / (t.steps * t.batch * 2)
    rows = "labels, which it can begin with a linear probe of" if labels else "no labels, and it learns those fastest"
    known = (
        (given.adapter.space, f"space {space}: the rows have {rows}"),
        (given.adapter.rank, f"rank {rank}: {why}"),
        (
            given.train.eval_every and given.train.eval_rows,
            f"dev is looked at {looks} times, at most {t.eval_rows} rows of it: {share:.0%} of the forwards of a run",
        ),
    )
    return tuple(text for asked, text in known if not asked)


def evaluations(t: TrainPart) -> tuple[int, int]:
    """(steps between evaluations on dev, rows of one), for no more than a tenth of the rows that two-point steps read.

    That is the least that a method's steps read. Two evaluations of 50 rows there are always, or none would say much.
    """
    tenth = t.steps * t.batch * 2 // 10
    looks = max(2, *(min(most, tenth // (t.eval_rows or rows)) for most, rows in LOOKS))
    every = t.eval_every or -(-t.steps // (looks - 1))
    return every, t.eval_rows or min(MOST_ROWS, max(LEAST_ROWS, tenth // looks_at(t.steps, every)))


def looks_at(steps: int, every: int) -> int:
    """Evaluations of a run: before the first step, every so many, and after the last."""
    return 1 + -(-steps // every)


def starts_with_probe(part: AdapterPart) -> bool:
    """Does a run on rows with labels begin with a linear probe? Where A is trained too, that makes it stiff."""
    return part.linear_probe and part.space == "lora-b" and not part.start


def settings() -> list[tuple[str, str, Any, str]]:
    """(path, type, default, meaning) of every setting, for help texts and forms."""
    parts = {part.name: getattr(Recipe(), part.name) for part in dataclasses.fields(Recipe)}
    meanings = {name: _meanings(type(part)) for name, part in parts.items()}
    return [
        (f"{name}.{f.name}", _type_name(f.type), getattr(part, f.name), meanings[name][f.name])
        for name, part in parts.items()
        for f in dataclasses.fields(part)
    ]


def _type_name(kind: Any) -> str:
    return kind.__name__ if type(kind) is type else str(kind)


def _meanings(part: type) -> dict[str, str]:
    """The string under each field of a part, which Python itself throws away."""
    body: list[Any] = ast.parse(inspect.getsource(part)).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: text.value.value
        for field, text in itertools.pairwise(body)
        if (type(field).__name__, type(text).__name__) == ("AnnAssign", "Expr")
    }


def _leaves(values: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """(table, key, value); what stands outside a table gets an empty key, which is no setting's."""
    tables = {part: table if isinstance(table, dict) else {"": table} for part, table in values.items()}
    return [(part, key, value) for part, table in tables.items() for key, value in table.items()]


def _types(part: Any) -> dict[str, Any]:
    return get_type_hints(type(part))


def _nearest(path: str, parts: dict[str, Any]) -> str:
    known = {key: f"{name}.{key}" for name, part in reversed(parts.items()) for key in _types(part)}
    close = difflib.get_close_matches(path.rpartition(".")[2], known, 1)
    return f" (did you mean {known[close[0]]}?)" if close else ""


KINDS = {str: "text", bool: "true or false"}


def _convert(value: Any, kind: Any) -> Any:
    """A value from TOML or text to the type of its field."""
    if kind == tuple[str, ...]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError(f"{value!r} is not a list of names")
        return tuple(str(item).strip() for item in items if str(item).strip())
    if kind is bool and isinstance(value, bool | str) and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind is bool or isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise ValueError(f"{value!r} is not {KINDS.get(kind, 'a number')}")
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is not {'a whole number' if kind is int else 'a number'}") from None
    if kind is float and not abs(number) < float("inf"):
        raise ValueError(f"{value!r} is not a finite number")
    return number
