"""Claims about the recipe: one place for defaults and checks, told in full, the same through every form."""

import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.common.errors import UsageError
from zolite.config import catalog
from zolite.config import recipe as recipes
from zolite.config.methods import METHODS, MethodPart
from zolite.config.recipe import (
    QUANTS,
    SCHEDULES,
    SETTINGS,
    AdapterPart,
    DataPart,
    ModelPart,
    Recipe,
    ResolvedRecipe,
    TrainPart,
    at,
)
from zolite.config.spaces import SPACES

DEMO = Path(__file__).parents[2] / "zolite" / "demo" / "recipe.toml"
PATHS = list(SETTINGS)

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
NAME = st.text("abcdefgh_.", min_size=1, max_size=8)
PLAIN = ("mezo", "mezo-adam", "lozo-m", "pgap", "mezo-gv", "hizoo", "subzero")  # legal with any other setting
COUNT = st.integers(1, 10**6)
SIZE = st.floats(1e-9, 10)
LIMIT = COUNT | st.just(math.inf)
RECIPES = st.builds(
    Recipe,
    st.builds(ModelPart, TEXT, st.sampled_from(QUANTS), TEXT),
    st.builds(
        AdapterPart,
        st.none() | st.sampled_from(list(SPACES)),
        st.none() | st.integers(1, 1024),
        st.floats(1e-6, 1e6),
        st.none() | st.lists(NAME, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(DataPart, TEXT, TEXT.map(lambda text: text + "{label}"), st.integers(8, 10**6)),
    st.builds(
        MethodPart, st.sampled_from(PLAIN), rank=st.none() | st.integers(1, 8), pool=st.sampled_from((None, 4, 8))
    ),
    st.builds(
        TrainPart,
        steps=COUNT,
        epochs=st.none() | st.floats(1e-3, 100),
        batch=st.integers(64, 512),
        microbatch=st.none() | st.integers(1, 64),
        copies=st.none() | st.integers(1, 64),
        queries=st.none() | st.integers(1, 256),
        lr=st.none() | SIZE,
        eps=st.none() | SIZE,
        schedule=st.sampled_from(SCHEDULES),
        seed=st.integers(0, 99) | st.sampled_from((2**62 + 1, 2**63 - 1)),  # also what no float holds
        eval_every=st.none() | COUNT,
        eval_rows=st.none() | COUNT,
        patience=LIMIT,
        save_every=st.none() | COUNT,
        vram_gib=SIZE | st.just(math.inf),
    ),
)


def message(values: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as error:
        recipes.from_dict(values)
    assert error.value.exit_code == 2 and error.value.hint
    return error.value.message


def test_all_problems_at_once() -> None:
    """Unknown keys, values of the wrong type and values out of range are told together, each once with its value."""
    told = message(
        {
            "model": {"quant": "int3"},
            "adapter": {"rank": -1, "colour": "red"},
            "train": {"steps": "many", "copies": 65, "lr": -1},
        }
    )
    expected = (
        "'int3'",
        "adapter.rank is -1",
        "adapter.colour",
        "train.steps: 'many'",
        "train.copies is 65",
        "lr is -1",
    )
    assert all(told.count(part) == 1 for part in expected)
    assert len(told.splitlines()) == 1 + len(expected)


@pytest.mark.parametrize(
    ("path", "low", "high"),
    [
        ("adapter.rank", 1, 1024),
        ("data.context", 8, 10**9),
        ("train.steps", 1, 10**9),
        ("train.batch", 1, 10**9),
        ("train.microbatch", 1, 16),
        ("train.copies", 1, 64),
        ("train.queries", 1, 256),
        ("train.epochs", 1e-9, 1e9),
        ("train.lr", 1e-9, 1e9),
        ("train.eps", 1e-9, 1e9),
        ("train.disk_gib", 1e-9, 1e9),
        ("train.vram_gib", 1e-9, 1e9),
        ("train.seed", 0, 2**63 - 1),
        ("train.eval_every", 1, 10**9),
        ("train.eval_rows", 1, 10**9),
        ("train.patience", 1, 10**9),
        ("train.save_every", 1, 10**9),
    ],
)
def test_ranges(path: str, low: float, high: float) -> None:
    """Each number is taken at both ends of its range and refused below, and above where the range ends."""
    for value in (low, high):
        assert at(recipes.override(Recipe(), {path: value}), path) == value
    below = -1 if low in (0, 1) else low - 1  # 0 is how an open value was written before
    for value in (below, high + 1) if high not in (10**9, 1e9) else (below,):
        with pytest.raises(UsageError, match=f"{path} is"):
            recipes.override(Recipe(), {path: value})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.quant", "int4"),
        ("adapter.space", "LORA"),
        ("adapter.alpha", 0),
        ("train.schedule", "cosine"),
    ],
)
def test_choices(path: str, value: Any) -> None:
    """A choice that does not exist is refused by name."""
    with pytest.raises(UsageError, match=path):
        recipes.override(Recipe(), {path: value})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("train.stepz", "train.steps"),
        ("trian.lr", "train.lr"),
        ("lr", "train.lr"),
        ("rank", "adapter.rank"),
        ("adapter.target", "adapter.targets"),
    ],
)
def test_suggests_the_near_one(wrong: str, meant: str) -> None:
    """An unknown setting is told with the one that was probably meant."""
    with pytest.raises(UsageError) as error:
        recipes.override(Recipe(), {wrong: 1})
    assert f"{wrong}: no such setting (did you mean {meant}?)" in error.value.message


