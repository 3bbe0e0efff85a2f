"""Scores of SmolLM2-135M-Instruct in int8 on tasks, by one command: as it is, with examples before each row, and tuned.

python benchmarks/scores.py DATA [OUT] [--tasks sst2,squad] [--rows 300] [--few-shot 5] [--steps 0] [--device auto]

DATA: a folder with a folder of train, dev and test JSONL for each task. A task of profiles/tasks has that prompt, other
rows the one of their shape. Each line has the task's figures with 95 % intervals: of `zero_shot`, of `few_shot`, and
with --steps of `tuned`, a run of `zolite train` with nothing given but the data and the steps. The first --rows rows of
test are scored, and all that are not choices or labels are answered. A line is written when it is done, to
OUT/scores.jsonl; scores-<card>.json is made of all of them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, write_by_card, zolite

from zolite.cli.score_table import plain
from zolite.config import catalog
from zolite.sessions import manage
from zolite.training.score import Scored, Wanted, scores

MODEL = "builtin:smollm2-135m"
CONTEXT = 1024
PROMPTS = {"trec": "{question}\nType: {label}"}  # of tasks that are not in profiles/tasks


def settings(task: str, device: str) -> dict[str, Any]:
    """Those that every run and every evaluation of a task has, by their paths."""
    known = {"data.task": task} if task in catalog.tasks() else {}
    prompt = {"data.template": PROMPTS[task]} if task in PROMPTS else {}
    return {"model.device": device, "data.context": CONTEXT, **known, **prompt}


@contextmanager
def cut(folder: Path, rows: int) -> Iterator[Path]:
    """The folder with no more test rows than that."""
    with tempfile.TemporaryDirectory() as made:
        for split in ("train", "dev", "test"):
            lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            (Path(made) / f"{split}.jsonl").write_text("".join(lines[: rows if split == "test" else None]), "utf-8")
        yield Path(made)


def figures(scored: Scored) -> dict[str, Any]:
    """What an evaluation says, with its intervals."""
    event = scored.event
    found = {event.metric: event.value, "rows": event.rows, **plain(scored.figures)}
    said = {"says": event.says, "said_right": event.said_right} if scored.report else {}
    return found | {name: plain(value) for name, value in said.items()}


def scored(task: str, data: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line for each way in which the task is done."""
    given, began = settings(task, options.device), time.monotonic()
    found = scores(MODEL, data, given, Wanted(few_shot=options.few_shot, answers=options.rows))
    yield {"task": task, "what": "zero_shot", **figures(found.tuned)}
    if few := found.few_shot:
        about = {"examples": few.count, "fitted": [min(few.fitted), max(few.fitted)]}
        seconds = round(time.monotonic() - began, 1)
        yield {"task": task, "what": "few_shot", **about, **figures(few.scored), "seconds": seconds}


def tuned(task: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    given, began, name = settings(task, options.device), time.monotonic(), f"scores-{task}"
    sets = [word for path, value in given.items() for word in ("--set", f"{path}={value}")]
    zolite("train", MODEL, "--data", str(data), "--name", name, "--steps", str(options.steps), *sets)
    found = scores(name, data, {"model.device": options.device}, Wanted(base=False, answers=options.rows))
    manage.remove(name)
    seconds = round(time.monotonic() - began, 1)
    return {"task": task, "what": "tuned", "steps": options.steps, **figures(found.tuned), "seconds": seconds}


def lines(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What takes no training first, of every task."""
    for steps in (0, options.steps) if options.steps else (0,):
        for task in options.tasks or sorted(path.name for path in options.data.iterdir() if path.is_dir()):
            if (options.data / task / "test.jsonl").exists():
                with cut(options.data / task, options.rows) as data:
                    yield from [tuned(task, data, options)] if steps else scored(task, data, options)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=[])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--few-shot", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="of a run of each task; 0: none is tuned")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def main() -> None:
    options, rows = parsed(), []
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "scores.jsonl").open("a", encoding="utf-8") as log:
        for line in lines(options):
            rows.append(line)
            log.write(json.dumps(line, ensure_ascii=False) + "\n")
            log.flush()
            print(json.dumps(line, ensure_ascii=False), flush=True)
    write_by_card("scores", rows, options.out)


if __name__ == "__main__":
    main()
