"""Claims about what a resume takes for the same run: the tokens that its rows become, whatever the day."""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from zolite.common.errors import UsageError
from zolite.common.events import Noted
from zolite.config.recipe import Recipe
from zolite.sessions import manage
from zolite.sessions import session as sessions
from zolite.training import prepare as preparing
from zolite.training.replay import factors_at
from zolite.training.resume import began, begin, resume
from zolite.training.score import score

Make = Callable[..., Recipe]
DATED = (
    "Today is {{ strftime_now('%d %B %Y') }}\n{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Clock:
    """datetime, as prepare.py asks it."""

    fromisoformat = datetime.fromisoformat
    day = 1

    @classmethod
    def now(cls) -> datetime:
        return datetime(2026, 11, cls.day, 10, 30)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(preparing, "datetime", Clock)
    monkeypatch.setattr(Clock, "day", 1)
    return Clock


@pytest.fixture
def dated(tiny: Path, tmp_path: Path) -> Path:
    """A model whose chat template tells the day."""
    model = tmp_path / "dated"
    shutil.copytree(tiny, model)
    (model / "chat_template.jinja").write_text(DATED, encoding="utf-8")
    return model


@pytest.fixture
def made(recipe: Make, folder: Callable[..., Path], dated: Path) -> Recipe:
    return recipe(
        model__name=str(dated), data__path=str(folder("messages")), train__steps=4, train__save_every=2, train__lr=1e-2
    )


def on(recipe: Recipe, name: str) -> None:
    list(begin(recipe, name, lambda: False))


def again(name: str, **given: Any) -> list[Any]:
    return list(resume(name, given, False, lambda: False))


def numbers(name: str) -> dict[str, torch.Tensor]:
    with sessions.open_(name) as session:
        return factors_at(session)[1]


def same(one: str, other: str) -> bool:
    pairs = numbers(one), numbers(other)
    return all(torch.equal(pairs[0][key], pairs[1][key]) for key in pairs[0])


def test_the_date_is_that_of_the_first_day(made: Recipe, clock: type[Clock], tmp_path: Path) -> None:
    """A run that is rewound and resumed on another day is the run straight through; one begun then is not."""
    for name in ("straight", "parted"):
        on(made, name)
    manage.rewind("parted", 2)
    clock.day = 2
    again("parted")
    on(made, "later")
    assert same("straight", "parted") and not same("straight", "later")
    rows = Path(made.data.path) / "test.jsonl"
    values = [score(name, rows, {}).value for name in ("straight", "parted")]
    assert values[0] == values[1]


def facts(name: str) -> dict[str, Any]:
    with sessions.open_(name) as session:
        return dict(session.facts)


def test_a_session_records_its_date_and_tokens(made: Recipe, clock: type[Clock]) -> None:
    """The tokens of the same rows are other ones on another day."""
    on(made, "one")
    clock.day = 2
    on(made, "two")
    assert facts("one")["now"] == "2026-11-01T10:30:00" and facts("two")["now"] == "2026-11-02T10:30:00"
    assert facts("one")["data"] == facts("two")["data"] and facts("one")["tokens"] != facts("two")["tokens"]


def edited(model: Path) -> None:
    path = model / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8").replace("Today is", "It is"), encoding="utf-8")


def begun_of_old(name: str) -> None:
    """As sessions were before they had these facts."""
    with sessions.open_(name, write=True) as session:
        session.amend(session.recipe, {k: v for k, v in session.facts.items() if k not in ("now", "tokens")})


def test_an_edited_template_is_another_run(made: Recipe, dated: Path, clock: type[Clock]) -> None:
    """It is refused as changed rows are, and --force goes on by it, with a warning."""
    on(made, "run")
    manage.rewind("run", 2)
    edited(dated)
    with pytest.raises(UsageError, match=r"what the rows become as tokens .* is not the same: was") as caught:
        again("run")
    assert "--force" in caught.value.hint
    events = list(resume("run", {}, True, lambda: False))
    assert any("as tokens" in event.message for event in events if isinstance(event, Noted))
    assert facts("run")["now"] == "2026-11-01T10:30:00"


def test_what_was_not_recorded_is_no_difference(made: Recipe, dated: Path, clock: type[Clock]) -> None:
    """A session that was begun before there were these facts goes on, and takes the day on which it was made."""
    on(made, "old")
    manage.rewind("old", 0)
    begun_of_old("old")
    with sessions.open_("old") as session:
        assert began(session) == datetime.fromtimestamp(int(session.created))
    again("old")
    assert "tokens" not in facts("old")


def test_arguments_are_part_of_the_run(recipe: Make, made: Recipe, dated: Path, clock: type[Clock]) -> None:
    """Another argument of the template is another run; the recorded one holds for evaluations."""
    template = DATED.replace("Today is", "{{ mood }} is")
    (dated / "chat_template.jinja").write_text(template, encoding="utf-8")
    moods = [recipe(**{
        "model.name": str(dated), "data.path": made.data.path, "train.steps": 2, "data.template_args": f"mood={mood}",
    }) for mood in ("glad", "sad")]  # fmt: skip
    for name, each in zip(("glad", "sad"), moods, strict=True):
        on(each, name)
    assert facts("glad")["tokens"] != facts("sad")["tokens"]
    manage.rewind("glad", 1)
    with pytest.raises(UsageError, match="template_args was 'mood=glad', is 'mood=sad'"):
        again("glad", **{"data.template_args": "mood=sad"})
    rows = Path(made.data.path) / "test.jsonl"
    assert score("glad", rows, {}).value != score("glad", rows, {"data.template_args": "mood=sad"}).value


def test_the_files_of_a_pattern_are_looked_for_again(
    recipe: Make, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any working directory, and one more file that fits is a change of the rows."""
    parts = folder()
    (parts / "train.jsonl").rename(parts / "part-1.jsonl")
    monkeypatch.chdir(parts)
    on(recipe(data__path="part-*.jsonl,test.jsonl", train__steps=4, train__save_every=2), "run")
    manage.rewind("run", 2)
    monkeypatch.chdir(tmp_path)
    again("run")
    manage.rewind("run", 2)
    shutil.copy(parts / "dev.jsonl", parts / "part-2.jsonl")
    with pytest.raises(UsageError, match="data is not the same: was"):
        again("run")
