"""Plausible mistakes, planted one at a time: does a test of their area catch each?

    uv run python tests/planted.py                    all of tests/planted.toml; exits with 1 where one is not caught
    uv run python tests/planted.py sessions rewind    those that have all of these words in their area, text or file
    uv run python tests/planted.py --clean            the same tests without a mistake: all of them have to pass

A mistake is one text in one file that becomes another. It is planted in a copy of the checkout, which is the only place
that this changes, and the tests that are named beside it run there, in a process of their own. What the checkout does
not have any more is named as stale.
"""

import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("planted.toml")
LEFT_OUT = (".git", ".venv", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis")
LIMIT_SECONDS = 1200  # for the tests of a mistake that makes them wait for ever: it is caught then
QUIET = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=no", "-W", "ignore")


STATES = ("caught", "not caught", "stale", "broken")  # broken: its tests did not run at all


@dataclass(frozen=True)
class Mistake:
    area: str  # a package
    what: str
    file: str
    old: str  # once in the file
    new: str
    tests: tuple[str, ...]  # what pytest is given: files, or single tests, that are to catch it

    def __str__(self) -> str:
        return f"{self.area}: {self.what}"

    def has(self, words: Sequence[str]) -> bool:
        return all(word.lower() in f"{self} {self.file}".lower() for word in words)


@dataclass(frozen=True)
class Verdict:
    state: str  # one of STATES
    detail: str  # the test that caught it


def mistakes(words: Sequence[str] = ()) -> list[Mistake]:
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["mistake"]
    found = [Mistake(**row | {"tests": tuple(row["tests"])}) for row in rows]
    return [each for each in found if each.has(words)]


def copied(folder: Path) -> Path:
    """The checkout in a folder of its own, where the app lies as a wheel has it."""
    copy = folder / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    (copy / "zolite" / "tui").symlink_to(copy / "tui")
    return copy


def judged(mistake: Mistake, copy: Path) -> Verdict:
    """Plants a mistake, runs its tests, and takes it out again."""
    path = copy / mistake.file
    text = path.read_text(encoding="utf-8")
    if text.count(mistake.old) != 1:
        return Verdict("stale", f"its text is {text.count(mistake.old)} times in {mistake.file}")
    path.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
    try:
        code, printed = run(copy, mistake.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    lines = [line for line in printed.splitlines() if line.startswith(("FAILED", "ERROR"))]
    state = {0: "not caught", 1: "caught", -9: "caught"}.get(code, "broken")
    return Verdict(state, lines[0][:160] if lines else printed.strip()[-160:])


def run(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    """(exit code, what was printed) of these tests, in a child that has the libraries already, and not zolite."""
    log = copy.with_name("log")
    child = os.fork()
    if not child:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy)
        sys.path.insert(0, str(copy))
        import pytest

        os._exit(int(pytest.main([*QUIET, *tests])))
    return ended(child), log.read_text(errors="replace")


def ended(child: int) -> int:
    until = time.monotonic() + LIMIT_SECONDS
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(child, 9)
        time.sleep(0.1)


def verdicts(chosen: Sequence[Mistake]) -> Iterator[tuple[Mistake, Verdict]]:
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = copied(Path(folder))
        for mistake in chosen:
            yield mistake, judged(mistake, copy)


def unplanted(chosen: Sequence[Mistake]) -> int:
    """Runs the tests as they are; how many do not pass."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = copied(Path(folder))
        failed = {tests: printed for tests in {m.tests for m in chosen} for code, printed in [run(copy, tests)] if code}
    for tests, printed in failed.items():
        print(f"{' '.join(tests)}\n{printed}")
    return len(failed)


def main(words: Sequence[str]) -> int:
    import hypothesis  # noqa: F401 - once, for all children
    import textual.app  # noqa: F401
    import torch
    import transformers  # noqa: F401

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
    if "--clean" in words:
        return unplanted(mistakes([word for word in words if word != "--clean"]))
    found = []
    for mistake, verdict in verdicts(mistakes(words)):
        found.append(verdict)
        print(f"{verdict.state:<10}  {mistake}\n            {verdict.detail}", flush=True)
    counts = {state: sum(v.state == state for v in found) for state in STATES}
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return int(counts["caught"] < len(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
