"""The views of a run: what they show, and that nothing a run can say breaks them."""

import io
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from zolite.cli.live import VIEWS, JsonView, LiveView, PlainView, draw, line, pick
from zolite.common.events import (
    LARGEST,
    TYPES,
    Evaluated,
    Event,
    Exported,
    Finished,
    Noted,
    Saved,
    Started,
    StepDone,
    Working,
    from_json,
    to_json,
)
from zolite.common.text import human_bytes, human_number, human_rate, human_seconds, one_line
from zolite.monitor.run_state import RunState, advance

MIB, GIB = 1024**2, 1024**3
STARTED = Started("demo", 1, 300, "cpu", 460_800, int(3.4 * GIB))
WIDTHS = (1, 7, 20, 40, 80, 120, 250)


def step(n: int, loss: float = 1.5, seconds: float = 0.5, skipped: bool = False) -> StepDone:
    return StepDone(n, loss, 3e-3, seconds, 812 * MIB, int(1.2 * GIB), skipped=skipped)


def story(steps: int) -> Iterator[Event]:
    """A whole run with every kind of event."""
    yield replace(STARTED, steps=steps)
    yield Noted("info", "two graphs captured")
    for n in range(1, steps + 1):
        bad = n % 40 == 7
        yield step(n, math.nan if bad else 1 + 1 / n, skipped=bad)
        if n % 100 == 0:
            yield Evaluated(n, "dev", "accuracy", 0.46 - n / 10_000, 100, 3.1)
    yield Noted("warning", "the card is shared")
    yield Saved(steps, "/s/000300")
    yield Exported(steps, "/s/adapter")
    yield Finished(steps, "done", 78.0, 8, int(1.2 * GIB))


def after(events: Iterator[Event] | list[Event]) -> RunState:
    state = RunState()
    for event in events:
        advance(state, event)
    return state


def picture(state: RunState, width: int = 80, height: int = 24, verbose: bool = False) -> str:
    console = Console(record=True, width=width, height=height, force_terminal=True, file=io.StringIO())
    console.print(draw(state, width, height, verbose))
    return console.export_text()


def plain(events: Iterator[Event] | list[Event], clock: Iterator[float], verbose: bool = False) -> list[str]:
    stream = io.StringIO()
    with PlainView(stream, lambda: next(clock), verbose) as view:
        for event in events:
            view.show(event)
    return stream.getvalue().splitlines()


# --- text ---


def test_numbers_read_as_people_write_them() -> None:
    """Sizes, times and speeds carry the unit that fits them, also where rounding crosses a unit."""
    sizes = [human_bytes(n) for n in (0, 1023, 812 * MIB, int(1.2 * GIB), GIB - 1, 3 * 1024**4)]
    assert sizes == ["0 B", "1023 B", "812 MiB", "1.2 GiB", "1.0 GiB", "3.0 TiB"]
    times = [human_seconds(s) for s in (0, 45, 59.6, 78, 7380, 273_600, math.nan)]
    assert times == ["0s", "45s", "1m00s", "1m18s", "2h03m", "3d04h", "–"]
    assert [human_rate(r) for r in (2.31, 12.34, 0.08, 0, math.nan)] == [
        "2.31 steps/s",
        "12.3 steps/s",
        "12.5 s/step",
        "– steps/s",
        "– steps/s",
    ]
    assert [human_number(x) for x in (1.3, 1000.0, math.inf)] == ["1.300", "1000", "–"]


@given(st.text(st.characters()))
@settings(deadline=None)
def test_one_line_cannot_move_the_cursor(text: str) -> None:
    """Any text comes out as one printable, encodable line."""
    assert one_line(text).isprintable()
    one_line(text).encode()


# --- events ---


def storable(event: Event) -> bool:
    """Has it no whole number that is larger than a run has?"""
    return all(abs(value) < LARGEST for value in vars(event).values() if isinstance(value, int))


EVENTS = st.one_of([st.builds(kind) for kind in TYPES.values()]).filter(storable)


@given(EVENTS)
@settings(deadline=None)
def test_json_keeps_every_event(event: Event) -> None:
    """An event survives the way through a line of JSON."""
    written = to_json(event)
    assert "\n" not in written
    endless = {name: math.nan for name, value in vars(event).items() if value in (math.inf, -math.inf)}
    assert repr(from_json(written)) == repr(replace(event, **endless))  # by its text, so that NaN equals NaN


def test_what_comes_before_the_first_step_is_shown() -> None:
    """Before the run has started it is what there is to see; nothing is logged."""
    working = Working("reading rows", 250_000, 1_000_000)
    state = after([working])
    assert line(working, state) == "reading rows: 250,000 of 1,000,000 (25%)"
    assert "Preparing: reading rows: 250,000 of 1,000,000 (25%)" in picture(state) and not state.logged
    assert line(Working("reading rows", 5, 0), state) == "reading rows: 5"


