"""The errors a person sees: what went wrong, with the numbers, and what to do about it.

ZoliteError            something failed while running       exit code 1
├── DiskFull             no room for what is to be saved    exit code 1
├── UsageError         zolite was asked for the impossible  exit code 2
└── DoesNotFit         the plan exceeds the memory          exit code 3
"""

from collections.abc import Sequence


class ZoliteError(Exception):
    """One line of what, with the numbers, and one line of what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DiskFull(ZoliteError):  # noqa: N818 - reads as what it says
    """The disk has no room; it may have later."""


class UsageError(ZoliteError):
    """The command, the recipe or the data is wrong; nothing was started."""

    exit_code = 2


class DoesNotFit(ZoliteError):  # noqa: N818 - reads as what it says
    """The plan needs more memory than there is."""

    exit_code = 3


def listed(problems: Sequence[str], limit: int = 20) -> str:
    """Several problems as one message: all of them up to `limit`, then a count of the rest."""
    shown = "\n".join(f"  {problem}" for problem in problems[:limit])
    rest = len(problems) - limit
    return shown + (f"\n  … and {rest} more" if rest > 0 else "")


def process_error(code: int, stderr: str) -> ZoliteError:
    """The error of a process of zolite that ended with this exit code, by what it wrote on stderr."""
    kinds = {kind.exit_code: kind for kind in (UsageError, DoesNotFit)}
    _, error, text = f"\n{stderr}".rpartition("\nerror: ")
    if error:
        message, _, hint = text.strip().partition("\nhint: ")
        return kinds.get(code, ZoliteError)(message, hint)
    if code < 0:
        return ZoliteError(f"it was killed by signal {-code}", "the system kills what takes too much memory (signal 9)")
    *_, last = stderr.strip().splitlines() or [f"it ended with code {code}"]
    return kinds.get(code, ZoliteError)(last)
