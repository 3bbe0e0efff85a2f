"""What is done to a session as a whole, with the questions that come before it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from textual.app import App

from zolite.common.errors import UsageError
from zolite.common.text import human_bytes, one_line, visible
from zolite.monitor.log import later_text
from zolite.sessions import manage
from zolite.sessions import session as sessions
from zolite.sessions.session import Summary
from zolite.sessions.steps import later

from .screens.dialogs import Ask, Choose, Confirm


@dataclass(frozen=True)
class SessionAction:
    """A change of the disk, for a thread."""

    change: Callable[[], object]
    done: str  # the message when it is done
    selects: str = ""  # the session that is selected then, if it is another one


def control(name: str, command: str) -> SessionAction:
    """A command for the run that writes a session: pause, continue or stop."""
    return SessionAction(partial(manage.send, name, command), f"{name}: {command}")


async def rename(app: App[Any], session: Summary) -> SessionAction | None:
    name = session.name
    new = await app.push_screen_wait(Ask(f"A new name for {name}", name, wrong=free_name(name)))
    if not new or new == name:
        return None
    return SessionAction(partial(manage.rename, name, new), f"{name} is {new} now", selects=new)


async def fork(app: App[Any], session: Summary) -> SessionAction | None:
    """A new session with the first steps of this one."""
    name, last = session.name, session.step
    detail = f"A new session that begins as {name} was after a step, to go another way from there."
    step = await app.push_screen_wait(Ask("Fork after which step?", str(last), detail, upto(last)))
    return forked(name, int(step)) if step else None


def forked(name: str, step: int) -> SessionAction:
    return SessionAction(partial(manage.fork, name, None, step), f"forked {name} at step {step}")


async def rewind(app: App[Any], session: Summary) -> SessionAction | None:
    """Takes steps back; says what is gone then, and offers a fork, which keeps it."""
    name, last, best = session.name, session.step, session.best
    hint = f" The best by validation is step {best.step:,}." if best and best.split == "dev" else ""
    detail = f"Every step after it is taken back; a fork keeps both ways.{hint}"
    given = await app.push_screen_wait(Ask(f"Rewind {name} to which step?", str(last), detail, upto(last)))
    if not given or (step := int(given)) >= last:
        return None
    answers = {"keep": "Keep them", "fork": f"Fork at step {step:,} instead", "remove": "Take them back"}
    gone = await asyncio.to_thread(what_goes, name, step)
    question = f"Take back {last - step:,} of {last:,} steps of {name}?"
    answer = await app.push_screen_wait(Choose(question, f"Gone for good: {gone}.", answers))
    return {
        "keep": None,
        "fork": forked(name, step),
        "remove": SessionAction(partial(manage.rewind, name, step), f"{name} is at step {step}"),
    }[answer]


def what_goes(name: str, step: int) -> str:
    with sessions.open_(name) as session:
        return later_text(later(session, step))


async def damaged(app: App[Any], session: Summary) -> SessionAction | None:
    """What is wrong with it, and a way to be rid of it."""
    answers = {"keep": "Keep it", "delete": "Delete it"}
    detail = f"{one_line(session.problem)}\n→ restore its folder from a copy, or delete it."
    answer = await app.push_screen_wait(Choose(f"✗ {visible(session.name)} is damaged", detail, answers))
    return await delete(app, session) if answer == "delete" else None


async def delete(app: App[Any], session: Summary) -> SessionAction | None:
    whole = session.status != "damaged"
    what = f"{session.step:,} steps and {human_bytes(session.bytes)}" if whole else human_bytes(session.bytes)
    detail = f"{what}, with all that it learnt. There is no way back."
    if not await app.push_screen_wait(Confirm(f"Delete {visible(session.name)}?", detail, yes="Delete", no="Keep")):
        return None
    return SessionAction(partial(manage.remove, session.name), f"{session.name} is gone")


# The actions that begin with a question, by the name of Home's action.
QUESTIONS: dict[str, Callable[[App[Any], Summary], Awaitable[SessionAction | None]]] = {
    "rename": rename,
    "fork": fork,
    "rewind": rewind,
    "delete": delete,
    "damaged": damaged,
}


async def leave(app: App[Any], running: list[str]) -> bool:
    """Leaving the app stops nothing, and says so."""
    detail = f"Still running: {', '.join(running)}. Runs go on without the app, and it finds them again."
    return await app.push_screen_wait(Confirm("Leave?", detail, yes="Leave", no="Stay"))


def free_name(name: str) -> Callable[[str], str]:
    """What is the matter with a new name, in words."""

    def wrong(new: str) -> str:
        try:
            sessions.ensure_free(new if new != name else None)
        except UsageError as error:
            return error.message if sessions.exists(new) else f"{error.message}: {error.hint}"
        return ""

    return wrong


def upto(last: int) -> Callable[[str], str]:
    """What is the matter with a step's number."""

    def wrong(text: str) -> str:
        good = text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= last
        return "" if good else f"give a number from 0 to {last}"

    return wrong