# --- state ---


def test_state_follows_the_run() -> None:
    """Steps, skipped ones, evaluations and the checkpoint are counted as they come."""
    state = after(story(300))
    assert (state.step, state.steps, state.skipped, state.saved) == (300, 300, 8, [300])
    assert state.warning == "the card is shared"
    assert [e.step for e in state.evaluations] == [100, 200, 300] and state.best() == state.evaluations[0]


# --- live ---


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_live_view_shows_what_a_person_needs(size: tuple[int, int]) -> None:
    """State, progress, loss, validation, speed, memory and warnings are there and fit; expert numbers if asked for."""
    state = after(story(300))
    shown, detailed = picture(state, *size), picture(state, *size, verbose=True)
    for words in (
        "✓ done  demo  cpu · 460,800 trained parameters",
        "step 300 of 300 · 100% · took 1m18s",
        "loss 1.0",
        "2.00 steps/s",
        "validation accuracy 43.0% (best 45.0% at step 100)   █",
        "memory 812 MiB of 3.4 GiB free  ✓ fits   ━",
        "checkpoint saved at step 300",
        "▲ the card is shared",
    ):
        assert words in shown, words
    for words in ("lr 0.003", "skipped 8", "nats/100 steps", "peak 1.2 GiB", "last loss 1.003"):
        assert words in detailed and words not in shown, words
    assert len(detailed.splitlines()) < size[1]


def test_details_are_for_who_asks() -> None:
    """Notes at level "detail" are shown by --verbose alone, in the live view and in plain lines; JSON holds all."""
    events: list[Event] = [
        STARTED,
        Noted("info", "step size chosen automatically"),
        Noted("detail", "ε 0.0011"),
        step(1),
    ]
    for verbose in (False, True):
        console, stream = terminal()
        with LiveView(console, verbose) as view:
            for event in events:
                view.show(event)
        lines = "\n".join(plain(events, itertools.repeat(0.0), verbose))
        for text in (stream.getvalue(), lines):
            assert "chosen automatically" in text and ("ε 0.0011" in text) is verbose
        assert ("lr 0.003" in lines) is verbose
    written = io.StringIO()
    with JsonView(written) as json_view:
        for event in events:
            json_view.show(event)
    assert "0.0011" in written.getvalue()


def test_the_chart_shows_the_losses_and_their_mean() -> None:
    """The chart is braille between labels of its highest and lowest loss."""
    lines = picture(after([STARTED, *(step(n, 3 - n / 100) for n in range(1, 201))])).splitlines()
    chart = [row for row in lines if "┤" in row or "│" in row]
    assert len(chart) == 8
    assert 2.9 < float(chart[0].split()[0]) < 3.2
    assert 0.8 < float(chart[-1].split()[0]) < 1.1
    assert sum("\u2800" < c <= "\u28ff" for row in chart for c in row) > 70


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("steps", [0, 1, 2, 300])
def test_no_line_is_wider_than_the_terminal(width: int, steps: int) -> None:
    """Narrow or wide, with no step, one or many, the display keeps within the terminal."""
    shown = picture(after(story(steps)), width)
    assert max(map(cell_len, shown.splitlines())) <= width


def test_narrow_terminals_still_show_the_losses() -> None:
    """Forty columns are enough for the chart, the progress and every number."""
    shown = picture(after(story(300)), 40)
    for words in ("┤", "step 300 of 300", "validation accuracy 43.0%", "loss 1.0", "steps/s", "memory 812 MiB"):
        assert words in shown, words


@pytest.mark.parametrize("name", ["实验" * 40, "naïve café ☕", "e\u0301" * 60, "[red]not markup[/red]", "a\nb\x1b[2J"])
def test_names_in_any_script_fit_on_the_title_line(name: str) -> None:
    """Wide characters are measured by cells, and a name is neither markup nor a control sequence."""
    lines = picture(after([replace(STARTED, session=name), step(1)])).splitlines()
    assert one_line(name)[:4] in lines[0]
    assert "step 1 of 300" in lines[1]


@given(st.lists(st.tuples(st.floats(), st.floats(0, 1e6))), st.sampled_from(WIDTHS), st.integers(0, 60))
@settings(deadline=None)
def test_no_loss_breaks_the_chart(measured: list[tuple[float, float]], width: int, height: int) -> None:
    """NaN, infinities, overflowing and equal losses are drawn or skipped, but never an error."""
    state = after([STARTED, *(step(n, loss, seconds) for n, (loss, seconds) in enumerate(measured, 1))])
    picture(state, width, height)
    line(step(1, math.nan), state)


def terminal(no_color: bool = False) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=True, width=80, height=24, no_color=no_color), stream


