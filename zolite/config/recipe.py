"""The recipe: what to train, on what, how. Every default and every check of it lives here.

`Recipe` is what was asked, with None for "zolite chooses"; `resolve` makes a `ResolvedRecipe` of it, which runs and is
recorded: nothing in it is open. Both are frozen. Files (TOML) and command-line flags are turned into a recipe by
`from_dict` and `override`, which report all problems at once.
"""

import dataclasses
import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zolite.common.errors import UsageError, listed
from zolite.config import catalog, composition
from zolite.config.composition import MOST_COPIES, current, points_at_once, queries_of, resolved, step_sizes, written
from zolite.config.fields import arguments, pairs, setting, settings_of
from zolite.config.methods import RENAMED_VALUES, MethodPart, ResolvedMethod
from zolite.config.spaces import SPACES
from zolite.config.weights import WEIGHT_FORMATS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Part = TypeVar("Part", bound="DataclassInstance")

MOST_RANK = 64  # that a run chooses by itself
# (most evaluations of a run, its ends included; rows of each that so many need)
EVALUATIONS = ((11, 200), (41, 500))
LEAST_ROWS, MOST_ROWS = 50, 500
QUANTS = tuple(WEIGHT_FORMATS)
SCHEDULES = ("linear", "constant")
OBJECTIVES = ("say", "rank")


# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelPart:
    name: str = setting("builtin:smollm2-135m", "hub id, local folder, .gguf file or builtin:NAME", flags=("--model",))
    quant: str = setting("int8", "how the frozen weights are stored", flags=("--quant",), choices=QUANTS)
    device: str = setting("auto", "auto, cpu, cuda, cuda:N, xpu, xpu:N or mps", flags=("--device",))
    trust_code: bool = setting(
        False, "run the code that comes with the model, as you and without a wall around it", flags=("--trust-code",)
    )


@dataclass(frozen=True)
class AdapterPart:
    space: str | None = setting(
        None,
        "what is trained: lora (A, B), lora-b (B alone) or lora-core (a matrix between frozen bases); "
        "auto: lora-b for rows with labels, else lora",
        flags=("--space",),
        choices=tuple(SPACES),
    )
    rank: int | None = setting(
        None, "rank of the adapter; auto: 8, or what the labels' start takes; lora-core's is 32", flags=("--rank",)
    )
    alpha: float = setting(16.0, "the adapter's product is scaled by alpha / rank")
    targets: tuple[str, ...] | None = setting(
        None,
        "names of the linear layers that get an adapter, with commas between; auto: all of them",
        flags=("--targets",),
    )
    linear_probe: bool = setting(
        True,
        "where rows have labels, begin with what linear probes of the layers' features already know",
        was="adapter.readout",
    )
    feedback: bool = setting(
        True,
        "where rows have no labels, begin along the slope of the loss that comes back from predicted tokens",
    )
    start: str = setting("", "folder of an adapter to go on from, as peft writes it; read once, when a session begins")


@dataclass(frozen=True)
class DataPart:
    path: str = setting(
        "",
        "rows: a file, a folder, a pattern in quotes, several of these with commas between, or hf:NAME",
        flags=("--data",),
    )
    template: str = setting(
        "{text}\nCategory: {label}",
        "the prompt: columns in braces, in rows with a label {label} last (for encoders anywhere)",
        flags=("--template",),
    )
    context: int = setting(512, "longest row in tokens, answer included", flags=("--context",))
    template_args: str = setting(
        "", "arguments of the model's chat template, such as enable_thinking=false: name=value, or a JSON object"
    )
    columns: str = setting(
        "",
        'which columns of the files are what: label="Category (final)",text=Body; the others are found by their names',
        flags=("--columns",),
    )
    task: str = setting(
        "",
        "a published task, whose prompt and words are taken",
        flags=("--task",),
        choices=("", *catalog.tasks()),
    )
    verbalizer: str = setting(
        "", "words in the place of a column's values: 0=terrible,1=great for labels, else COLUMN:VALUE=WORD"
    )
    dev_share: float | None = setting(
        None,
        "share of train that is held out as dev where the rows have no dev; auto: a tenth, at most 200 rows",
        flags=("--dev-share",),
    )
    split_seed: int = setting(0, "which rows are held out as dev: another number takes others", flags=("--split-seed",))
    split_by: str = setting(
        "", "the column of a file that says which rows are train, dev (or validation) and test", flags=("--split-by",)
    )
    group_by: str = setting(
        "", "a column, such as user: rows with the same value there are all train or all dev", flags=("--group-by",)
    )
    stratify: bool = setting(True, "dev gets the same share of every label")


