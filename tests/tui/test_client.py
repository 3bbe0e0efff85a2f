"""Claims about processes of their own: their answers, their errors in their own words, and who ends them."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from zolite.tui.client import Client

from zolite.common.errors import DoesNotFit, UsageError, ZoliteError, process_error

Script = Callable[[str], Client]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """script("print(1)") is a client whose zolite is that program."""

    def make(code: str) -> Client:
        file = tmp_path / "program.py"
        file.write_text(code)
        return Client((sys.executable, str(file)))

    return make


def test_an_answer(script: Script) -> None:
    """The document that is printed, whatever the exit code says: a checkup that found something is one."""
    client = script("import sys, json; print(json.dumps(sys.argv[1:])); sys.exit(1)")
    assert client.ask("doctor", "now") == ["doctor", "now", "--json"]


@pytest.mark.parametrize(("code", "kind"), [(1, ZoliteError), (2, UsageError), (3, DoesNotFit)])
def test_an_error_is_what_it_was(script: Script, code: int, kind: type[ZoliteError]) -> None:
    """A process' error comes out with its message, its hint and its kind."""
    client = script(f"import sys; print('error: too\\n  much\\nhint: less', file=sys.stderr); sys.exit({code})")
    with pytest.raises(kind) as caught:
        client.ask("train")
    assert (type(caught.value), caught.value.message, caught.value.hint) == (kind, "too\n  much", "less")


def test_a_killed_process_says_so(script: Script) -> None:
    """A process that was killed is told by its signal, and what that mostly means."""
    with pytest.raises(ZoliteError, match="signal 9") as caught:
        script("import os; os.kill(os.getpid(), 9)").ask("train")
    assert "memory" in caught.value.hint


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("", "it ended with code 1"),
        ("Traceback\nValueError: x", "ValueError: x"),
        ("note\nerror: it is bad", "it is bad"),
    ],
)
def test_process_error(stderr: str, message: str) -> None:
    """The last error on stderr is the one; without one the last line is."""
    assert process_error(1, stderr).message == message


def test_giving_up_ends_it(script: Script, tmp_path: Path) -> None:
    """Who is gone takes the process along, as Ctrl-C would, so that it may clean up."""
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"
    client = script(
        "import pathlib, time\n"
        f"try:\n    pathlib.Path({str(begun)!r}).touch()\n    time.sleep(600)\n"
        f"except KeyboardInterrupt:\n    pathlib.Path({str(cleaned)!r}).touch()\n"
    )
    with pytest.raises(ZoliteError):
        client.ask("train", gone=begun.exists)
    assert cleaned.exists()


def test_leaving_lets_it_be(script: Script, tmp_path: Path) -> None:
    """Who leaves does not wait, and the process goes on."""
    left, done = tmp_path / "left", tmp_path / "done"
    client = script(
        "import pathlib, time\n"
        f"while not pathlib.Path({str(left)!r}).exists(): time.sleep(0.05)\n"
        f"pathlib.Path({str(done)!r}).touch()\n"
    )
    assert client.start("train", left=lambda: True) == ""
    assert not done.exists()
    left.touch()
    until = time.monotonic() + 240
    while not done.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert done.exists()


def test_what_a_command_does_is_heard_as_it_comes(script: Script, tmp_path: Path) -> None:
    """Line by line while it goes on, on stderr; what is no document there is not heard."""
    heard: list[object] = []
    go = tmp_path / "go"
    client = script(
        "import json, pathlib, sys, time\n"
        "print('a note', json.dumps({'event': 'working'}), sep=chr(10), file=sys.stderr, flush=True)\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n"
        "print(json.dumps({'session': 'first'}))\n"
    )

    def hear(document: object) -> None:
        heard.append(document)
        go.touch()

    assert client.start("train", heard=hear) == "first"
    assert heard == [{"event": "working"}]


def test_talk(script: Script) -> None:
    """Lines go in and out; closing ends it."""
    client = script("import sys\nfor line in sys.stdin: print(line, end='', flush=True)")
    with client.converse("chat") as talk:
        talk.say({"prompt": "é"})
        assert next(talk.hear()) == {"prompt": "é"}


def test_talk_that_breaks(script: Script) -> None:
    """A process that ends while it is talked to says why."""
    client = script("import sys; print('error: no model', file=sys.stderr); sys.exit(1)")
    with client.converse("chat") as talk, pytest.raises(ZoliteError, match="no model"):
        json.dumps(list(talk.hear()))
