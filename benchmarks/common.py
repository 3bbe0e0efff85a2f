"""What every benchmark needs: zolite as a subprocess, and a result that says where it comes from."""

import datetime
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Case:
    """A step to measure: a model's shape, and a batch of rows of one length."""

    shape: str
    batch: int
    tokens: int
    weights: str = ""
    space: str = "lora"
    microbatch: int = 0  # 0: the whole batch
    copies: int = 0  # 0: as many as the method wants
    rank: int = 0  # 0: the space's own
    budget_bytes: int = 0  # 0: the smallest that it fits
    what: tuple[str, ...] = ("run",)  # is measured


def zolite(*arguments: str) -> list[dict[str, Any]]:
    """The JSON lines that a command prints."""
    command = [sys.executable, "-m", "zolite", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def provenance() -> dict[str, Any]:
    """Machine, driver, versions and commit."""
    import torch

    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    smi = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    card = subprocess.run(smi, capture_output=True, text=True, check=False) if torch.cuda.is_available() else None
    packages = ("zolite", "torch", "transformers", "bitsandbytes", "peft")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": card.stdout.strip() if card else "CPU",
        "cuda": torch.version.cuda,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "commit": os.environ.get("COMMIT") or git,  # COMMIT: for a copy without .git
        # A folder's place on one machine is nobody else's.
        "command": " ".join(["python", *("OUT" if Path(word).is_absolute() else word for word in sys.argv)]),
    }


def slug(machine: str) -> str:
    """A machine's name in a file's."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def write(name: str, rows: list[dict[str, Any]], folder: Path = RESULTS) -> None:
    """FOLDER/NAME.json, and on the screen."""
    print(_written(name, provenance(), rows, folder))


def write_by_card(name: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """FOLDER/NAME-<card>.json."""
    about = provenance()
    _written(f"{name}-{slug(about['machine'].split(',')[0])}", about, rows, folder)


def _written(name: str, about: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"provenance": about, "rows": rows}, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return text
