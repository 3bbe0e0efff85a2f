"""Scores of SmolLM2-135M-Instruct in int8 on tasks, by one command: as it is, with examples before each row, and tuned.

python benchmarks/scores.py DATA [OUT] [--tasks sst2,squad] [--rows 300] [--few-shot 5] [--steps 0] [--together 1]
    [--seconds 0] [--model builtin:smollm2-135m] [--device auto]

DATA: a folder with a folder of train, dev and test JSONL for each task. A task of profiles/tasks has that prompt, other
rows the one of their shape. Each line has the task's figures with 95 % intervals: of `zero_shot`, of `few_shot`, and
with --steps of `tuned`, a run of `zolite train` with nothing given but the data and the steps. The first --rows rows of
test are scored, and all that are not choices or labels are answered. So many tasks as --together says are done at once,
each in a process of its own. A line is written when it is done, to OUT/scores.jsonl; what is in there already is not
done again. scores-<card>.json is made of all lines. After --seconds no more is begun, and what is not done is ended.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, write_by_card, zolite

from zolite.cli.score_table import plain
from zolite.config import catalog
from zolite.sessions import manage
from zolite.training.score import Scored, Wanted, scores

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
    found = scores(options.model, data, given, Wanted(few_shot=options.few_shot, answers=options.rows))
    yield {"task": task, "what": "zero_shot", **figures(found.tuned)}
    if few := found.few_shot:
        about = {"examples": few.count, "fitted": [min(few.fitted), max(few.fitted)]}
        seconds = round(time.monotonic() - began, 1)
        yield {"task": task, "what": "few_shot", **about, **figures(few.scored), "seconds": seconds}


def tuned(task: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    given, began, name = settings(task, options.device), time.monotonic(), f"scores-{task}"
    sets = [word for path, value in given.items() for word in ("--set", f"{path}={value}")]
    zolite("train", options.model, "--data", str(data), "--name", name, "--steps", str(options.steps), *sets)
    found = scores(name, data, {"model.device": options.device}, Wanted(base=False, answers=options.rows))
    manage.remove(name)
    seconds = round(time.monotonic() - began, 1)
    return {"task": task, "what": "tuned", "steps": options.steps, **figures(found.tuned), "seconds": seconds}


def done(folder: Path) -> list[dict[str, Any]]:
    """The last line of each task and way."""
    log = folder / "scores.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    return list({(line["task"], line["what"]): line for line in lines}.values())


def work(task: str, what: str, options: argparse.Namespace) -> None:
    """One task in this process: its lines, each in one write to the end of the file that all of them share."""
    with cut(options.data / task, options.rows) as data, (options.out / "scores.jsonl").open("ab", buffering=0) as log:
        for line in [tuned(task, data, options)] if what == "tuned" else scored(task, data, options):
            log.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
            print(json.dumps(line, ensure_ascii=False), flush=True)


def elsewhere(task: str, what: str, until: float | None) -> str:
    """`work` in a process of its own; what went wrong, or ""."""
    left = None if until is None else until - time.monotonic()
    if left is not None and left <= 0:
        return f"{task}, {what}: no time was left"
    command = [sys.executable, *sys.argv, "--only", task, what]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        try:
            _, errors = child.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # with the run that it started
            return f"{task}, {what}: not done in time"
    return f"{task}, {what}: {errors[-2000:]}" if child.returncode else ""


def wanted(options: argparse.Namespace) -> list[tuple[str, str]]:
    """What is not done yet; what takes no training first, of every task."""
    names = options.tasks or sorted(path.name for path in options.data.iterdir() if path.is_dir())
    tasks = [name for name in names if (options.data / name / "test.jsonl").exists()]
    last = "few_shot" if options.few_shot else "zero_shot"
    known = {(line["task"], line["what"]) for line in done(options.out)}
    asked = [(task, last) for task in tasks] + [(task, "tuned") for task in tasks if options.steps]
    return [each for each in asked if each not in known]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=[])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--few-shot", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="of a run of each task; 0: none is tuned")
    parser.add_argument("--together", type=int, default=1, help="tasks at once")
    parser.add_argument("--seconds", type=float, default=0, help="0: as long as it takes")
    parser.add_argument("--model", default="builtin:smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs=2, metavar=("TASK", "WHAT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only:
        work(*options.only, options)
        return
    until = time.monotonic() + options.seconds if options.seconds else None
    with ThreadPoolExecutor(options.together) as pool:
        failures = list(pool.map(lambda each: elsewhere(*each, until), wanted(options)))
    write_by_card("scores", done(options.out), options.out)
    if failures := [each for each in failures if each]:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
