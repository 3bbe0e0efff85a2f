"""Claims about text as a person reads it."""

from hypothesis import given
from hypothesis import strategies as st

from zolite.common.text import many, visible


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    """Printable text, lines, tabs and spaces of any width stay; the escapes of the rest are printable."""
    shown = visible(text)
    assert all(c.isprintable() or c in "\n\t\u200c\u200d" or (c.isspace() and c > "\x9f") for c in shown)
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e", "\u2028", "\x85"} & set(shown)
    assert visible(shown) == shown


def test_what_becomes_of_control_characters() -> None:
    """They are shown as Python spells them, and what stands around them stays."""
    assert visible("a\x1b[2Jb\n\tc\u00a0d\u200be") == "a\\x1b[2Jb\n\tc\u00a0d\\u200be"


def test_what_joins_letters_stays() -> None:
    """Scripts and emoji would fall apart without."""
    for text in ("क्\u200dष", "👩\u200d💻", "می\u200cخواهم"):
        assert visible(text) == text


def test_many() -> None:
    """One is the only number without an s."""
    assert [many(n, "row") for n in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
