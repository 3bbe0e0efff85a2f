"""Conversations as ShareGPT has them: `conversations`, whose messages have `from` and `value`."""

import json
from typing import Any

from zolite.data.kinds.kind import Names
from zolite.data.kinds.messages import Conversations, MessagesError, listed_messages
from zolite.data.problems import some
from zolite.data.readers.reader import Record

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "model": "assistant", "bot": "assistant", "system": "system", "tool": "tool", "observation": "tool",
    "function_response": "tool", "function_call": "assistant",
}  # fmt: skip
"""What `from` says, to the role that chat templates know."""


def _messages(record: Record) -> list[Any]:
    found = [_message(each) for each in listed_messages(record["conversations"], "conversations")]
    system = record.get("system")
    return [{"role": "system", "content": system}, *found] if isinstance(system, str) and system.strip() else found


def _message(given: Any) -> Any:
    """With role and content; what has them already, or is no object, as it is."""
    if not isinstance(given, dict) or "from" not in given:
        return given
    said = given["from"]
    if said not in ROLES:
        raise MessagesError(f"'from' is {said!r}, none of {some(map(repr, ROLES))}")
    rest = {key: value for key, value in given.items() if key not in ("from", "value")}
    if said == "function_call":
        return rest | {"role": "assistant", "tool_calls": _calls(given.get("value"))}
    return rest | {"role": ROLES[said], "content": given.get("value")}


def _calls(value: Any) -> list[Any]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise MessagesError("the value of a 'function_call' is not JSON") from None
    return found if isinstance(found, list) else [found]


KIND = Conversations(
    name="sharegpt",
    title="conversations (ShareGPT): it learns what the assistant says",
    needed=("conversations",),
    names=Names(
        becomes="messages in the model's chat template",
        optional=("system", "tools"),
        spellings={"conversations": ("conversation",), "system": ("system_prompt",)},
    ),
    messages=_messages,
)