@dataclass(frozen=True)
class TrainPart:
    objective: str = setting(
        "say",
        "of rows with labels: say (the model writes the right label and ends, in any program) or rank (labels are "
        "compared with each other alone, and only zolite can read the answer)",
        flags=("--objective",),
        choices=OBJECTIVES,
    )
    steps: int = setting(2000, "optimisation steps", flags=("--steps", "--iters"))
    epochs: float | None = setting(
        None, "passes over the training rows, in the place of steps; auto: by steps", flags=("--epochs",)
    )
    batch: int = setting(16, "rows a step", flags=("--batch", "--batch-size"))
    microbatch: int | None = setting(None, "rows in one forward pass; auto: the whole batch")
    copies: int | None = setting(
        None,
        "perturbed copies of the adapter measured in one forward pass; auto: as many as the method wants, at most 8",
        flags=("--copies",),
        was="train.slots",
    )
    queries: int | None = setting(None, "random directions a step; auto: the method's own, mostly 1")
    lr: float | None = setting(
        None, "first learning rate; auto: measured on the model and the rows", flags=("--lr", "--learning-rate")
    )
    eps: float | None = setting(
        None, "perturbation scale ε; auto: measured, where the projected gradient is known best", flags=("--eps",)
    )
    schedule: str = setting("linear", "of the learning rate: linear (to zero at the last step)", choices=SCHEDULES)
    seed: int = setting(0, "decides directions, data order and the adapter's first values", flags=("--seed",))
    eval_every: int | None = setting(
        None, "steps between evaluations on dev; auto: ten in a run, fewer where they would cost over a tenth of it"
    )
    eval_rows: int | None = setting(
        None, "rows of dev in such an evaluation; auto: as many as a tenth of the run pays for, 50 to 500"
    )
    patience: int | float = setting(
        5,
        "evaluations in a row without a better one, after which a run ends; never: it goes on to the last step",
        unlimited="never",
    )
    save_every: int | None = setting(None, "steps between checkpoints; auto: ten in a run")
    disk_gib: float = setting(
        4.0, "GiB of disk for checkpoints; the first, the newest and the best on dev are kept whatever they take"
    )
    vram_gib: float = setting(
        math.inf,
        "GiB of memory that a run may take; the rest of a card is held back from it; none: no limit",
        flags=("--vram",),
        unlimited="none",
    )


@dataclass(frozen=True)
class Recipe:
    """What was asked."""

    model: ModelPart = field(default_factory=ModelPart)
    adapter: AdapterPart = field(default_factory=AdapterPart)
    data: DataPart = field(default_factory=DataPart)
    method: MethodPart = field(default_factory=MethodPart)
    train: TrainPart = field(default_factory=TrainPart)

    @staticmethod
    def of(settings: Mapping[str, Any]) -> "Recipe":
        """A checked recipe from settings as the command line names them: Recipe.of({"train.steps": 400, …}).

        What is left out keeps its default; None leaves a choice to zolite. Raises UsageError with all that is wrong.
        """
        return override(Recipe(), dict(settings))


PARTS: dict[str, type] = {
    "model": ModelPart, "adapter": AdapterPart, "data": DataPart, "method": MethodPart, "train": TrainPart,
}  # fmt: skip
SETTINGS = {each.path: each for name, part in PARTS.items() for each in settings_of(name, part)}
"""Every setting by its path, for checks, help texts, flags and forms."""

RENAMED = {each.meaning.was: path for path, each in SETTINGS.items() if each.meaning.was}


# --- what runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResolvedAdapter(AdapterPart):
    space: str = field(kw_only=True)
    rank: int = field(kw_only=True)
    targets: tuple[str, ...] = field(kw_only=True)  # () for every linear layer


@dataclass(frozen=True)
class ResolvedTrain(TrainPart):
    epochs: None = field(default=None, kw_only=True)  # they have become steps
    microbatch: int = field(kw_only=True)
    copies: int = field(kw_only=True)
    queries: int = field(kw_only=True)
    lr: float = field(kw_only=True)
    eps: float = field(kw_only=True)
    eval_every: int = field(kw_only=True)
    eval_rows: int = field(kw_only=True)
    save_every: int = field(kw_only=True)


