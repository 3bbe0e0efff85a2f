"""Claims about a run in words: what a person needs first, in plain words, and numbers for experts apart."""

import math
from dataclasses import replace

import pytest

from zolite.common.events import Continued as Going
from zolite.common.events import Evaluated, Event, Exported, Finished, Noted, Paused, Saved, Started
from zolite.monitor import summary
from zolite.monitor.log import log_line, score_text
from zolite.monitor.plots import Piece
from zolite.monitor.run_state import About, RunState, updated
from zolite.monitor.states import ALIVE, STATES
from zolite.sessions.follow import News

from .test_run_state import row

GIB = 2**30
STARTED = Started("demo", 1, 2000, "CPU, 2 threads", 460_800, 4 * GIB)


def after(*events: Event, steps: int = 0, running: bool = True) -> RunState:
    rows = [row(i, 3 - i / 100, seconds=1.0) for i in range(1, steps + 1)]
    return updated(RunState(About("demo")), News(rows, [(0, event) for event in events], (), running))


def words(pieces: list[Piece]) -> str:
    return "".join(text for text, _ in pieces)


def test_progress() -> None:
    """Step of steps, share and time left; at the end how long it took, and whether it stopped early."""
    assert words(summary.progress(after(STARTED, steps=120))) == "step 120 of 2,000 · 6% · 31m20s left"
    ended = Finished(120, "done", 78.0, 0, 1)
    assert words(summary.progress(after(STARTED, ended, steps=120, running=False))) == (
        "step 120 of 2,000 · 6% · took 1m18s · early stop"
    )
    broken = Finished(120, "interrupted", 78.0, 0, 1)
    assert "early" not in words(summary.progress(after(STARTED, broken, steps=120, running=False)))


@pytest.mark.parametrize("steps", [1, 2, 150, 2_000, 1_000_000])
def test_only_the_last_step_is_all_of_them(steps: int) -> None:
    """100% is said of a run that has taken its last step, and of no other."""
    started = replace(STARTED, steps=steps)
    for step in {max(1, steps - 1), steps}:
        said = words(summary.progress(RunState(About("run"), started=started, step=step)))
        assert (" 100%" in said) == (step == steps), said


def test_loss_says_whether_it_falls() -> None:
    """A loss that falls beyond its noise says so; after a few steps nothing is said."""
    assert words(summary.loss(after(STARTED, steps=120))).endswith("✓ falling")
    assert words(summary.loss(after(STARTED, steps=5))) == "loss 2.970"
    assert words(summary.loss(after(STARTED))) == "loss –"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.5, 0.74), "validation accuracy 74.0% (best so far, at step 1)"),
        ((0.74, 0.5), "validation accuracy 50.0% (best 74.0% at step 0)"),
        ((math.nan,), "validation accuracy –"),
    ],
)
def test_validation(values: tuple[float, ...], text: str) -> None:
    """The last score, and the best of those so far with its step."""
    scores = [Evaluated(i, "dev", "accuracy", value, 10, 1.0) for i, value in enumerate(values)]
    assert words(summary.evaluation(scores)).replace("nan%", "–") == text


def test_what_is_said_stands_beside_the_accuracy() -> None:
    """In a part; a caution in another, where one label for all rows is as good. Nothing where neither is known."""
    event = Evaluated(3, "dev", "accuracy", 0.75, 8, 1.0, 0.5, 0.25, 0.5)
    assert [words(part) for part in summary.said(event)] == ["says a label 50.0%, the right one 25.0%"]
    assert score_text(event) == "validation accuracy 75.0% ranked, says a label 50.0%, the right one 25.0%"
    useless = replace(event, majority=0.75)
    assert words(summary.said(useless)[1]) == "▲ no better than one label for all, 75.0%"
    assert score_text(useless).endswith("25.0%, no better than one label for all, 75.0%")
    assert summary.said(Evaluated(3, "dev", "loss", 0.5, 8, 1.0)) == []
    assert score_text(Evaluated(3, "dev", "loss", 0.5, 8, 1.0)) == "validation loss 0.5000"


def test_other_splits_have_no_best() -> None:
    """Test scores decide nothing."""
    assert words(summary.evaluation([Evaluated(0, "test", "loss", 1.5, 10, 1.0)])) == "test loss 1.500"
    state = after(STARTED, *[Evaluated(0, split, "loss", 1.0, 1, 1.0) for split in ("test", "dev", "test")])
    assert [[e.split for e in scores] for scores in summary.histories(state)] == [["test", "test"], ["dev"]]


def test_memory_is_judged_in_words() -> None:
    """Whether the run fits is said by a symbol and a word, by its peak, not by colour alone."""
    for peak, text in ((1.2, "✓ fits"), (3.9, "▲ tight"), (4.1, "✗ over")):
        state = after(STARTED)
        state.memory_bytes, state.peak_bytes = GIB, int(peak * GIB)
        assert words(summary.memory(state)) == f"memory 1.0 GiB of 4.0 GiB free  {text}"
    assert words(summary.memory(RunState())) == "memory 0 B"


def test_title_says_what_is_known() -> None:
    """The session with its state; model and method where a recipe is known, else what the run began with."""
    assert words(summary.title(after(STARTED))) == ("▶ running  demo  CPU, 2 threads · 460,800 trained parameters")
    about = About("demo", "org/Model-1B", "int8", "mezo", "lora-b", 4, device="CUDA")
    assert words(summary.title(RunState(about))) == "✗ crashed  demo  Model-1B · int8 · mezo · lora-b rank 4 · CUDA"


def test_expert_numbers_are_details() -> None:
    """Learning rate, ε, signal-to-noise and skipped steps are among the details, and in nothing else."""
    state = after(STARTED, Evaluated(9, "dev", "accuracy", 0.5, 5, 1.0), steps=120)
    found = " ".join(map(words, summary.details(state)))
    first = [summary.title(state), summary.progress(state), summary.loss(state), summary.memory(state)]
    for expert in ("lr 0.001", "ε 0.01", "signal-to-noise", "skipped 0", "nats/100 steps"):
        assert (expert in found) or expert == "signal-to-noise"
        assert expert not in " ".join(map(words, first))


def test_every_state_has_a_word() -> None:
    """Symbols tell states apart that are alive from those that are not; words are all different."""
    assert len({word for _, word, _ in STATES.values()}) == len(STATES) and set(ALIVE) < set(STATES)


def test_every_event_has_a_line() -> None:
    """One printable line each; warnings, details and what diverged carry their level."""
    found = [
        log_line(3, event)
        for event in (
            STARTED, Evaluated(3, "dev", "accuracy", 0.5, 5, 1.0), Saved(3, "/x"), Paused(3), Going(3),
            Exported(3, "/out"), Noted("info", "a\nb"), Noted("warning", "w"), Noted("detail", "ε"),
            Finished(3, "diverged", 60.0, 1, GIB), Finished(3, "interrupted", 60.0, 1, GIB),
        )
    ]  # fmt: skip
    assert [line.text for line in found] == [
        "started on CPU, 2 threads",
        "validation accuracy 50.0%",
        "checkpoint saved",
        "paused",
        "continued",
        "exported to /out",
        "a b",
        "w",
        "ε",
        "diverged after 1m00s, peak memory 1.0 GiB",
        "stopped after 1m00s, peak memory 1.0 GiB",
    ]
    assert [line.level for line in found] == [""] * 7 + ["warning", "detail", "error", ""]