@pytest.mark.parametrize(
    "part",
    ["kitchen", "train"],
)
def test_suggests_nothing_far(part: str) -> None:
    """Where nothing is near, nothing is suggested."""
    told = message({part: {"xyzzy": 1}})
    assert f"{part}.xyzzy: no such setting" in told and "did you mean" not in told


def test_outside_a_table() -> None:
    """A setting of a recipe file that stands outside every table is named."""
    assert "lr: no such setting (did you mean train.lr?)" in message({"lr": 1, "train": {"steps": 3}})


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("train.steps", "12", 12),
        ("train.steps", 12.0, 12),
        ("train.lr", "3e-3", 3e-3),
        ("train.lr", 1, 1.0),
        ("adapter.targets", "q_proj, v_proj,", ("q_proj", "v_proj")),
        ("adapter.targets", ["q_proj"], ("q_proj",)),
        ("adapter.targets", "auto", None),
        ("train.lr", "Auto", None),
        ("train.epochs", "0.5", 0.5),
        ("train.patience", "never", math.inf),
        ("train.patience", "7", 7),
        ("train.vram_gib", "none", math.inf),
        ("train.vram_gib", "off", math.inf),
        ("train.vram_gib", math.inf, math.inf),
        ("train.vram_gib", "inf", math.inf),
        ("model.name", "a/b", "a/b"),
        ("model.device", "auto", "auto"),
    ],
)
def test_conversion(path: str, text: Any, value: Any) -> None:
    """Text from the command line and values from a file become the setting's own type."""
    got = at(recipes.override(Recipe(), {path: text}), path)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.steps", "1e3"),
        ("train.steps", 1.5),
        ("train.steps", True),
        ("train.steps", ""),
        ("train.steps", float("inf")),
        ("train.lr", "nan"),
        ("train.lr", float("inf")),
        ("train.lr", "small"),
        ("train.lr", False),
        ("train.lr", [1.0]),
        ("train.lr", "never"),
        ("train.steps", "auto"),
        ("train.patience", 2.5),
        ("train.patience", "auto"),
        ("model.name", 3),
        ("model.quant", True),
    ],
)
def test_wrong_types(path: str, value: Any) -> None:
    """A value that cannot be the setting's type is told with the setting and the value."""
    with pytest.raises(UsageError) as error:
        recipes.override(Recipe(), {path: value})
    assert f"{path}: {value!r} is not" in error.value.message


