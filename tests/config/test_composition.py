"""Claims about methods as settings: what is open, what old files mean, what costs and step sizes follow."""

import dataclasses
import math
from typing import Any

import pytest

from zolite.config import recipe as recipes
from zolite.config.composition import renamed, resolved, step_sizes, written
from zolite.config.methods import (
    ESTIMATORS,
    METHODS,
    RENAMED_VALUES,
    RULES,
    SAMPLERS,
    WRAPPERS,
    MethodPart,
    ResolvedMethod,
)
from zolite.config.recipe import Recipe
from zolite.config.spaces import SPACES

UNREAD = {"rank": 0, "every": 0, "probes": 0, "delta": 0.0, "pool": 0, "share": 0.0, "smooth": 0.0, "clip": 0.0,
          "beta": 0.0, "beta2": 0.0}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_open_in_a_resolved_method(name: str) -> None:
    """It names all its parts and their numbers; written down it is short, and read again it is the same."""
    m = resolved(MethodPart(name))
    assert isinstance(m, ResolvedMethod) and resolved(m) is m
    assert all(getattr(m, f.name) is not None for f in dataclasses.fields(m))
    assert resolved(written(m)) == m
    left = {f.name for f in dataclasses.fields(m) if getattr(written(m), f.name) is None}
    assert left == {key for key, nothing in UNREAD.items() if getattr(m, key) == nothing}


def old(name: str, **given: Any) -> dict[str, Any]:
    """The table of a method as sessions of zolite 0.1 hold it: 0 for what no part reads."""
    m = resolved(MethodPart(name))
    signs = {"sampler": m.sampler.replace("rademacher", "signs")}
    rule = {"rule": [{"std-normalize": "spread"}.get(r, r) for r in m.rule]}
    return dataclasses.asdict(m) | signs | rule | given


@pytest.mark.parametrize("name", METHODS)
def test_old_tables_are_read(name: str) -> None:
    """Names and zeros of old sessions mean what they meant."""
    found = recipes.from_dict({"method": old(name, optimizer="file")}).method
    assert dataclasses.replace(resolved(found), optimizer="") == resolved(MethodPart(name))


def test_old_names_are_read_inside_of_others() -> None:
    """By one table; a name that only contains an old one stays."""
    assert RENAMED_VALUES["method.sampler"] == {"signs": "rademacher"}
    assert recipes.override(Recipe(), {"method.sampler": "guided( signs )"}).method.sampler == "guided( rademacher )"
    assert renamed("method.sampler", "my-signs") == "my-signs" and renamed("data.path", "signs") == "signs"
    assert renamed("method.rule", "spread,momentum") == "std-normalize,momentum"
    assert renamed("method.rule", ["spread", "momentum"]) == ["std-normalize", "momentum"]


def test_zero_is_a_value_where_it_means_something() -> None:
    """P-GAP without the part along its gradient, momentum that keeps nothing; a rank of 0 is none, and left open."""
    assert resolved(recipes.override(Recipe(), {"method.name": "pgap", "method.delta": 0}).method).delta == 0
    momentum = recipes.override(Recipe(), {"method.name": "mezo-momentum", "method.beta": "0"})
    assert resolved(momentum.method).beta == 0
    kept = recipes.from_dict(recipes.to_dict(recipes.resolve(momentum)))
    assert resolved(kept.method).beta == 0
    assert recipes.override(Recipe(), {"method.name": "lozo", "method.rank": 0}).method.rank is None


def test_no_rule_is_a_choice() -> None:
    """An empty list takes mezo-rms's rule away, in a file and in a session; nothing at all leaves it as it is."""
    bare = recipes.from_dict({"method": {"name": "mezo-rms", "rule": []}})
    again = recipes.from_dict(recipes.to_dict(recipes.resolve(bare)))
    assert resolved(bare.method).rule == resolved(again.method).rule == ()
    assert resolved(recipes.from_dict({"method": {"name": "mezo-rms"}}).method).rule == ("rms",)


def test_other_parts_for_a_resolved_method() -> None:
    """Numbers that it did not read are open for the parts that do."""
    mezo = recipes.resolve(Recipe())
    m = recipes.resolve(recipes.override(mezo, {"method.sampler": "aligned"})).method
    assert (m.rank, m.every, m.probes, m.delta) == (8, 100, 10, 2.0)


@pytest.mark.parametrize("space", SPACES)
def test_step_sizes_without_a_measurement(space: str) -> None:
    """MeZO's by the length of directions; a length of a step for what takes the gradient's size away."""
    lr, eps, step = SPACES[space].step_sizes
    chosen = {name: step_sizes(MethodPart(name), space) for name in METHODS}
    assert chosen["mezo"] == (lr, eps) and chosen["mezo-gv"] == pytest.approx((lr, eps))
    assert chosen["mezo-momentum"] == pytest.approx((lr / 10, eps))
    assert chosen["lozo"] == pytest.approx((lr / 2, eps / math.sqrt(2)))
    assert chosen["mezo-rms"] == chosen["fzoo"] == pytest.approx((step, eps))
    assert chosen["mezo-sign"] == chosen["mezo-adam"] == pytest.approx((0.3 * step, eps))
    assert chosen["grzo"] == pytest.approx((10 * step * eps, eps))
    assert step_sizes(MethodPart("mezo-sign"), space, (1.0, 0.5, 0.25)) == pytest.approx((0.075, 0.5))


def test_the_last_piece_decides_the_length_of_a_step() -> None:
    """Adam behind a normalized estimate steps as Adam does."""
    m = MethodPart(sampler="rademacher", estimator="one-sided", rule=("std-normalize", "adam"))
    assert step_sizes(m, "lora") == step_sizes(MethodPart("mezo-adam"), "lora")


def test_rows_are_whole() -> None:
    """Every piece says what it is, and reads only settings that exist; a formula goes with a state."""
    known = {f.name for f in dataclasses.fields(MethodPart)} | {"queries"}
    for table in (SAMPLERS, WRAPPERS, ESTIMATORS, RULES):
        for name, piece in table.items():
            assert piece.summary and piece.numbers.keys() <= known, name
            m = resolved(MethodPart("mezo", rank=2))
            assert (piece.formula == "0") == (piece.state(m, {"w": (3, 4), "b": (2,)}) == 0), name


def test_spaces() -> None:
    """Every factor is trained or frozen in a space, not both, and every space cites its paper."""
    for row in SPACES.values():
        assert row.trained and not set(row.trained) & set(row.frozen) and "arXiv" in row.paper
