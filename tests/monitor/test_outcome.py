"""Claims about what is said at a run's end: sure only where it is, and never good where it is not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.common.events import Concluded, Evaluated, Event, Finished, Sampled, Started, StepDone, from_json, to_json
from zolite.monitor.classification import difference, wilson
from zolite.monitor.log import BASE
from zolite.monitor.outcome import MARKS, before_and_after, card, concluded, judged, outcome_of
from zolite.monitor.run_state import RunState, advance

STARTED = Started("first", 1, 120, "cpu", 460_800, 2**32)
DONE = Finished(120, "done", 60.0, 0, 2**28)


def score(step: int, value: float, split: str = "dev", rows: int = 100, majority: float = 0.3) -> Evaluated:
    return Evaluated(step, split, "accuracy", value, rows, 1.0, majority=majority)


def loss(step: int, value: float) -> Evaluated:
    return Evaluated(step, "dev", "loss", value, 100, 1.0)


def run(*scores: Event, end: Finished = DONE) -> list[Event]:
    """Its events, in order."""
    first = [e for e in scores if getattr(e, "step", 1) == 0]
    return [STARTED, *first, StepDone(120, 1.0, 1e-3, 0.5, 1, 1), *(e for e in scores if e not in first), end]


def found(*scores: Event, end: Finished = DONE) -> Concluded:
    *_, last = concluded(run(*scores, end=end), "rows")
    assert isinstance(last, Concluded)
    return last


@pytest.mark.parametrize(
    ("before", "after", "verdict", "text"),
    [
        (0.41, 0.72, "better", "better than before by 31 points, sure"),
        (0.72, 0.41, "worse", "worse than before by 31 points, sure"),
        (
            0.50,
            0.54,
            "perhaps",
            "perhaps better than before, by 4.0 points: 100 rows leave anything from -9.7 to +17.5",
        ),
        (0.50, 0.50, "same", "not better than before: +0.0 points; 100 rows leave anything from -13.6 to +13.6"),
        (0.05, 0.29, "same", "better than before, but no better than always giving one answer, 30.0%"),
    ],
)
def test_a_verdict_on_accuracies(before: float, after: float, verdict: str, text: str) -> None:
    one = found(score(0, before), score(120, after))
    assert (one.verdict, one.text) == (verdict, text)
    inside = wilson(round(100 * after), 100)
    assert (one.low, one.high, one.before, one.after) == (inside.low, inside.high, before, after)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(3.2, 2.1, "better"), (2.1, 3.2, "worse"), (2.0, 1.99, "same"), (math.nan, 2.0, "unknown")],
)
def test_a_verdict_on_losses(before: float, after: float, verdict: str) -> None:
    assert judged(loss(0, before), loss(9, after))[0] == verdict


def test_what_is_compared() -> None:
    """The best step's score, with that of the base model where there is one; and test's before dev's."""
    dev = [score(0, 0.8), score(40, 0.9), score(80, 0.7)]
    assert before_and_after(dev) == (dev[0], dev[1])
    base = score(0, 0.2, BASE)
    assert before_and_after([base, *dev]) == (base, dev[1])
    test = [score(0, 0.3, "test"), score(80, 0.6, "test")]
    assert before_and_after([*dev, *test]) == (test[0], test[1])
    assert before_and_after([*dev, test[0]]) == (dev[0], dev[1])
    assert before_and_after([score(0, 0.3)]) == (None, None)


def test_nothing_is_concluded_of_a_run_that_is_not_done() -> None:
    for reason in ("interrupted", "diverged"):
        events = run(score(0, 0.1), score(120, 0.9), end=Finished(120, reason, 60.0, 0, 1))
        assert list(concluded(events)) == events
    assert list(concluded([STARTED])) == [STARTED]


def test_of_a_run_that_was_never_measured_nobody_knows() -> None:
    one = found()
    assert one.verdict == "unknown" and "nobody knows" in one.text and len(one.commands.splitlines()) == 3


def test_the_next_commands_are_three_and_what_to_try_is_said_where_it_is_not_better() -> None:
    good, bad = found(score(0, 0.2), score(120, 0.9)), found(score(0, 0.5), score(120, 0.5))
    assert not good.advice and "more steps: zolite resume first --steps 240 --force" in bad.advice
    for one in (good, bad):
        assert len(one.commands.splitlines()) == 3 and all("  # " in line for line in one.commands.splitlines())
    assert "zolite export first --step best" in good.commands and "zolite eval first --data rows" in good.commands


SHARES = st.integers(0, 50).map(lambda hits: hits / 50)


@given(SHARES, SHARES, SHARES)
def test_every_end_has_a_card_that_reads_back(before: float, after: float, majority: float) -> None:
    """Whatever the scores: a known verdict, never a good one at or below the majority, the event as JSON, a card."""
    one = found(score(0, before, rows=50, majority=majority), score(120, after, rows=50, majority=majority))
    assert one.verdict in MARKS and (one.verdict not in ("better", "perhaps") or after > majority)
    assert repr(from_json(to_json(one))) == repr(one)
    sample = Sampled(120, 1, "Where is it?", "I am", "A delivery.", "A delivery.")
    text = "\n".join("".join(piece for piece, _ in line) for line in card(one, [sample] * 5))
    assert one.text in text and text.count("right") >= 3 and "next" in text


@given(SHARES, SHARES)
def test_the_interval_of_a_change_holds_it_and_turns_with_it(before: float, after: float) -> None:
    inside, back = difference(before, after, 50), difference(after, before, 50)
    assert -1 <= inside.low <= after - before <= inside.high <= 1
    assert (inside.low, inside.high) == pytest.approx((-back.high, -back.low))


def test_the_interval_is_newcombes() -> None:
    """His first example: 56 of 70 and 48 of 80 differ by 0.2, 0.0524 to 0.3339; of as many rows each, 40 of 80."""
    inside = difference(40 / 80, 56 / 80, 80)
    assert (inside.low, inside.high) == pytest.approx((0.0484, 0.3393), abs=0.003)


def test_a_state_that_runs_again_is_not_at_its_end() -> None:
    state = RunState()
    for event in [*run(score(0, 0.2), score(120, 0.9)), STARTED]:
        advance(state, event)
    assert outcome_of(state) is None
