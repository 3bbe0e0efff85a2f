"""What can be known of a run besides its journal: its rows, where its memory goes by the plan, tokens a step."""

from collections.abc import Callable
from pathlib import Path

from zolite.common.errors import ZoliteError
from zolite.config import catalog
from zolite.config.recipe import ResolvedRecipe
from zolite.data import hub
from zolite.data import rows as tables
from zolite.data.lengths import Rows, estimate, mean_tokens
from zolite.data.rows import Dataset
from zolite.data.sources import find
from zolite.planner import model_spec
from zolite.planner.hardware import Hardware
from zolite.planner.memory import Ledger, ledger

LARGEST = 16 << 20  # bytes of a data file whose rows are counted


def planned(recipe: ResolvedRecipe, machine: Callable[[], Hardware]) -> Ledger | None:
    """Where the planner would say that the memory goes; None where it cannot know without the network."""
    if not _here(recipe.model.name):
        return None
    try:
        return ledger(machine(), model_spec.spec(recipe.model.name), recipe, _rows(recipe))
    except (ZoliteError, OSError, ValueError, KeyError):
        return None


def _here(model: str) -> bool:
    """Are its weights on this machine?"""
    if model.startswith("builtin:") or Path(model).expanduser().exists() or model_spec.place(model):
        return True
    return any(model.lower() in (short, known.hub.lower()) for short, known in catalog.models().items())


def _rows(recipe: ResolvedRecipe) -> Rows:
    path, longest = Path(recipe.data.path), recipe.data.context
    if not _small(path):
        return Rows(longest, -(-longest // 8))
    return estimate(path, recipe.data.template, None, longest, recipe.data.columns, recipe.data.verbalizer)


def dataset(recipe: ResolvedRecipe, fingerprint: object) -> Dataset | None:
    """The rows that a run was trained on; None where they are gone, other ones by now, or too many to read quickly."""
    try:
        found = tables.of(recipe.data) if _small(Path(recipe.data.path)) else None
    except (ZoliteError, OSError, ValueError):
        return None
    return found if found is not None and found.fingerprint == fingerprint else None


def encoder(model: str) -> bool:
    """Does it fill in masks, as far as this machine knows?"""
    try:
        return _here(model) and model_spec.spec(model).encoder
    except (ZoliteError, OSError, ValueError, KeyError):
        return False


def tokens_per_step(recipe: ResolvedRecipe, copies: int) -> float:
    """About how many tokens a step reads, all perturbed copies; 0 where the rows cannot be read."""
    path, data = Path(recipe.data.path), recipe.data
    try:
        mean = mean_tokens(path, data.template, data.context, data.columns, data.verbalizer) if _small(path) else 0.0
    except ZoliteError:
        return 0.0
    return mean * recipe.train.batch * copies


def _small(path: Path) -> bool:
    """Is it there, and small enough to read its rows quickly?"""
    if str(path).startswith(hub.PREFIX):  # which may have to be downloaded
        return False
    try:
        files = [file for several in find(str(path)).values() for file in several]
        return 0 < sum(file.stat().st_size for file in files) <= LARGEST
    except (OSError, ZoliteError):
        return False
