"""What runs on this machine took beside what was predicted, and what that says of the next plan.

record(recipe, rows, mean_tokens, peak_bytes, seconds, device)     at the end of a run
so_far(hardware)                                                   before the next plan
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import filelock

from zolite.common import files
from zolite.common.paths import paths
from zolite.config.recipe import ResolvedRecipe
from zolite.data.lengths import Rows
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner.hardware import Hardware
from zolite.planner.memory import allocated, ledger, mapped, ours
from zolite.planner.step_time import step_seconds

FILE = "runs.json"
KEPT = 200  # runs, the latest


@dataclass(frozen=True)
class Seen:
    """A run: what of it was predicted, without any correction, and what was measured."""

    machine: str
    model: str
    weights: str
    batch: int
    tokens: int
    predicted_bytes: int
    measured_bytes: int
    predicted_s: float
    measured_s: float
    device: str = ""
    rates: str = ""  # Hardware.origin: a profile measured since predicts otherwise


@dataclass(frozen=True)
class Correction:
    """Medians of measured ÷ predicted; `spread` is the largest departure from them, as a share."""

    runs: int = 0
    bytes: float = 1.0
    seconds: float = 1.0
    by_weights: tuple[tuple[str, float], ...] = ()  # seconds, where a format has runs of its own
    by_model: tuple[tuple[tuple[str, str], float], ...] = ()  # and where a model has, in that format
    spread: float = 0.0

    def seconds_of(self, weights: str, model: str) -> float:
        """Of the nearest runs: small models wait for other things than large ones."""
        general = dict(self.by_weights).get(weights, self.seconds)
        return dict(self.by_model).get((weights, model), general)


def record(recipe: ResolvedRecipe, rows: Rows, mean_tokens: int, peak_bytes: int, seconds: float, device: str) -> Seen:
    """Remember a finished run. `peak_bytes` as engine/device_memory.py has it, `seconds` a step's median.

    `rows` are those of the data; a step's time follows the mean length of its sequences, the peak the longest.
    """
    hardware, spec = machine.here(device), model_spec.spec(recipe.model.name)
    lines = ledger(hardware, spec, recipe, rows)
    held = allocated(lines) if hardware.device == "cuda" else ours(lines) + mapped(spec)
    step = step_seconds(hardware, spec, recipe, replace(rows, tokens=mean_tokens))
    seen = Seen(
        machine=machine_name(),
        model=recipe.model.name,
        weights=recipe.model.quant,
        batch=recipe.train.batch,
        tokens=rows.tokens,
        predicted_bytes=held,
        measured_bytes=peak_bytes,
        predicted_s=step,
        measured_s=seconds,
        device=hardware.device,
        rates=hardware.origin,
    )
    keep(seen)
    return seen


def keep(seen: Seen) -> None:
    """One process at a time, whole or not at all."""
    path = file()
    with files.saving("what a run took", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock", timeout=10):
            rows = [asdict(each) for each in [*_all(), seen]][-KEPT:]
            files.replace(path, (json.dumps(rows, indent=1) + "\n").encode())


def so_far(hardware: Hardware) -> Correction:
    """Of this machine's runs on that device, as far as they were predicted by the same rates."""
    alike = (machine_name(), hardware.device, hardware.origin)
    return summed([each for each in _all() if (each.machine, each.device, each.rates) == alike])


def summed(runs: Sequence[Seen]) -> Correction:
    if not runs:
        return Correction()
    space, time = ([_ratio(each, what) for each in runs] for what in ("bytes", "s"))
    formats = sorted({each.weights for each in runs})
    by = tuple((f, median(_ratio(each, "s") for each in runs if each.weights == f)) for f in formats)
    pairs = sorted({(each.weights, each.model) for each in runs})
    own = tuple((p, median(_ratio(each, "s") for each in runs if (each.weights, each.model) == p)) for p in pairs)
    middle = {"bytes": median(space), "s": median(time)}
    off = max(abs(_ratio(each, what) / middle[what] - 1) for each in runs for what in middle)
    return Correction(len(runs), middle["bytes"], middle["s"], by, own, off)


def file() -> Path:
    return paths()["state"] / FILE


def machine_name() -> str:
    return str(machine.about()["machine"])


def _ratio(seen: Seen, what: str) -> float:
    return float(getattr(seen, f"measured_{what}") / getattr(seen, f"predicted_{what}"))


def _all() -> list[Seen]:
    """Those of a file that cannot be read, or that another version wrote, are forgotten."""
    try:
        rows: list[dict[str, Any]] = json.loads(file().read_bytes())
        return [seen for seen in (Seen(**row) for row in rows) if seen.predicted_bytes > 0 and seen.predicted_s > 0]
    except (OSError, ValueError, TypeError):
        return []
