"""Claims about training: what a step measures, what a resume continues, and what stops a run."""

import itertools
import json
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import Evaluated, Event, Finished, Noted, Saved, Started, StepDone
from zolite.config import recipe as recipes
from zolite.config.methods import METHODS
from zolite.config.recipe import Recipe
from zolite.config.spaces import SPACES
from zolite.engine.engine import Engine
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.training import journal_writer as writing
from zolite.training import run as run_module
from zolite.training.evaluate import evaluate
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.replay import factors_at
from zolite.training.resume import begin, resume
from zolite.training.run import batches_of, dev_sample, stepper
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import Key

Make = Callable[..., Recipe]


def forever() -> bool:
    return False


def after(steps: int) -> Callable[[], bool]:
    """A `stop` that lets so many steps happen: it is asked before each."""
    counter = itertools.count()
    return lambda: next(counter) >= steps


def run_all(recipe: Recipe, name: str, stop: Callable[[], bool] = forever) -> list[Event]:
    return list(begin(recipe, name, stop))


def factors(name: str) -> dict[str, Tensor]:
    with sessions.open_(name) as session:
        return factors_at(session)[1]


def rows_of(name: str) -> list[tuple[bytes, bytes, float, int]]:
    """What the journal says of every step, without times and memory."""
    with sessions.open_(name) as session:
        return [(r.coefs, r.losses, r.lr, r.flags) for r in session.journal.steps()]


