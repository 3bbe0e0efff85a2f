"""zolite: fine-tune language models with forward passes alone."""

from importlib.metadata import version

__version__ = version("zolite")
