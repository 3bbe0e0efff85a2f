"""The command line's options, made from the settings that they set: names, help and type are those of the fields.

@takes("train.steps", "train.lr")
def command(given: Given, sets: Sets = None) -> None:
    recipe = recipes.override(Recipe(), changes(given, sets))
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer

from zolite.common.errors import UsageError
from zolite.common.text import parsed_bytes
from zolite.config import recipe as recipes
from zolite.config.fields import Setting

Command = Callable[..., None]
Given = dict[str, Any]
"""What was given of the settings that a command takes, by their paths."""

Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting of the recipe")]


def lines(text: str | None) -> str | None:
    """A shell hands on backslash and n as two characters; who types them means a new line."""
    return text.replace("\\n", "\n") if text else text


def gib(text: str | None) -> str | None:
    """A size as people write it, in GiB."""
    if text is None or text.lower() == recipes.SETTINGS["train.vram_gib"].meaning.unlimited:
        return text
    try:
        return f"{parsed_bytes(text) / 2**30}"
    except ValueError:
        raise UsageError(f"--vram {text!r} is not a size", "for example --vram 8GiB") from None


READ: Mapping[str, Callable[[str | None], str | None]] = {"data.template": lines, "train.vram_gib": gib}
METAVARS = {"model.name": "MODEL", "data.path": "PATH", "data.columns": "NAME=COLUMN,…", "train.vram_gib": "SIZE"}
MORE = {"data.template": r"; \n is a new line"}  # what only the command line has to say


def takes(*paths: str, helps: Mapping[str, str] | None = None) -> Callable[[Command], Command]:
    """Gives a command an option for each of these settings; its argument `given` holds those that were used.

    `helps` are texts in the place of the settings' own, by path.
    """

    def decorate(command: Command) -> Command:
        options = [option for path in paths for option in _options(recipes.SETTINGS[path], helps or {})]
        own = inspect.signature(command)
        names = {_name(path): path for path in _with_former(paths)}

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {path: values.pop(name) for name, path in names.items()}
            command(**values, given={path: value for path, value in given.items() if value is not None})

        expanded = ([each] if each.name != "given" else options for each in own.parameters.values())
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for part in expanded for each in part]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _with_former(paths: tuple[str, ...]) -> Iterator[str]:
    for path in paths:
        yield path
        if was := recipes.SETTINGS[path].meaning.was:
            yield was


def _name(path: str) -> str:
    return path.replace(".", "_")


def _options(each: Setting, helps: Mapping[str, str]) -> Iterator[inspect.Parameter]:
    """Of a setting, and a hidden one by its former name."""
    meaning = each.meaning
    number = each.kind in (int, float)
    kind: Any = each.kind if number and not each.open and not meaning.unlimited else str  # words are no numbers
    metavar = METAVARS.get(each.path, f"<{each.kind.__name__}|auto>" if number and each.open else None)
    text = helps.get(each.path) or meaning.help + MORE.get(each.path, "")
    if meaning.choices and each.path != "method.name":  # of which there are many: `zolite methods` lists them
        text = f"{text} ({', '.join(filter(None, meaning.choices))})"
    kind = bool if each.kind is bool else kind
    option = typer.Option(*meaning.flags, help=text, metavar=metavar, callback=READ.get(each.path))
    yield _optional(each.path, kind, option)
    if meaning.was:
        yield _optional(meaning.was, kind, typer.Option(f"--{meaning.was.rpartition('.')[2]}", hidden=True))


def _optional(path: str, kind: Any, option: Any) -> inspect.Parameter:
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(_name(path), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def changes(given: Given, sets: list[str] | None = None) -> dict[str, Any]:
    """All that was asked for, by path; one note on stderr where it was written as zolite 0.1 did."""
    asked = given | _set(sets)
    if {"train.steps", "train.epochs"} <= asked.keys():
        raise UsageError("both --steps and --epochs say how long a run is", "give one of them")
    renewed = {path: recipes.renewed(path, value) for path, value in asked.items()}
    if old := [path for path, now in renewed.items() if now != (path, asked[path])]:
        texts = (f"{path}={asked[path]} is now {'='.join(map(str, renewed[path]))}" for path in old)
        print(f"note: {'; '.join(texts)}; the next version will not read the old form", file=sys.stderr)
    return dict(renewed.values())


def _set(sets: list[str] | None) -> dict[str, str]:
    if bad := [item for item in sets or [] if "=" not in item]:
        raise UsageError(f"--set {bad[0]!r} is not KEY=VALUE", "for example --set train.eval_every=100")
    values = {key.strip(): value for key, _, value in (item.partition("=") for item in sets or [])}
    return values | {key: lines(values[key]) or "" for key in values.keys() & {"data.template"}}


def model_of(argument: str | None, given: Given) -> str | None:
    """MODEL, which may be given as an argument or as --model."""
    option = given.pop("model.name", None)
    if argument and option and argument != option:
        raise UsageError(f"two models: {argument} and --model {option}", "give one of them")
    return argument or option
