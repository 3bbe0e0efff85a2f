"""zolite: fine-tune language models with forward passes alone."""


def __getattr__(name: str) -> str:
    """`__version__` when it is asked for: reading the package's metadata takes as long as the rest of a start."""
    if name == "__version__":
        from importlib.metadata import version

        return version("zolite")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
