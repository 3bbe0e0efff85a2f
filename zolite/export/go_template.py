"""Chat templates said in Go's text/template, which is what Ollama fills in.

A chat template is a program in Jinja. What most of them do is put fixed text around each message, which depends on the
message before it and its own role. That much is read off what the template makes of marked texts, and said again; where
the template does more, which renderings of other conversations show, there is no Go template.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Talk = Sequence[dict[str, str]]
Render = Callable[[Talk], str]
"""A conversation to the prompt for the assistant's next message. Raises whatever a template raises."""

TALKS = (("user",), ("user", "assistant", "user"), ("user", "assistant") * 2 + ("user",))
LAST = "(eq (len (slice $.Messages $i)) 1)"  # of message $i
START = "start"  # stands for the role before a first message


@dataclass(frozen=True)
class Turns:
    """A chat template as the texts between messages."""

    between: dict[tuple[str, str], str]  # by the role before, START in front of all, and the role behind
    answer: str  # behind the user's last message
    late: tuple[str, str] | None = None  # around a system message that stands in front of the user's last message
    system: bool = True  # whether it takes a system message at all

    def render(self, talk: Talk) -> str:
        """The prompt of a conversation that the user spoke last in."""
        told = [m for m in talk if m["role"] != "system"] if self.late or not self.system else talk
        system = next((m["content"] for m in talk if m["role"] == "system"), "")
        text, before = "", START
        for i, message in enumerate(told):
            text += self.between[before, message["role"]]
            if self.late and system and i == len(told) - 1:
                text += self.late[0] + system + self.late[1]
            text, before = text + message["content"], message["role"]
        return text + self.answer

    @property
    def go(self) -> str:
        """The same of Ollama's .Messages, the system's among them."""
        turns = [f'{{{{ if eq .Role "{role}" }}}}{self._turn(role)}{{{{ end }}}}' for role in self._roles]
        return (
            f'{{{{ $before := "{START}" }}}}{{{{ range $i, $_ := .Messages }}}}{"".join(turns)}{{{{ end }}}}'
            f"{literal(self.answer)}"
        )

    @property
    def _roles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(role for _, role in self.between))

    def _turn(self, role: str) -> str:
        """What stands in front of a message, by the role before it; the message; and its role for the next one."""
        cases = {before: text for (before, behind), text in self.between.items() if behind == role}
        *some, (_, rest) = cases.items()
        chosen = literal(rest)
        for before, text in reversed(some):
            chosen = f'{{{{ if eq $before "{before}" }}}}{literal(text)}{{{{ else }}}}{chosen}{{{{ end }}}}'
        if self.late and role == "user":
            first, last = map(literal, self.late)
            chosen += f"{{{{ if and $.System {LAST} }}}}{first}{{{{ $.System }}}}{last}{{{{ end }}}}"
        return f'{chosen}{{{{ .Content }}}}{{{{ $before = "{role}" }}}}'


def turns_of(render: Render) -> Turns | None:
    """Read off what the chat template makes of marked texts; None where it does more than surround them."""
    try:
        found = _with_system(render, _without_system(render))
        talks = [_talk(roles, "text {} of it") for roles in _tried(found)]
        same = all(found.render(talk) == render(talk) for talk in talks)
    except Exception:  # noqa: BLE001 - templates are programs, and refuse what they do not like in ways of their own
        return None
    return found if same else None


def last_alone(before: str, after: str) -> str:
    """A Go template of the last message with text around it, whatever was said earlier."""
    turn = f"{{{{ if {LAST} }}}}{literal(before)}{{{{ .Content }}}}{literal(after)}{{{{ end }}}}"
    return f"{{{{ range $i, $_ := .Messages }}}}{turn}{{{{ end }}}}"


def literal(text: str) -> str:
    """Text as a Go template has it, in which {{ begins a command, and { in front of one too."""
    return re.sub(r"\{\{+|\{$", lambda found: f'{{{{ "{found[0]}" }}}}', text)


def _tried(turns: Turns) -> list[tuple[str, ...]]:
    return [*TALKS, *(("system", *roles) for roles in TALKS if turns.system)]


def _talk(roles: Sequence[str], text: str = "\u2460{}\u2461") -> list[dict[str, str]]:
    return [{"role": role, "content": text.format(i)} for i, role in enumerate(roles)]


def _pieces(render: Render, *roles: str) -> list[str]:
    """What stands in front of, between and behind the texts of these turns."""
    rest, parts = render(_talk(roles)), []
    for message in _talk(roles):
        before, found, rest = rest.partition(message["content"])
        if not found:
            raise ValueError(f"the {message['role']}'s text is not there, or elsewhere")
        parts.append(before)
    return [*parts, rest]


def _without_system(render: Render) -> Turns:
    first, answer = _pieces(render, "user")
    _, assistant, user, _ = _pieces(render, "user", "assistant", "user")
    between = {(START, "user"): first, ("assistant", "user"): user, ("user", "assistant"): assistant}
    return Turns(between, answer, system=False)


def _with_system(render: Render, turns: Turns) -> Turns:
    """The same with what a system message gets around it: as a first turn, in front of the last one, or none at all."""
    system, user = _talk(("system", "user"))
    try:
        text = render([system, user])
    except Exception:  # noqa: BLE001 - this is how templates say that they take none
        return turns
    if text == render([user]):
        return turns
    try:
        first, second, _ = _pieces(render, "system", "user")
        _pieces(render, "system", "user", "assistant", "user")  # it stays in front
    except ValueError:
        return Turns(turns.between, turns.answer, _late(render, turns))
    return Turns({(START, "system"): first, ("system", "user"): second} | turns.between, turns.answer)


def _late(render: Render, turns: Turns) -> tuple[str, str]:
    """Around a system message that stands behind the assistant's last message."""
    system, *talk = _talk(("system", "user", "assistant", "user"))
    *_, text = render([system, *talk]).rpartition(talk[1]["content"])
    before, found, after = text.partition(system["content"])
    ahead = turns.between["assistant", "user"]
    if not found or not before.startswith(ahead):
        raise ValueError("a system message changes more than the place where it stands")
    return before.removeprefix(ahead), after.partition(talk[2]["content"])[0]
