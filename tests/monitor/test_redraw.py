"""Claims about how often a run is drawn."""

from hypothesis import given
from hypothesis import strategies as st

from zolite.monitor.redraw import REDRAWS, SHARE, SLOWEST, RedrawLimit


@given(st.lists(st.floats(0, 0.05), min_size=1, max_size=300))
def test_redraws_are_limited(gaps: list[float]) -> None:
    """However quickly news comes, there are no more redraws a second than REDRAWS, and the last news is drawn."""
    limit, now, due, drawn = RedrawLimit(), 0.0, None, []
    for gap in [*gaps, 10.0]:
        if due is not None and due <= now + gap:
            drawn.append(due)
            limit.drew(due, 0.0)
            due = None
        now += gap
        if due is None:
            due = now + limit.wait(now)
    for start in drawn:
        assert sum(start <= at < start + 0.999 for at in drawn) <= REDRAWS
    assert drawn


@given(st.floats(0, 10))
def test_a_slow_machine_draws_less_often(used: float) -> None:
    """Drawing takes no more than its share of a core, as long as that leaves a redraw every SLOWEST seconds."""
    limit = RedrawLimit()
    limit.drew(0.0, used)
    wait = limit.wait(0.0)
    assert 1 / REDRAWS <= wait <= SLOWEST and (used <= SHARE * wait * 1.001 or wait == SLOWEST)