@pytest.mark.parametrize(
    ("path", "value"),
    [("adapter.targets", 5), ("adapter.targets", True), ("train.lr", 10**400)],
)
def test_wrong_types_of_a_file(path: str, value: Any) -> None:
    """No value that TOML can hold breaks the conversion."""
    with pytest.raises(UsageError, match=path):
        recipes.override(Recipe(), {path: value})


@settings(deadline=None)
@given(RECIPES)
def test_round_trip(recipe: Recipe) -> None:
    """A recipe comes back the same from its tables, from TOML, and from each setting as a person types it."""
    tables = recipes.to_dict(recipe)
    assert recipes.from_dict(tables) == recipe
    assert recipes.from_dict(tomllib.loads(tomli_w.dumps(tables))) == recipe
    assert recipes.from_dict(json.loads(json.dumps(recipes.to_json(recipe), allow_nan=False))) == recipe
    assert (
        recipes.override(Recipe(), {path: each.spelled(at(recipe, path)) for path, each in SETTINGS.items()}) == recipe
    )


@settings(deadline=None)
@given(RECIPES)
def test_resolve(recipe: Recipe) -> None:
    """Resolving fills what was left open, keeps what was given, passes the checks, and does nothing the second time."""
    resolved = recipes.resolve(recipe, rows=1000)
    assert recipes.resolve(resolved) == resolved and recipes.check(resolved) == []
    assert recipes.resolved_from_dict(tomllib.loads(tomli_w.dumps(recipes.to_dict(resolved)))) == resolved
    by_epochs = {"train.epochs", "train.steps"} if recipe.train.epochs else {"train.epochs"}
    for path in {*PATHS} - by_epochs:
        given_, got = at(recipe, path), at(resolved, path)
        assert got is not None or path.startswith("method.") or path == "data.dev_share"  # there auto is a rule
        assert got == given_ or given_ is None or (path.startswith("method.") and not given_), path
    assert 1 <= resolved.train.microbatch <= resolved.train.batch


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 64))
def test_evaluations_cost_a_tenth_at_most(steps: int, batch: int) -> None:
    """Of the rows that two-point steps read; but dev is always looked at twice, 50 rows of it at least."""
    t = recipes.resolve(recipes.override(Recipe(), {"train.steps": steps, "train.batch": batch})).train
    looks = 1 + math.ceil(steps / t.eval_every)
    assert 2 <= looks <= 41 and 50 <= t.eval_rows <= 500 and t.save_every == max(1, -(-steps // 10))
    assert looks * t.eval_rows <= steps * batch * 2 / 10 or (looks, t.eval_rows) == (2, 50)


@pytest.mark.parametrize(
    ("given_", "filled"),
    [
        ({}, (182, 500)),
        ({"steps": 20000}, (500, 500)),
        ({"eval_every": 20}, (20, 63)),
        ({"eval_rows": 2000}, (1000, 2000)),
        ({"steps": 20}, (20, 50)),
    ],
)
def test_what_is_given_of_evaluations_stays(given_: dict[str, int], filled: tuple[int, int]) -> None:
    """Of how often and how many rows, the one that is open follows the other."""
    t = recipes.resolve(recipes.override(Recipe(), {f"train.{k}": v for k, v in given_.items()})).train
    assert (t.eval_every, t.eval_rows) == filled


@pytest.mark.parametrize(("epochs", "rows", "steps"), [(2, 800, 100), (0.5, 100, 4), (1, 1, 1), (3, 17, 4)])
def test_epochs_are_steps_over_the_rows(epochs: float, rows: int, steps: int) -> None:
    """Epochs become as many batches as that many passes fill; steps that are asked for later count again."""
    asked = recipes.override(Recipe(), {"train.epochs": epochs})
    assert recipes.resolve(asked, rows=rows).train.steps == steps
    assert recipes.resolve(recipes.override(asked, {"train.steps": 7}), rows=rows).train.steps == 7
    assert any(f"{steps} steps: {epochs:g} epochs" in text for text in reasons_of(asked, rows))
    with pytest.raises(UsageError, match="how many rows there are is not known"):
        recipes.resolve(asked)


def reasons_of(asked: Recipe, rows: int) -> tuple[str, ...]:
    return recipes.reasons(asked, recipes.resolve(asked, rows=rows), 0, rows)


def test_space_by_rows() -> None:
    """lora-b and its linear probe where rows have labels, lora where they have none; what is given stays."""
    assert {n: recipes.resolve(Recipe(), n).adapter.space for n in (0, 2, 50)} == {0: "lora", 2: "lora-b", 50: "lora-b"}
    given_ = recipes.override(Recipe(), {"adapter.space": "lora-core"})
    assert recipes.resolve(given_, 2).adapter.space == recipes.resolve(given_).adapter.space == "lora-core"
    assert recipes.resolve(Recipe(), 2).train.lr > 5 * recipes.resolve(Recipe()).train.lr  # each its space's own


def test_rank_by_labels() -> None:
    """A linear probe of C labels has rank C − 1: lora-b has room for it, up to 64; other spaces have none."""
    ranks = {n: recipes.resolve(Recipe(), n).adapter.rank for n in (0, 2, 9, 10, 50, 500)}
    assert ranks == {0: 8, 2: 8, 9: 8, 10: 9, 50: 49, 500: 64}
    assert recipes.resolve(recipes.override(Recipe(), {"adapter.space": "lora-core"}), 50).adapter.rank == 32
    assert recipes.resolve(recipes.override(Recipe(), {"adapter.rank": 4}), 50).adapter.rank == 4
    space, rank, evaluations = recipes.reasons(Recipe(), recipes.resolve(Recipe(), 50), 50, 10**6)
    assert "lora-b" in space and "50 labels" in rank and "12 evaluations" in evaluations and "9%" in evaluations
    assert recipes.reasons(recipes.resolve(Recipe()), recipes.resolve(Recipe()), 0, 10) == ()
    assert "on 12 rows" in recipes.reasons(Recipe(), recipes.resolve(Recipe(), 50), 50, 12)[-1]


def test_override_keeps_the_rest() -> None:
    """Overriding changes what it names, and not the recipe it started from."""
    before = Recipe()
    after = recipes.override(before, {"train.lr": 0.5})
    assert before == Recipe() and after.train.lr == 0.5
    assert [path for path in PATHS if at(before, path) != at(after, path)] == ["train.lr"]


def test_meanings() -> None:
    """Every setting has a meaning of its own and its default, and no setting is missing."""
    parts = dataclasses.asdict(Recipe())
    assert [f"{part}.{key}" for part, keys in parts.items() for key in keys] == PATHS
    assert all(len(each.meaning.help) > 5 and each.default == at(Recipe(), path) for path, each in SETTINGS.items())
    assert len({each.meaning.help for each in SETTINGS.values()}) == len(SETTINGS)


def test_what_auto_means_is_explained() -> None:
    """A setting that may be left open says what zolite then takes; one with a limit says the word for none."""
    for each in SETTINGS.values():
        if not each.path.startswith("method."):
            assert each.open == ("auto: " in each.meaning.help), each.path
            assert not each.meaning.unlimited or f"{each.meaning.unlimited}: " in each.meaning.help, each.path


def test_flags_are_unique() -> None:
    """No two settings share a flag, and each is spelled as one."""
    flags = [flag for each in SETTINGS.values() for flag in each.meaning.flags]
    assert len(set(flags)) == len(flags) and all(flag.startswith("--") for flag in flags)
    assert {"--iters", "--epochs", "--model", "--batch-size", "--learning-rate"} <= set(flags)


BEFORE: dict[str, tuple[Any, str, Any]] = {
    "train.slots": (2, "train.copies", 2),
    "adapter.readout": (False, "adapter.linear_probe", False),
    "adapter.space": ("", "adapter.space", None),
    "adapter.targets": ([], "adapter.targets", None),
    "train.copies": ("0", "train.copies", None),
    "train.lr": (0.0, "train.lr", None),
    "train.eps": ("0.0", "train.eps", None),
    "train.patience": (0, "train.patience", math.inf),
    "train.vram_gib": (0.0, "train.vram_gib", math.inf),
    "train.seed": (0, "train.seed", 0),
    "adapter.start": ("", "adapter.start", ""),
}


@pytest.mark.parametrize("old", BEFORE)
def test_what_was_written_before_is_read(old: str) -> None:
    """Old names, and 0 or nothing for an open value or no limit; a 0 that always was one stays."""
    value, path, now = BEFORE[old]
    start = recipes.override(Recipe(), {"train.patience": 3, "train.vram_gib": 3, "train.seed": 3, "train.lr": 3})
    assert at(recipes.override(start, {old: value}), path) == now
    assert at(recipes.from_dict({old.partition(".")[0]: {old.partition(".")[2]: value}}), path) == now


def test_a_resolved_recipe_cannot_be_open() -> None:
    """What runs has no default for what is chosen, and what is asked of it again is a Recipe."""
    with pytest.raises(TypeError, match="'lr'"):
        recipes.ResolvedTrain()  # type: ignore[call-arg]
    resolved = recipes.resolve(Recipe())
    asked = recipes.override(resolved, {"train.lr": "auto"})
    assert isinstance(resolved, ResolvedRecipe) and not isinstance(asked, ResolvedRecipe)
    assert asked.train.lr is None and asked.train.eps == resolved.train.eps
    assert type(asked.train) is TrainPart and type(asked.adapter) is AdapterPart


def test_defaults() -> None:
    """The empty recipe passes its own checks."""
    assert recipes.check(Recipe()) == [] and recipes.from_dict({}) == Recipe()
    assert all(each.default is None for each in SETTINGS.values() if each.open)


def test_the_demos_recipe_loads() -> None:
    """It says more than the defaults, and names first the command to use it."""
    recipe = recipes.load(DEMO)
    assert recipe != Recipe() and recipes.check(recipes.resolve(recipe)) == []
    assert DEMO.read_text(encoding="utf-8").startswith("# zolite ")


@pytest.mark.parametrize("name", catalog.models())
def test_the_catalogues_recipes_load(name: str) -> None:
    """Each is a recipe file's content, as `--recipe NAME` takes it."""
    assert recipes.check(recipes.resolve(recipes.from_dict(dict(catalog.models()[name].recipe)))) == []


@pytest.mark.parametrize(("content", "part"), [(b"[train\n", "not TOML"), (b"[train]\nstepz = 1\n", "train.steps")])
def test_bad_files(tmp_path: Path, content: bytes, part: str) -> None:
    """A file that is no TOML, or no recipe, is told as the user's mistake."""
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=part):
        recipes.load(path)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named with the reason."""
    with pytest.raises(UsageError, match=r"none\.toml cannot be read: No such file"):
        recipes.load(tmp_path / "none.toml")


def test_file_in_another_encoding(tmp_path: Path) -> None:
    """A file that is not UTF-8, as PowerShell's > writes it, is told as the user's mistake."""
    path = tmp_path / "recipe.toml"
    path.write_text("[train]\nsteps = 3\n", encoding="utf-16")
    with pytest.raises(UsageError, match="UTF-8"):
        recipes.load(path)


# Methods


@pytest.mark.parametrize("name", METHODS)
def test_rows_resolve(name: str) -> None:
    """A row's name decides parts and numbers; what is given stays; resolving again changes nothing."""
    given_ = {"method.name": name, "method.rank": 3, "method.optimizer": "file"}
    resolved = recipes.resolve(recipes.override(Recipe(), given_))
    m, t = resolved.method, resolved.train
    assert (
        m.sampler and m.estimator and m.rank == 3 and t.queries >= 1 and t.lr > 0 and t.eps > 0 and 1 <= t.copies <= 8
    )
    assert recipes.resolve(resolved) == resolved == recipes.resolved_from_dict(recipes.to_dict(resolved))


def test_a_new_name_takes_its_own_parts() -> None:
    """Another name for a resolved recipe does not leave the first one's parts behind."""
    lozo = recipes.resolve(recipes.override(Recipe(), {"method.name": "lozo-m"}))
    assert recipes.resolve(recipes.override(lozo, {"method.name": "fzoo"})).method.sampler == "rademacher"


def test_a_composition_from_toml(tmp_path: Path) -> None:
    """A table of parts is a method."""
    path = tmp_path / "recipe.toml"
    path.write_text('method = { sampler = "guided(low-rank)", estimator = "two-sided", rule = ["clip", "momentum"] }')
    m = recipes.resolve(recipes.load(path)).method
    assert (m.sampler, m.estimator, m.rule) == ("guided(low-rank)", "two-sided", ("clip", "momentum"))
    assert (m.pool, m.share, m.rank, m.every, m.clip, m.beta) == (4, 0.5, 2, 50, 100.0, 0.9)


def test_step_sizes_follow_the_directions_length() -> None:
    """A direction c times as long takes ε / c and η / c²: LOZO's of rank r is √r times mezo's."""
    mezo, lozo = (
        recipes.resolve(recipes.override(Recipe(), {"method.name": n, "method.rank": 4})).train
        for n in ("mezo", "lozo")
    )
    assert lozo.lr == pytest.approx(mezo.lr / 4) and lozo.eps == pytest.approx(mezo.eps / 2)


REFUSED = {
    "unknown name": ({"name": "adam"}, "method.name is 'adam', not one of mezo"),
    "unknown sampler": ({"sampler": "uniform"}, "does not end in one of normal"),
    "unknown wrapper": ({"sampler": "best(normal)"}, "only guided, greedy, learned go around another"),
    "unknown rule": ({"rule": ["nesterov"]}, "there are sign"),
    "pool of two": ({"name": "mezo-gv", "pool": 2}, "the estimate is even in z₁ − z₂"),
    "greedy pool of two": ({"name": "mezo-greedy", "pool": 2}, "the estimate is even in z₁ − z₂"),
    "one side empty": ({"name": "mezo-gv", "share": 0.1}, "leaves one side empty"),
    "learned outside": (
        {"sampler": "learned(guided(normal))", "optimizer": "f"},
        "would scale a direction after it was ranked",
    ),
    "guided greedy": ({"sampler": "guided(greedy(normal))"}, "choose one"),
    "twice": ({"sampler": "guided(guided(normal))"}, "goes around itself"),
    "two momenta": ({"rule": ["momentum", "adam"]}, "one kind of momentum is enough"),
    "clip after": ({"rule": ["momentum", "clip"]}, "must come before momentum"),
    "normalize of one": ({"rule": ["std-normalize"]}, "train.queries must be 2 or more"),
    "U of nothing": ({"rule": ["factor-momentum"]}, "keeps the U of U Vᵀ"),
    "curvature low-rank": ({"estimator": "curvature", "sampler": "low-rank"}, "take normal or rademacher"),
    "curvature guided": ({"estimator": "curvature", "sampler": "guided(normal)"}, "take normal"),
    "per-example low-rank": ({"estimator": "per-example", "sampler": "low-rank"}, "draws its own directions"),
    "activation two-sided": ({"sampler": "activation"}, "take activation with one-sided"),
    "learned without a file": ({"name": "zo-finetuner"}, "zolite learn-optimizer"),
    "rank": ({"rank": -1}, "method.rank is -1"),
    "beta": ({"rule": ["momentum"], "beta": 1.0}, "not 0 to below 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together(case: str) -> None:
    """Refused with the reason and what would be legal."""
    values, reason = REFUSED[case]
    assert reason in message({"method": values})


def test_per_example_needs_rows_to_compare() -> None:
    """One row, or several directions a row, make no sense of it."""
    told = message({"method": {"name": "grzo"}, "train": {"batch": 1, "queries": 2}})
    assert "train.batch must be 2 or more" in told and "train.queries cannot be 2" in told