def test_an_exception_gives_the_cursor_back() -> None:
    """Whatever goes wrong inside, the last state stays on the screen and the cursor is shown."""
    console, stream = terminal()
    with pytest.raises(RuntimeError, match="boom"), LiveView(console) as view:
        view.show(STARTED)
        view.show(step(120))
        raise RuntimeError("boom")
    hidden, shown = stream.getvalue().rfind("\x1b[?25l"), stream.getvalue().rfind("\x1b[?25h")
    assert -1 < hidden < shown
    assert "step 120 of 300" in stream.getvalue()[hidden:]


def test_without_colour_nothing_is_lost() -> None:
    """NO_COLOR takes the colours away and leaves the words."""
    console, stream = terminal(no_color=True)
    with LiveView(console) as view:
        for event in story(300):
            view.show(event)
    assert "\x1b[36m" not in stream.getvalue()
    assert "✓ done" in stream.getvalue()


def test_evaluations_and_notes_stay_in_the_scroll_back() -> None:
    """What is said once is printed above the panels, once."""
    console, stream = terminal()
    with LiveView(console) as view:
        for event in story(300):
            view.show(event)
    for words in ("two graphs captured", "step 100  validation accuracy 45.0%", "exported to /s/adapter"):
        assert stream.getvalue().count(words) == 1, words


# --- plain ---


def test_plain_lines_carry_the_numbers() -> None:
    """Every number of a step, an evaluation and the end is in its line."""
    events: list[Event] = [
        replace(STARTED, step=120),
        step(120, 1.312, 1 / 2.31),
        Evaluated(120, "dev", "accuracy", 0.46, 100, 3.1),
    ]
    ending = Finished(120, "interrupted", 3700, 2, 900 * MIB)
    events += [Saved(120, "/s/000120"), Noted("warning", "two\nlines"), ending]
    lines = plain(events, itertools.repeat(0.0))
    assert lines == [
        "demo resumed at step 120 of 300 on cpu: 460,800 trained parameters, 3.4 GiB of memory free",
        "step 120 of 300  loss 1.312  2.31 steps/s  1m18s left  memory 812 MiB of 3.4 GiB free",
        "step 120  validation accuracy 46.0% (100 rows, 3.1 s)",
        "step 120  checkpoint saved",
        "warning: two lines",
        "step 120  stopped after 1h01m, peak memory 900 MiB",
    ]


def test_plain_steps_are_throttled() -> None:
    """A fast run shows its first step and each tenth; a slow one every two seconds besides."""
    steps: list[Event] = [replace(STARTED, steps=1000), *(step(n) for n in range(1, 1001))]
    numbers = [row.split(" of ")[0] for row in plain(steps, itertools.repeat(0.0))[1:]]
    assert numbers == ["step 1", *(f"step {n}" for n in range(100, 1001, 100))]

    numbers = [row.split(" of ")[0] for row in plain(steps, itertools.count(0.0, 0.5))[1:]]  # two steps a second
    assert numbers[:4] == ["step 1", "step 5", "step 9", "step 13"]


def test_a_skipped_step_says_so() -> None:
    """The line of a step whose loss was not finite has no number for it."""
    assert "skipped, its loss is not finite" in line(step(7, math.nan, skipped=True), after([STARTED]))


# --- JSON and the choice ---


def test_json_is_one_object_a_line() -> None:
    """Every event is one line that reads back, and nothing else is written."""
    stream = io.StringIO()
    with JsonView(stream) as view:
        for event in story(50):
            view.show(event)
    lines = stream.getvalue().splitlines()
    assert [repr(from_json(row)) for row in lines] == [repr(event) for event in story(50)]
    assert json.loads(lines[0])["event"] == "started"


def test_output_in_a_small_encoding_does_not_fail() -> None:
    """JSON is UTF-8 whatever the stream was; plain lines escape what the stream cannot carry."""
    started = replace(STARTED, session="实验 \udcff")
    raws = {name: io.BytesIO() for name in ("json", "plain")}
    streams = {name: io.TextIOWrapper(raw, encoding="cp1252") for name, raw in raws.items()}
    with JsonView(streams["json"]) as json_view, PlainView(streams["plain"]) as plain_view:
        json_view.show(started)
        plain_view.show(started)
    written = {name: raw.getvalue() for name, raw in raws.items()}
    assert from_json(written["json"].decode()) == started
    assert rb"\u5b9e" in written["plain"]


class Screen(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_the_view_fits_where_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON if asked; live on a terminal that can draw; else plain."""
    monkeypatch.setitem(os.environ, "TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Screen())
    assert [pick(False, False), pick(True, False), pick(False, True)] == ["live", "plain", "json"]
    monkeypatch.setitem(os.environ, "TERM", "dumb")
    assert pick(False, False) == "plain"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert pick(False, False) == "plain"
    assert set(VIEWS) == {"live", "plain", "json"}
