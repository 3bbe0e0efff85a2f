"""zolite: fine-tune language models with forward passes alone.

    from zolite import Recipe, train

    recipe = Recipe.of({"model.name": "builtin:smollm2-135m", "data.path": "rows/"})
    for event in train(recipe, name="first"):
        print(event)

The names below are the public API (docs/api.md). They are looked up when they are first asked for, so that
`import zolite` loads nothing heavy: only prepare, train, resume, evaluate and export load torch, and only once called.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zolite.api import evaluate, open_session, plan, prepare, resume, train
    from zolite.config.recipe import Recipe
    from zolite.export import export_session as export

    __version__: str

__all__ = ["Recipe", "__version__", "evaluate", "export", "open_session", "plan", "prepare", "resume", "train"]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # a type checker would take any name for one that there is

    def __getattr__(name: str) -> object:
        from importlib import import_module, metadata

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "__version__":  # reading the package's metadata takes as long as the rest of a start
            return metadata.version("zolite")
        if name == "export":  # the package, which can be called as the function (zolite/export/__init__.py)
            return import_module("zolite.export")
        return getattr(import_module("zolite.config.recipe" if name == "Recipe" else "zolite.api"), name)