@dataclass(frozen=True)
class ResolvedRecipe(Recipe):
    """What runs, and what a session records."""

    adapter: ResolvedAdapter = field(kw_only=True)
    method: ResolvedMethod = field(kw_only=True)
    train: ResolvedTrain = field(kw_only=True)


def resolve(recipe: Recipe, labels: int = 0, rows: int = 0, fitted: int = 0) -> ResolvedRecipe:
    """The recipe with every open value filled in, for so many training rows of so many labels; `reasons` says why.

    `fitted`: rows of the adapter that labels are to be said by (training/answer_fit.py), beside those of a probe.

    Raises UsageError where epochs were asked for and the number of rows is not known.
    """
    method, a = resolved(recipe.method), recipe.adapter
    space = a.space or space_for(labels)
    t = dataclasses.replace(recipe.train, steps=steps_of(recipe.train, rows), epochs=None)
    queries = t.queries or queries_of(method)
    lr, eps = step_sizes(method, space)
    every, eval_rows = evaluations(t)
    train = _as(
        ResolvedTrain,
        t,
        microbatch=t.microbatch or t.batch,
        copies=t.copies or min(MOST_COPIES, points_at_once(method, queries, t.batch)),
        queries=queries,
        lr=t.lr or lr,
        eps=t.eps or eps,
        eval_every=every,
        eval_rows=eval_rows,
        save_every=t.save_every or max(1, -(-t.steps // 10)),
    )
    adapter = _as(
        ResolvedAdapter, a, space=space, rank=a.rank or rank_for(space, labels, fitted), targets=a.targets or ()
    )
    return ResolvedRecipe(recipe.model, data=recipe.data, method=method, adapter=adapter, train=train)


def _as(kind: type[Part], part: Any, **filled: Any) -> Part:
    """A part of the recipe as one of another kind."""
    return kind(**{f.name: getattr(part, f.name) for f in dataclasses.fields(kind)} | filled)


def steps_of(t: TrainPart, rows: int) -> int:
    """Steps of a run over so many training rows."""
    if t.epochs is None:
        return t.steps
    if not rows:
        raise UsageError(f"train.epochs is {t.epochs:g}, but how many rows there are is not known", "give train.steps")
    return max(1, math.ceil(t.epochs * rows / t.batch))


def space_for(labels: int) -> str:
    """What learned most from as many forwards: a probe where there are labels, A and B elsewhere (docs/log.md)."""
    return "lora-b" if labels else "lora"


def rank_for(space: str, labels: int, fitted: int = 0) -> int:
    """The space's own, or what a linear probe of so many labels and the fit by which they are said take."""
    row = SPACES[space]
    return max(row.rank, min(labels - 1 + fitted, MOST_RANK)) if row.probe else row.rank


def evaluations(t: TrainPart) -> tuple[int, int]:
    """(steps between evaluations on dev, rows of one), for no more than a tenth of the rows that two-point steps read.

    That is the least that a method's steps read. Two evaluations of 50 rows there are always, or none would say much.
    """
    tenth = t.steps * t.batch * 2 // 10
    count = max(2, *(min(most, tenth // (t.eval_rows or rows)) for most, rows in EVALUATIONS))
    every = t.eval_every or -(-t.steps // (count - 1))
    return every, t.eval_rows or min(MOST_ROWS, max(LEAST_ROWS, tenth // evaluations_of(t.steps, every)))


def evaluations_of(steps: int, every: int) -> int:
    """Evaluations of a run: before the first step, every so many, and after the last."""
    return 1 + -(-steps // every)


def starts_with_probe(part: ResolvedAdapter) -> bool:
    """Does a run on rows with labels begin with a linear probe? Where A is trained too, that makes it stiff."""
    return part.linear_probe and SPACES[part.space].probe and not part.start


def starts_with_feedback(recipe: ResolvedRecipe) -> bool:
    """Does a run on rows without labels begin along the slope that comes back from predicted tokens?"""
    return recipe.adapter.feedback and not SPACES[recipe.adapter.space].bases and not recipe.adapter.start


def starts_with_fit(recipe: ResolvedRecipe) -> bool:
    """Does a run on rows with labels begin with an exact fit of the last layer, so that labels are said?"""
    return recipe.train.objective == "say" and not SPACES[recipe.adapter.space].bases and not recipe.adapter.start


def reasons(asked: Recipe, chosen: ResolvedRecipe, labels: int, dev_rows: int) -> tuple[str, ...]:
    """What was left open and needed no measurement to be chosen: each choice with its reason."""
    space, rank, t = chosen.adapter.space, chosen.adapter.rank, chosen.train
    why = f"{labels} labels of these tokens need it" if rank > SPACES[space].rank else f"the usual one of {space}"
    count = evaluations_of(t.steps, t.eval_every)
    evaluated = min(t.eval_rows, dev_rows)
    share = count * evaluated / (t.steps * t.batch * 2)
    rows = "labels, so training can start from a linear probe" if labels else "no labels, and it learns those fastest"
    given = asked.train.eval_every is not None and asked.train.eval_rows is not None
    known = (
        (asked.adapter.space is not None, f"space {space}: the rows have {rows}"),
        (asked.adapter.rank is not None, f"rank {rank}: {why}"),
        (asked.train.epochs is None, f"{t.steps} steps: {asked.train.epochs or 0:g} epochs in batches of {t.batch}"),
        (given, f"{count} evaluations on {evaluated} rows of dev, for {share:.0%} of the forward passes of all steps"),
    )
    return tuple(text for was_given, text in known if not was_given)


# --- files and flags --------------------------------------------------------------------------------------------------


def from_dict(values: dict[str, Any]) -> Recipe:
    """Nested tables, as in a recipe file, to a checked Recipe."""
    return override(Recipe(), {f"{part}.{key}": value for part, key, value in _leaves(values)})


def resolved_from_dict(values: dict[str, Any]) -> ResolvedRecipe:
    """The tables of a resolved recipe, as a session holds them."""
    train = {"objective": "rank", **values.get("train", {})}  # all there was before sessions recorded it
    data = {"stratify": False, **values.get("data", {})}
    return resolve(from_dict({**values, "train": train, "data": data}))


def to_dict(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The inverse of both; what is open is left out, and tuples become lists."""
    parts = dataclasses.asdict(recipe) | {"method": dataclasses.asdict(written(recipe.method))}
    return {
        name: {k: list(v) if isinstance(v, tuple) else v for k, v in part.items() if v is not None}
        for name, part in parts.items()
    }


def to_json(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The same for JSON, which has no infinity: no limit is written as its word, which `from_dict` reads as well."""
    return {
        name: {k: SETTINGS[f"{name}.{k}"].spelled(v) if v == math.inf else v for k, v in part.items()}
        for name, part in to_dict(recipe).items()
    }


def load(path: Path) -> Recipe:
    """A recipe file."""
    try:
        return from_dict(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise UsageError(
            f"recipe {path} cannot be read: {error.strerror}",
            "check the path, or take the recipe of a model by its short name, such as --recipe qwen3-0.6b",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"recipe {path} is not UTF-8", "save it as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"recipe {path} is not TOML: {error}", "a recipe has tables of settings, such as train = { steps = 2000 }"
        ) from error


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with `part.key` set to each given value (text is converted), checked as a whole.

    Of a resolved recipe nothing is open again, unless another method or other steps make it so.
    """
    changes = _of_task(changes) | changes
    problems: list[str] = []
    parts: dict[str, Any] = {name: _as(part, getattr(recipe, name)) for name, part in PARTS.items()}
    parts["method"] = written(recipe.method)
    if "method.name" in changes and isinstance(recipe, ResolvedRecipe):
        parts["method"] = MethodPart()  # what another name had decided, and what follows from it
        parts["train"] = dataclasses.replace(parts["train"], queries=None, copies=None, lr=None, eps=None)
    if "train.steps" in changes:
        parts["train"] = dataclasses.replace(parts["train"], epochs=None)
    for path, value in (renewed(path, value) for path, value in changes.items()):
        part, _, key = path.partition(".")
        if path not in SETTINGS:
            problems.append(f"{path.rstrip('.')}: no such setting{_nearest(path)}")
            continue
        try:
            parts[part] = dataclasses.replace(parts[part], **{key: SETTINGS[path].read(value)})
        except ValueError as error:
            problems.append(f"{path}: {error}")
    changed = Recipe(**parts | {"method": current(parts["method"])})
    problems += check(changed)
    if problems:
        raise UsageError("the recipe has problems:\n" + listed(problems), "`zolite train --help` lists the settings")
    return changed


def _of_task(changes: dict[str, Any]) -> dict[str, Any]:
    """What a published task sets, where one is asked for; UsageError with the nearest where there is none."""
    name = changes.get("data.task")
    if not (name and isinstance(name, str)):  # what is no text is refused as any setting is
        return {}
    return {f"data.{key}": value for key, value in catalog.task(name).data.items()}


def renewed(path: str, value: Any) -> tuple[str, Any]:
    """A setting as it is written now, where it was written as zolite 0.1 did: other names, or 0 for an open value."""
    path = RENAMED.get(path, path)
    if path in RENAMED_VALUES and isinstance(value, str) and value:
        names = RENAMED_VALUES[path]
        return path, re.sub(r"[\w-]+", lambda word: names.get(word[0], word[0]), value)
    if path.startswith("method.") and value != "":
        return path, composition.renamed(path, value)  # `current` knows of which of its numbers 0 is a value
    return path, SETTINGS[path].renewed(value) if path in SETTINGS else value


def check(recipe: Recipe) -> list[str]:
    """Everything wrong with a recipe that can be seen without the model, the data or the machine."""
    a, d, t = recipe.adapter, recipe.data, recipe.train
    rules = (
        *_chosen(recipe),
        *_within(recipe),
        (a.alpha > 0, f"adapter.alpha is {a.alpha:g}, not above 0"),
        (
            not (a.start and a.space in SPACES and SPACES[a.space].bases),
            "adapter.start: a core cannot hold any adapter; take space lora",
        ),
        (
            t.microbatch is None or t.microbatch <= t.batch,
            f"train.microbatch is {t.microbatch}, above train.batch ({t.batch})",
        ),
        (d.dev_share is None or 0 < d.dev_share < 1, f"data.dev_share is {d.dev_share}, not between 0 and 1"),
        (t.epochs is None or t.epochs > 0, f"train.epochs is {t.epochs}, not above 0"),
        (t.lr is None or t.lr > 0, f"train.lr is {t.lr}, not above 0"),
        (t.eps is None or t.eps > 0, f"train.eps is {t.eps}, not above 0"),
        (t.disk_gib > 0, f"train.disk_gib is {t.disk_gib:g}, not above 0"),
        (t.vram_gib > 0, f"train.vram_gib is {t.vram_gib:g}, not above 0"),
    )
    problems = [message for holds, message in rules if not holds] + list(_unread(d))
    return problems + composition.check(recipe.method, t.queries, t.batch)


def _unread(data: DataPart) -> Iterator[str]:
    """What is wrong with settings that are lists in a text."""
    readers: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("template_args", arguments), ("columns", pairs), ("verbalizer", pairs),
    )  # fmt: skip
    for name, reader in readers:
        try:
            reader(getattr(data, name))
        except ValueError as error:
            yield f"data.{name}: {error}"


LIMITS: dict[str, tuple[float, float]] = {
    "adapter.rank": (1, 1024),
    "data.context": (8, math.inf),
    "data.split_seed": (0, 2**63 - 1),
    "train.steps": (1, math.inf),
    "train.batch": (1, math.inf),
    "train.microbatch": (1, math.inf),
    "train.copies": (1, 64),
    "train.queries": (1, 256),
    "train.seed": (0, 2**63 - 1),
    "train.eval_every": (1, math.inf),
    "train.eval_rows": (1, math.inf),
    "train.patience": (1, math.inf),
    "train.save_every": (1, math.inf),
}
"""The least and the most of every whole number."""


def _within(recipe: Recipe) -> Iterator[tuple[bool, str]]:
    for path, (least, most) in LIMITS.items():
        value = at(recipe, path)
        allowed = f"below {least}" if most == math.inf else f"not {least} to {most}"
        yield value is None or least <= value <= most, f"{path} is {value}, {allowed}"


def _chosen(recipe: Recipe) -> Iterator[tuple[bool, str]]:
    """Of the method's own, `composition.check` says more."""
    for path, each in SETTINGS.items():
        value, choices = at(recipe, path), each.meaning.choices
        if choices and not path.startswith("method."):
            yield value is None or value in choices, f"{path} is {value!r}, not one of {', '.join(choices)}"


def at(recipe: Recipe, path: str) -> Any:
    """The value of a setting."""
    part, _, key = path.partition(".")
    return getattr(getattr(recipe, part), key)


def _leaves(values: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """(table, key, value); what stands outside a table gets an empty key, which is no setting's."""
    tables = {part: table if isinstance(table, dict) else {"": table} for part, table in values.items()}
    return [(part, key, value) for part, table in tables.items() for key, value in table.items()]


def _nearest(path: str) -> str:
    known = {each.rpartition(".")[2]: each for each in reversed(SETTINGS)}
    close = difflib.get_close_matches(path.rstrip(".").rpartition(".")[2], known, 1)
    return f" (did you mean {known[close[0]]}?)" if close else ""