def digest(name: str, step: int) -> str:
    with sessions.open_(name) as session:
        checkpoint = session.at(step)
    assert checkpoint is not None
    return checkpoint.digest


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def only(events: Sequence[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# What a step measures


def measured(recipe: Recipe, steps: int = 2) -> tuple[list[list[float]], list[float], int, Tensor]:
    """(losses of each step, coefficients, forwards of the decoder, theta) of a few steps outside a session."""
    run = prepare(recipe)
    forwards = []
    decoder = run.engine.loaded.model.get_decoder()
    decoder.register_forward_pre_hook(lambda *_: forwards.append(1))
    take = stepper(run)
    estimates = [take(batches_of(run, step), step) for step in range(steps)]
    losses = [e.losses.tolist() for e in estimates]
    return losses, [float(c) for e in estimates for c in e.coefs], len(forwards), run.space.theta.clone()


@pytest.mark.parametrize("kind", ["label", "completion"])
@pytest.mark.parametrize("quant", ["float32", "int8"])
def test_slots_do_not_change_the_losses(recipe: Make, folder: Callable[..., Path], quant: str, kind: str) -> None:
    """Two points in one forward have the losses of two forwards, and a step with as many copies as points is one."""
    data = str(folder(kind))
    one, two, four = (
        measured(recipe(data__path=data, model__quant=quant, train__copies=copies, train__queries=queries))
        for copies, queries in ((1, 2), (2, 2), (4, 2))
    )
    assert [m[2] for m in (one, two, four)] == [8, 4, 2]  # two steps of four points
    for other in (two, four):
        for a, b in zip(one[0], other[0], strict=True):
            assert len(a) == 4 and a == pytest.approx(b, rel=1e-5)
    assert one[0][0][0] != one[0][0][1]  # the points are not alike


@pytest.mark.parametrize("kind", ["label", "completion"])
@pytest.mark.parametrize("quant", ["float32", "int8"])
def test_microbatches_do_not_change_the_estimate(
    recipe: Make, folder: Callable[..., Path], quant: str, kind: str
) -> None:
    """One row a forward, two, four and two, or all six: the same losses, by tokens where rows have no labels."""
    data, found = str(folder(kind)), {}
    for microbatch in (1, 2, 4, 0):
        found[microbatch] = measured(recipe(data__path=data, model__quant=quant, train__microbatch=microbatch))
    whole = found.pop(0)
    for microbatch, (losses, coefs, forwards, _) in found.items():
        assert forwards == 2 * -(-6 // microbatch)
        assert losses[0] == pytest.approx(whole[0][0], rel=1e-5)
        # Differences of losses near 2, over 2ε = 0.02, keep 2 · 1e-7 / 0.02 of absolute error and a little more.
        assert coefs[0] == pytest.approx(whole[1][0], abs=2e-4)


def test_a_completion_loss_weighs_tokens_not_rows(recipe: Make, folder: Callable[..., Path], naive: Any) -> None:
    """The loss of a batch of answers of different lengths is nats a token, as one sum over all of them says."""
    run = prepare(recipe(data__path=str(folder("completion")), train__microbatch=2))
    batch = [run.examples["train"][i] for i in run.order.batch_at(0)]
    tokens = [len(row.queries) for row in batch]
    assert len(set(tokens)) > 1
    with torch.inference_mode():
        (got,) = run.engine.bind(batch)([Combo()]).tolist()
    plain = models.plain(models.resolve(run.recipe.model.name), "float32", torch.device("cpu"), Path("unused"))
    total = 0.0
    for row in batch:
        answer = [q.token for q in row.queries]
        total += naive.token_losses(plain, row.sequences[0][: row.queries[0].position + 1], answer)
    assert got == pytest.approx(total / sum(tokens), rel=1e-5)


def test_a_step_moves_theta_by_the_estimate(recipe: Make) -> None:
    """θ − lr · (L₊ − L₋) / 2ε · z, with the losses at θ ± εz on the step's batch, and nothing else moves."""
    run = prepare(recipe(train__lr=0.02, train__eps=0.01, train__schedule="constant", train__seed=5))
    before = run.space.theta.clone()
    estimate = stepper(run)(batches_of(run, 3), 3)
    z = torch.zeros_like(before)
    Noise(Key(5, 3)).add_to(z, 1.0, run.space)
    moved = run.space.theta - before
    plus, minus = estimate.losses.tolist()
    torch.testing.assert_close(moved, -0.02 * (plus - minus) / 0.02 * z, rtol=1e-5, atol=1e-7)
    again = prepare(recipe(data__path=run.recipe.data.path, train__copies=1, train__seed=5))
    rows = [again.examples["train"][i] for i in run.order.batch_at(3)]
    with torch.inference_mode():
        losses = again.engine.bind(rows)([Combo(((0.01, Noise(Key(5, 3))),)), Combo(((-0.01, Noise(Key(5, 3))),))])
    assert losses.tolist() == pytest.approx([plus, minus], rel=1e-5)


# A run as events


def test_what_a_run_says(recipe: Make) -> None:
    """Started, then a score and a checkpoint at 0, each step in order, scores and checkpoints as asked, and an end."""
    events = run_all(recipe(train__steps=5, train__eval_every=2, train__save_every=3), "run")
    (started,), steps = only(events, Started), only(events, StepDone)
    assert (started.session, started.step, started.steps) == ("run", 1, 5)
    assert started.trainable == sum(t.numel() for n, t in factors("run").items() if n.endswith(".b"))
    assert [s.step for s in steps] == [1, 2, 3, 4, 5]
    assert all(math.isfinite(s.loss) and not s.skipped for s in steps)
    assert [s.smooth for s in steps] == pytest.approx(
        [statistics.fmean(r.loss for r in steps[: s.step]) for s in steps]
    )
    assert [s.lr for s in steps] == pytest.approx([3e-3 * (5 - i) / 5 for i in range(5)])
    scores = only(events, Evaluated)
    assert [(e.step, e.split, e.metric, e.rows) for e in scores] == [(s, "dev", "accuracy", 8) for s in (0, 2, 4, 5)]
    better = [e.step for i, e in enumerate(scores) if all(e.value > before.value for before in scores[:i])]
    assert [e.step for e in only(events, Saved)] == sorted({0, 3, 5, *better})
    assert (events[-1].step, events[-1].reason, events[-1].skipped) == (5, "done", 0)
    for before, event in itertools.pairwise(events):
        if isinstance(event, Evaluated | Saved) and event.step:
            assert before.step == event.step  # after its step, not before
    with sessions.open_("run") as session:
        assert session.journal.last_step() == 5
        noted = [e for e in events if not isinstance(e, StepDone)]
        assert session.journal.events() == noted


def test_patience(recipe: Make) -> None:
    """A run whose dev does not get better ends early, as done; killed just before it said so, it ends there too."""
    still = recipe(train__steps=9, train__eval_every=2, train__lr=1e-12, train__patience=2)
    events = run_all(still, "run")
    assert (events[-1].step, events[-1].reason) == (4, "done")
    assert "no better 2 evaluations in a row" in only(events, Noted)[-1].message and [
        e.step for e in only(events, Evaluated)
    ] == [
        0,
        2,
        4,
    ]
    with pytest.raises(UsageError, match="no better 2 evaluations in a row") as refused:
        list(resume("run", {}, False, lambda: False))
    assert "train.patience=never" in refused.value.hint
    broken_off = begin(still, "killed", lambda: False)
    list(itertools.takewhile(lambda e: not (isinstance(e, Evaluated) and e.step == 4), broken_off))
    broken_off.close()  # type: ignore[attr-defined]
    (*_, last) = events = list(resume("killed", {}, False, lambda: False))
    assert (last.step, last.reason) == (4, "done") and not [e.step for e in only(events, StepDone) if e.step > 4]
    assert list(resume("run", {"train.patience": "never"}, False, lambda: False))[-1].step == 9
    assert (
        run_all(recipe(train__steps=9, train__eval_every=2, train__lr=1e-12, train__patience="never"), "on")[-1].step
        == 9
    )


@pytest.mark.parametrize(("wait", "taken"), [(0.0, [1, 2, 3, 4, 5, 6]), (1e9, [4, 4, 4, 4, 6, 6])])
def test_steps_are_said_and_journalled_in_time(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, wait: float, taken: list[int]
) -> None:
    """Slow steps are said one by one, quick ones together, no later than a score; what was said is journalled."""
    real, count = run_module.take_step, itertools.count(1)
    latest = 0

    def counted(*given: Any) -> Any:
        nonlocal latest
        latest = next(count)
        return real(*given)

    monkeypatch.setattr(run_module, "take_step", counted)
    monkeypatch.setitem(writing.FLUSH_SECONDS, "cpu", wait)
    run, found = prepare(recipe(train__steps=6, train__eval_every=4, train__save_every=4)), []
    with sessions.create("run", run.recipe, run.facts) as session:
        for event in train(run, session):
            if isinstance(event, StepDone):
                found.append(latest)
                assert session.journal.last_step() >= event.step
    assert found == taken


def test_completions_and_messages_are_scored_by_loss(recipe: Make, folder: Callable[..., Path]) -> None:
    """Rows without labels train too, and their metric is nats a token."""
    for kind in ("completion", "messages"):
        events = run_all(recipe(data__path=str(folder(kind)), train__steps=2), kind)
        scores = only(events, Evaluated)
        assert {e.metric for e in scores} == {"loss"}
        assert all(0 < e.value < 20 for e in scores)
        assert events[-1].reason == "done"


@pytest.mark.parametrize("at_once", [1, 200, 4096])
@pytest.mark.parametrize("kind", ["label", "completion"])
def test_scores_follow_their_definition(
    recipe: Make, folder: Callable[..., Path], naive: Any, kind: str, at_once: int
) -> None:
    """The share of rows whose right answer scores highest, or nats a token over all rows, whatever a forward holds."""
    run = prepare(recipe(data__path=str(folder(kind, dev=12))))
    plain = models.plain(models.resolve(run.recipe.model.name), "float32", torch.device("cpu"), Path("unused"))
    right, nats, tokens = 0, 0.0, 0
    for row in run.examples["dev"]:
        prompt = row.sequences[0][: min(q.position for q in row.queries) + 1]
        answers = [[q.token for q in row.queries if q.candidate == c] for c in range(row.candidates)]
        scores = [naive.mean_logprob(plain, prompt, answer) for answer in answers]
        right += scores.index(max(scores)) == row.answer
        nats, tokens = nats - scores[0] * len(answers[0]), tokens + len(answers[0])
    score = evaluate(run.engine, dev_sample(run), "dev", 0, at_once)  # the adapter adds nothing yet
    assert score.rows == 12
    assert score.value == pytest.approx(right / 12 if kind == "label" else nats / tokens, rel=1e-5)


def test_training_lowers_the_loss(recipe: Make, folder: Callable[..., Path]) -> None:
    """On labels of which three in four are the one that the model likes less, two hundred steps learn to prefer it."""
    data = str(folder(train=64, dev=32, labels=("no", "yes")))
    chosen = recipe(
        data__path=data, train__steps=200, train__batch=8, train__lr=3e-3, train__save_every=200, train__eval_every=200
    )
    events = run_all(chosen, "learns")
    losses = [e.loss for e in only(events, StepDone)]
    first, last = sum(losses[:20]) / 20, sum(losses[-20:]) / 20
    before, after_all = (e.value for e in only(events, Evaluated))
    assert last < 0.75 * first and last < math.log(2)
    assert after_all > before + 0.2


# Resuming


@pytest.mark.parametrize(
    ("method", "space", "quant"),
    [
        ("mezo", "lora", "float32"),
        ("spsa", "lora-b", "float32"),
        ("mezo", "lora-b", "int8"),
        ("spsa", "lora", "int8"),
        ("mezo", "lora-core", "int8"),
        ("spsa", "lora-core", "float32"),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(recipe: Make, home: Path, method: str, space: str, quant: str) -> None:
    """Stopped after five of twelve steps and resumed, or killed and resumed: the bits of a run straight through."""
    chosen = recipe(method__name=method, adapter__space=space, model__quant=quant, train__steps=12, train__queries=2)
    run_all(chosen, "straight")
    stopped = run_all(chosen, "stopped", after(5))
    assert stopped[-1].reason == "interrupted" and stopped[-1].step == 5
    shutil.copytree(home / "sessions" / "stopped", home / "sessions" / "killed")
    # A killed run has its steps in the journal and nothing of them anywhere else.
    for step in (4, 5):
        shutil.rmtree(home / "sessions" / "killed" / "checkpoints" / f"{step:06d}")
    for name in ("stopped", "killed"):
        events = list(resume(name, {}, False, forever))
        assert only(events, Started)[0].step == 6
        assert [e.step for e in only(events, StepDone)] == list(range(6, 13))
        assert not only(events, Noted)  # nothing changed, so there is nothing to warn of
        assert events[-1].reason == "done" and events[-1].step == 12
        assert rows_of(name) == rows_of("straight")
        assert digest(name, 12) == digest("straight", 12)
        assert same(factors(name), factors("straight"))
    start = {name: block for name, block in factors("straight").items() if name.endswith(".a")}
    untouched = {n: b for n, b in adapter_start(chosen).items() if n.endswith(".a")}
    assert same(start, untouched) == (space != "lora")


OTHERS = sorted(set(METHODS) - {"mezo", "spsa", "zo-finetuner"})  # the last needs a file: tests/test_learn.py


@pytest.mark.parametrize("method", OTHERS)
def test_a_killed_run_of_any_method_ends_as_it_would_have(recipe: Make, home: Path, method: str) -> None:
    """With every checkpoint but the first gone, it goes on to the same losses and numbers, basis changes included."""
    chosen = recipe(method__name=method, method__every=2, train__steps=6, train__save_every=100)
    run_all(chosen, "straight")
    run_all(chosen, "killed", after(3))
    shutil.rmtree(home / "sessions" / "killed" / "checkpoints" / "000003")
    events = list(resume("killed", {}, False, forever))
    assert events[-1].reason == "done" and events[-1].step == 6
    assert rows_of("killed") == rows_of("straight")
    assert digest("killed", 6) == digest("straight", 6)
    assert same(factors("killed"), factors("straight"))
    assert not same(factors("straight"), adapter_start(chosen))


@pytest.mark.parametrize("space", ["lora", "lora-b"])
def test_a_killed_run_that_says_labels_ends_as_it_would_have(recipe: Make, home: Path, space: str) -> None:
    """What probes and the fit of the last layer gave it is in its first checkpoint, and steps train whole answers."""
    chosen = recipe(
        adapter__space=space, adapter__linear_probe=True, train__objective="say", train__steps=6, train__save_every=100
    )
    run_all(chosen, "straight")
    run_all(chosen, "killed", after(3))
    shutil.rmtree(home / "sessions" / "killed" / "checkpoints" / "000003")
    events = list(resume("killed", {}, False, forever))
    assert events[-1].reason == "done" and not only(events, Noted)
    assert rows_of("killed") == rows_of("straight")
    assert digest("killed", 6) == digest("straight", 6)
    assert same(factors("killed"), factors("straight"))


def adapter_start(recipe: Recipe) -> dict[str, Tensor]:
    run = prepare(recipe)
    return {name: t.clone() for name, t in run.engine.adapter.factors(run.space.theta).items()}


@pytest.mark.parametrize("space", SPACES)
def test_theta_is_known_without_the_model(recipe: Make, home: Path, space: str) -> None:
    """Replayed from the first checkpoint and the journal alone, theta is the model's own, bit for bit."""
    chosen = recipe(train__steps=7, adapter__space=space, train__save_every=100)
    run = prepare(chosen)
    with sessions.create("run", run.recipe, run.facts) as session:
        list(train(run, session))
    own = {name: t.clone() for name, t in run.engine.adapter.factors(run.space.theta).items()}
    shutil.rmtree(home / "sessions" / "run" / "checkpoints" / "000007")
    with sessions.open_("run") as session:
        assert session.steps() == [0]
        step, found = factors_at(session)
    assert step == 7
    assert same(found, own)
    assert not same(found, adapter_start(chosen))


def test_a_resume_says_when_there_is_nothing_left(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that took all its steps is refused before the model is loaded, with a way to go on."""
    run_all(recipe(train__steps=2), "done")
    monkeypatch.setattr(models, "load", unwanted)
    with pytest.raises(UsageError, match="has taken all its 2 steps") as caught:
        list(resume("done", {}, False, forever))
    assert "--steps 4 --force" in caught.value.hint


def test_a_finished_run_goes_on_with_force(recipe: Make) -> None:
    """What the hint of a finished session offers works: more steps, from where it ended."""
    run_all(recipe(train__steps=2), "more")
    before = factors("more")
    events = list(resume("more", {"train.steps": "4"}, True, forever))
    assert [e.step for e in only(events, StepDone)] == [3, 4]
    assert "train.steps was 2, is 4" in only(events, Noted)[0].message
    assert not same(before, factors("more"))
    with sessions.open_("more") as session:
        assert session.recipe.train.steps == 4


CHANGES = {
    "data": "data is not the same",
    "model": "model is not the same",
    "recipe": "train.lr was 0.003, is 0.001",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_run_is_refused_without_force(
    recipe: Make, folder: Callable[..., Path], tiny: Path, tmp_path: Path, what: str
) -> None:
    """Other data, another model or another recipe is named and refused; with force it is recorded and goes on."""
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    chosen = recipe(model__name=str(model), train__steps=6)
    run_all(chosen, "run", after(3))
    before, changes = factors("run"), {}
    if what == "data":
        file = Path(chosen.data.path) / "train.jsonl"
        file.write_text(file.read_text() + json.dumps({"text": "one more", "label": "no"}) + "\n")
    elif what == "model":
        edited = models.plain(models.resolve(str(model)), "float32", torch.device("cpu"), tmp_path)
        edited.get_input_embeddings().weight.data[0, 0] += 1
        edited.save_pretrained(model)
    else:
        changes = {"train.lr": "1e-3"}
    with pytest.raises(UsageError) as caught:
        list(resume("run", changes, False, forever))
    assert CHANGES[what] in caught.value.message and "--force" in caught.value.hint
    assert [w for w in CHANGES.values() if w in caught.value.message] == [CHANGES[what]]
    with sessions.open_("run") as session:
        assert session.journal.last_step() == 3 and session.recipe.train.lr == 3e-3
        facts = session.facts
    assert same(factors("run"), before)

    events = list(resume("run", changes, True, forever))
    assert CHANGES[what] in only(events, Noted)[0].message
    assert events[-1].reason == "done" and events[-1].step == 6
    with sessions.open_("run") as session:
        assert session.recipe.train.lr == (1e-3 if changes else 3e-3)
        assert [c.since for c in session.chapters] == [0, 3] and session.chapters[0].recipe.train.lr == 3e-3
        assert (session.facts != facts) == (what != "recipe")


@pytest.mark.parametrize("change", [{"train.lr": "1e-3"}, {"train.seed": "7"}, {"train.steps": "40"}])
def test_force_keeps_what_was_learnt_before(recipe: Make, home: Path, change: dict[str, str]) -> None:
    """A forced change of recipe counts from here on: the steps behind it stay what they were, also after a kill."""
    run_all(recipe(train__steps=6, adapter__space="lora"), "run", after(3))
    before = factors("run")
    shutil.rmtree(home / "sessions" / "run" / "checkpoints" / "000003")
    shutil.rmtree(home / "sessions" / "run" / "checkpoints" / "000002")
    assert same(factors("run"), before)
    list(resume("run", change, True, after(0)))
    assert same(factors("run"), before)


def test_rows_are_replayed_under_the_recipe_they_were_taken_with(recipe: Make, home: Path) -> None:
    """Where the checkpoint at a forced change is damaged, an older one serves: each row has its own recipe."""
    run_all(recipe(train__steps=6, adapter__space="lora"), "run", after(3))
    list(resume("run", {"train.lr": "1e-3"}, True, after(2)))
    before = factors("run")
    for step in (3, 4, 5):
        damaged = home / "sessions" / "run" / "checkpoints" / f"{step:06d}" / "params.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-8])
    with sessions.open_("run") as session:
        assert list(session.stretches(0, 5)) == [(session.chapters[0].recipe, 0, 3), (session.recipe, 3, 5)]
    assert same(factors("run"), before)


@pytest.mark.parametrize(
    "change", [{"adapter.rank": "2"}, {"adapter.space": "lora"}, {"adapter.targets": "q_proj"}, {"train.seed": "7"}]
)
def test_a_change_that_theta_cannot_follow_is_refused_in_words(recipe: Make, change: dict[str, str]) -> None:
    """Another shape of adapter cannot take over a session's numbers: an error in words; the session is as before."""
    run_all(recipe(train__steps=6), "run", after(3))
    before = factors("run")
    with pytest.raises(ZoliteError):
        list(resume("run", change, True, forever))
    assert same(factors("run"), before)
    list(resume("run", {}, False, forever))


def test_moving_the_data_and_the_device_is_no_change(recipe: Make, tmp_path: Path) -> None:
    """The same rows in another folder are the same data, as they must be on another machine."""
    chosen = recipe(train__steps=4)
    run_all(chosen, "run", after(2))
    moved = shutil.move(chosen.data.path, tmp_path / "elsewhere")
    events = list(resume("run", {"data.path": str(moved), "model.device": "auto"}, False, forever))
    assert events[-1].reason == "done"


# Losses that are no numbers


def spoiled(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool]) -> None:
    """Makes one of the losses of chosen steps (from 1) not a number."""
    real = Engine.objective
    calls = itertools.count(0)  # the first is measured before the first step

    def spoilt(self: Any, batches: Any) -> Any:
        objective, step = real(self, batches), next(calls)

        def measure(points: Any, groups: int) -> Tensor:
            losses = objective(points, groups)
            if bad(step):
                losses[step % 2] = (math.nan, math.inf)[step // 2 % 2]
            return losses

        return measure

    monkeypatch.setattr(Engine, "objective", spoilt)


def test_steps_without_a_loss_are_skipped(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step one of whose losses is not finite moves nothing, is flagged and counted, and the run goes on."""
    spoiled(monkeypatch, lambda step: step in (2, 5, 6, 7))
    chosen, thetas = (
        recipe(train__steps=8, train__eval_every=1, train__save_every=1, train__patience="never"),
        list[Tensor](),
    )
    run = prepare(chosen)
    with sessions.create("run", run.recipe, run.facts) as session:
        events = []
        for event in train(run, session):
            events.append(event)
            if isinstance(event, Saved):
                thetas.append(run.space.theta.clone())
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(thetas)]
    assert moved == [True, False, True, True, False, False, False, True]
    assert [e.step for e in only(events, StepDone) if e.skipped] == [2, 5, 6, 7]
    assert (events[-1].reason, events[-1].skipped) == ("done", 4)
    assert [flags & 1 for *_, flags in rows_of("run")] == [0, 1, 0, 0, 1, 1, 1, 0]
    assert same(factors("run"), run.engine.adapter.factors(run.space.theta))


def test_ten_bad_steps_in_a_row_end_the_run(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine are endured; ten end it with the step and a smaller lr in the error, and the session can be resumed."""
    chosen = recipe(train__steps=40, train__eval_every=1, train__lr=0.003, train__patience="never")
    with monkeypatch.context() as patch:
        spoiled(patch, lambda step: step in range(3, 12) or step >= 20)
        events: list[Event] = []
        with pytest.raises(ZoliteError, match="10 steps in a row, up to step 29") as caught:
            for event in begin(chosen, "bad", forever):
                events.append(event)  # noqa: PERF402 - those before the error are wanted
    assert not isinstance(caught.value, UsageError)
    assert "--lr 0.001" in caught.value.hint
    end = only(events, Finished)[-1]
    assert (end.step, end.reason, end.skipped) == (29, "diverged", 19)
    (summary,) = sessions.list_()
    assert (summary.name, summary.status, summary.step) == ("bad", "diverged", 29)
    before = factors("bad")
    assert all(torch.isfinite(t).all() for t in before.values())
    events = list(resume("bad", {}, False, forever))
    assert only(events, StepDone)[0].step == 30
    assert events[-1].reason == "done" and events[-1].skipped == 0


# What is found before the model is loaded


def unwanted(*_: Any) -> Any:
    raise AssertionError("the model was loaded")


def put(data: Path, split: str, rows: Sequence[dict[str, Any]]) -> None:
    (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def broken_label(data: Path) -> dict[str, Any]:
    put(data, "test", [{"text": "a", "label": "yes"}, {"text": "b", "label": "perhaps"}])
    return {}


def long_prompt(data: Path) -> dict[str, Any]:
    put(data, "dev", [{"text": "a", "label": "yes"}, {"text": "b" * 200, "label": "no"}])
    return {}


BEFORE_LOADING: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "unknown label": (broken_label, r"test.jsonl: line 2: label 'perhaps' is not among"),
    "long prompt": (long_prompt, r"dev.jsonl: line 2: prompt of \d+ tokens leaves no room"),
    "unknown device": (lambda _: {"model.device": "tpu"}, "model.device is 'tpu'"),
    "no data": (lambda data: {"data.path": str(data / "nowhere")}, "is no file and no folder"),
    "no model": (lambda data: {"model.name": str(data / "nowhere")}, "no model at"),
}


@pytest.mark.parametrize("what", BEFORE_LOADING)
def test_problems_surface_before_the_weights_are_loaded(
    recipe: Make, folder: Callable[..., Path], home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Bad data, an unknown method, device or model: found before any weight is read, and no session is left."""
    spoil, message = BEFORE_LOADING[what]
    data = folder()
    chosen = recipes.override(recipe(data__path=str(data)), spoil(data))
    monkeypatch.setattr(models, "load", unwanted)
    with pytest.raises(UsageError, match=message) as caught:
        run_all(chosen, "never")
    assert caught.value.hint
    assert not (home / "sessions").exists()


def test_problems_of_all_splits_are_told_at_once(
    recipe: Make, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are too long in two files are named in one error."""
    data = folder()
    for split in ("train", "test"):
        put(data, split, [{"text": "b" * 200, "label": "no"}, {"text": "c", "label": "yes"}])
    monkeypatch.setattr(models, "load", unwanted)
    with pytest.raises(UsageError) as caught:
        prepare(recipe(data__path=str(data)))
    assert "train.jsonl: line 1" in caught.value.message and "test.jsonl: line 1" in caught.value.message


def test_cut_rows_are_warned_of(recipe: Make, folder: Callable[..., Path]) -> None:
    """A completion that is cut off at the context is said in a warning with its count."""
    data = folder("completion")
    put(data, "dev", [{"prompt": "a", "completion": "b" * 300}, {"prompt": "a", "completion": "b"}])
    events = run_all(recipe(data__path=str(data), train__steps=1), "cut")
    (note,) = (note for note in only(events, Noted) if note.level == "warning")
    assert note.message.startswith("1 of 2 dev rows were cut at 128 tokens")


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("quant", ["int8", "nf4", "bf16"])
@pytest.mark.parametrize("copies", [1, 2])
def test_a_gpu_trains_resumes_and_scores(recipe: Make, quant: str, copies: int) -> None:
    """On CUDA a run in each format finishes, a stopped one resumes to the same bits, and theta replays there."""
    chosen = recipe(model__device="cuda", model__quant=quant, train__copies=copies, train__steps=8)
    straight = run_all(chosen, "straight")
    assert straight[-1].reason == "done"
    assert all(math.isfinite(e.loss) and not e.skipped for e in only(straight, StepDone))
    run_all(chosen, "stopped", after(5))
    list(resume("stopped", {}, False, forever))
    assert rows_of("stopped") == rows_of("straight")
    assert same(factors("stopped"), factors("straight"))
    assert any(t.abs().max() > 0 for n, t in factors("straight").items() if n.endswith(".b"))
    cpu = measured(recipe(model__device="cpu", model__quant=quant, data__path=chosen.data.path))
    cuda = measured(chosen)
    assert cuda[0][0] == pytest.approx(cpu[0][0], rel=0.05)
