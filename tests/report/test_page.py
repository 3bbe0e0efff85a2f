"""Claims about pages: whatever a session holds is text there, nothing comes from elsewhere, and each part is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.common.events import Evaluated, Finished, Noted, Sampled, Saved
from zolite.common.text import visible
from zolite.planner.hardware import Hardware
from zolite.report.markup import tag
from zolite.report.page import page
from zolite.report.subject import subject
from zolite.sessions import scores
from zolite.sessions import session as sessions

Make = Callable[..., Path]
Machine = Callable[[], Hardware]
Parse = Callable[[str], Any]
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "span", "b", "i", "code", "pre"),
    *("div", "figure", "figcaption", "dl", "dt", "dd", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"),
    *("details", "summary", "svg", "g", "line", "path", "circle", "text"),
}
HOSTILE = (
    '"><script>alert(1)</script>', "<img src=x onerror='alert(1)'>", "</style></title><b onload=x>", "&lt;b&gt;",
    "\x1b]0;pwned\x07\x1b[31m", "\u202etxt.exe", "\ud800", "\x00\x01", "]]><!--", "{{7*7}}", "javascript:alert(1)",
)  # fmt: skip


def score(step: int, value: float, metric: str = "accuracy", **more: Any) -> Evaluated:
    return Evaluated(step, "dev", metric, value, 100, 0.5, **more)


SCORES = (score(0, 0.3, majority=0.5), score(20, 0.7, majority=0.5), score(40, 0.6, majority=0.5))
DONE = (
    *SCORES,
    Sampled(40, 1, "Where is it?", "it is", "a", "a"),
    Saved(40, "x"),
    Finished(40, "done", 60, 0, 310 << 20),
)


@given(st.text() | st.sampled_from(HOSTILE))
def test_text_and_attributes_are_escaped(foreign: str) -> None:
    """Nothing that anybody writes ends a text or an attribute, and no control character is left."""
    made = tag("p", foreign, title=foreign)
    inside = made.removeprefix('<p title="').removesuffix("</p>")
    assert not set(inside.replace('">', "", 1)) & set("<>\"'") and all(
        c.isprintable() or c in "\n\t\u200c\u200d" or c.isspace() for c in made
    )


@pytest.mark.parametrize("foreign", HOSTILE)
def test_foreign_text_is_only_text(made: Make, machine: Machine, seen: Parse, foreign: str) -> None:
    """In labels, rows, answers, warnings, paths and versions: it stands there as text, and makes no element."""
    events = (
        *SCORES, Sampled(40, 1, foreign, foreign, foreign, foreign), Noted("warning", foreign), Saved(40, foreign),
    )  # fmt: skip
    clean = foreign.encode("utf-8", "replace").decode().translate(dict.fromkeys((0,), "?"))
    facts = {"labels": [clean, "b"], "versions": {clean: clean}, "device": "d", "base": clean}
    folder = made("first", events=events, facts=facts, data__path=clean)
    kept = {
        "step": 40,
        "split": "test",
        "report": {"labels": [{"label": clean}, {"label": "b"}], "confusion": [[3, 1], [0, 4]]},
    }
    scores.keep(folder, kept)
    text = page([subject("first", machine)])
    found = seen(text)
    assert {name for name, _ in found.elements} <= ELEMENTS
    attributes = [(key, value or "") for _, given in found.elements for key, value in given.items()]
    assert not any(key.startswith("on") or key in ("src", "href", "srcset", "action") for key, _ in attributes)
    assert all(c.isprintable() or c in "\n\t" for c in text)
    assert any(visible(clean).split("\n")[0].strip() in each for each in found.texts)


def test_nothing_comes_from_elsewhere(made: Make, machine: Machine, seen: Parse) -> None:
    """No script, font, picture or sheet: what is not in the page is forbidden by its own policy."""
    made("first", events=DONE)
    text = page([subject("first", machine)])
    found = seen(text)
    assert (
        "url(" not in text and "@import" not in text and not {"script", "link", "img"} & {n for n, _ in found.elements}
    )
    assert any("default-src 'none'" in str(given.get("content")) for _, given in found.elements)


def test_each_part_is_told(made: Make, machine: Machine, seen: Parse) -> None:
    """Of a run with all there may be: in words, with its numbers, and with the commands that load it."""
    folder = made("first", events=DONE, train__steps=40)
    scores.keep(
        folder,
        {
            "step": 40,
            "split": "test",
            "report": {"labels": [{"label": "a"}, {"label": "b"}], "confusion": [[3, 1], [0, 4]]},
        },
    )
    words = " ".join(seen(page([subject("first", machine)])).texts)
    for part in (
        *("first", "✓ done", "step 40 of 40", "SmolLM2-135M-Instruct", "best: step 20", "one label for all"),
        *("nats a token", "share of the validation rows", "Where is it?", "87.5% of 8 rows are right", "310 MiB"),
        *(
            "zolite chat first",
            "zolite export first --format gguf --to first-gguf",
            "PeftModel",
            "org/base",
            DONE[-1].reason,
        ),
    ):
        assert part in words, part


@pytest.mark.parametrize(
    ("steps", "events", "says", "lacks"),
    [
        (0, (), "No step has been taken yet", "best:"),
        (1, (), "step 1 of", "best:"),
        (40, (), "nats a token", "share of"),
        (40, (score(0, 2.0, "loss"), score(40, 1.0, "loss")), "loss on validation rows", "share of"),
    ],
)
def test_what_is_not_there_is_left_out(
    made: Make, machine: Machine, seen: Parse, steps: int, events: Any, says: str, lacks: str
) -> None:
    """A run without steps, of one step, without an evaluation, without labels."""
    made("first", steps, events, {"labels": []})
    words = " ".join(seen(page([subject("first", machine)])).texts)
    assert says in words and lacks not in words and "How to use it" not in words


def test_a_damaged_session_says_what_is_wrong(made: Make, machine: Machine, seen: Parse) -> None:
    """And does not keep a comparison from its others."""
    (made("broken") / "session.toml").write_text("created = [[[")
    made("first", events=DONE)
    words = " ".join(seen(page([subject("broken", machine)])).texts)
    assert "✗ damaged" in words and "session.toml" in words
    words = " ".join(seen(page([subject("first", machine), subject("broken", machine)])).texts)
    assert "broken is damaged" in words and "70.0% at step 20" in words


def test_several_stand_side_by_side(made: Make, machine: Machine, seen: Parse) -> None:
    """With a column and a line each; what is not measured is a dash."""
    made("first", events=DONE)
    made("other", 20, train__lr=0.125)
    found = seen(page([subject("first", machine), subject("other", machine)]))
    words = " ".join(found.texts)
    assert "2 sessions compared" in words and "0.125" in words and "–" in words
    lines = [given for name, given in found.elements if name == "path" and given.get("class") == "line"]
    assert len(lines) == 3  # two losses, one score
    assert len({given["style"] for given in lines}) == 2


def test_scores_of_steps_that_are_gone_are_not_shown(made: Make, machine: Machine) -> None:
    """Nor those that are no counts, or of another size."""
    folder = made("first")
    good = {"step": 40, "split": "test", "labels": ["a", "b"], "confusion": [[3, 1], [0, 4]]}
    for change in (
        {"step": 41},
        {"confusion": [[1]]},
        {"confusion": [[1, -1], [0, 1]]},
        {"labels": [1, 2]},
        {"confusion": [[0, 0], [0, 0]]},
    ):
        (folder / scores.FILE).write_text(json.dumps(good | change))
        assert subject("first", machine).scores is None
    (folder / scores.FILE).write_text(json.dumps(good))
    found = subject("first", machine).scores
    assert found is not None and found.confusion == ((3, 1), (0, 4))
    with sessions.open_("first", write=True) as session:
        session.rewind(10)
    assert subject("first", machine).scores is None
