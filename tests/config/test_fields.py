"""Claims about settings as text."""

from typing import Any

import pytest

from zolite.common.errors import UsageError
from zolite.config.fields import arguments
from zolite.config.recipe import Recipe


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        (" ", {}),
        ("enable_thinking=false", {"enable_thinking": False}),
        ("enable_thinking = true, effort=low , n=3", {"enable_thinking": True, "effort": "low", "n": 3}),
        ('date_string="26 Jul 2024"', {"date_string": "26 Jul 2024"}),
        ("date_string=26 Jul 2024", {"date_string": "26 Jul 2024"}),
        ('{"enable_thinking": false, "names": ["a", "b"]}', {"enable_thinking": False, "names": ["a", "b"]}),
    ],
)
def test_arguments_by_name(text: str, found: dict[str, Any]) -> None:
    """As name=value, or as a JSON object."""
    assert arguments(text) == found
    assert Recipe.of({"data.template_args": text}).data.template_args == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("enable_thinking", "'enable_thinking' has no value: write name=value"),
        ("=3", "'' cannot be set"),
        ("tools=3", "'tools' cannot be set"),
        ('{"add_generation_prompt": true}', "'add_generation_prompt' cannot be set"),
        ('{"a": ', "data.template_args: "),
    ],
)
def test_faulty_arguments_are_refused(text: str, message: str) -> None:
    """With what is wrong, before anything is loaded."""
    with pytest.raises(UsageError, match=r"data\.template_args") as caught:
        Recipe.of({"data.template_args": text})
    assert message in caught.value.message
