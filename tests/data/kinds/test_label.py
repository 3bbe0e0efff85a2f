"""Claims about rows with labels."""

import pytest

from zolite.common.errors import UsageError
from zolite.data.kinds.label import KIND


@pytest.mark.parametrize(
    "template",
    [
        "{label}",
        "{text}",
        "{text} {label",
        "{text} label}",
        "{} {label}",
        "{text} {label} {label}",
        "{label} {text}",
        "{text} {label}.",
        '{"text} {label}',
    ],
)
def test_templates_are_checked(template: str) -> None:
    """A template is text, columns and one label at its end; the hint is an option that commands have."""
    with pytest.raises(UsageError, match=r"data\.template") as caught:
        KIND.columns(template)
    assert "--template" in caught.value.hint


def test_the_prompt_of_one_column_is_the_column() -> None:
    """What is typed stands where the column stood; where there are several, it is the prompt as a whole."""
    one = KIND.prompt("Say {text}:\n{label}")
    assert (one.before, one.after, one.column) == ("Say ", ":", "text")
    several = KIND.prompt("{a} or {b}? {label}")
    assert (several.before, several.after, several.column) == ("", "", "")
    assert several.template == "{a} or {b}? {label}"
