"""Adapters, and models with them, in the formats of other programs; and `export`, the function of the Python API."""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from zolite.sessions import session as sessions

if TYPE_CHECKING:
    from zolite.export.export import Done


def export_session(
    name: str,
    folder: str | Path,
    format: str = "peft",
    *,
    step: int | str = "last",
    dtype: str = "",
    replace: bool = False,
    verify: bool = True,
) -> "Done":
    """Write a session's adapter for other programs, read it back as they would, and only then let the folder appear.

    `format` is peft, gguf, merged or merged-gguf. `step` is a number, "last", "best" (of the evaluations on the dev
    split) or numbers with commas for their mean. `dtype` is one of the format's, its first where none is given.
    `replace` lets it replace what an earlier export left in `folder`. The result has the comparison with the session
    on held-out rows (`reports`). Raises UsageError for what cannot be written, ZoliteError where the comparison fails.
    """
    from zolite.export import export

    with sessions.open_(name) as session:
        return export.export(session, Path(folder).expanduser(), format, str(step), dtype, replace, verify)


class _Callable(ModuleType):
    """`zolite.export` is the function, until Python binds this package to that name, as it does on the first import of
    one of its modules. So the package can be called as the function, and nobody has to know which of the two it is.
    """

    __call__ = staticmethod(export_session)


sys.modules[__name__].__class__ = _Callable
