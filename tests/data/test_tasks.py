"""Claims about published tasks: prompts and answers are those of MeZO's code, from rows as the hub has them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from zolite.cli.main import app
from zolite.common.errors import UsageError
from zolite.config import catalog
from zolite.config.recipe import Recipe
from zolite.data import rows as tables
from zolite.data.kinds.registry import KINDS

Rows = list[tuple[dict[str, Any], str, str]]
PAIR = {"premise": "P.", "hypothesis": "H"}
PASSAGE = "Alba won.\n@highlight\nBert lost"
QUERY = "@placeholder was happy"
TASKS: dict[str, Rows] = {
    "sst2": [
        ({"sentence": "a fine film ", "label": 1, "idx": 0}, "a fine film It was", " great"),
        ({"sentence": "a dull film", "label": "negative"}, "a dull film It was", " terrible"),
    ],
    "rte": [
        (PAIR | {"label": label}, 'P.\nDoes this mean that "H" is true? Yes or No?', f"\n{word}")
        for label, word in ((0, "Yes"), ("not_entailment", "No"))
    ],
    "cb": [
        (PAIR | {"label": i}, 'Suppose P. Can we infer that "H"? Yes, No, or Maybe?', f"\n{word}")
        for i, word in enumerate(("Yes", "No", "Maybe"))
    ],
    "boolq": [
        ({"passage": "Talc.", "question": "is talc soft", "answer": True}, "Talc. Is talc soft?", "\nYes"),
        ({"passage": "A.", "question": "Is b?", "answer": False}, "A. Is b?", "\nNo"),
    ],
    "wsc": [
        (
            {"text": "Ann met Bea; She left.", "span1_text": "Ann", "span2_text": "She", "label": i},
            'Ann met Bea; She left.\nIn the previous sentence, does the pronoun "she" refer to Ann? Yes or No?',
            f"\n{word}",
        )
        for i, word in enumerate(("No", "Yes"))
    ],
    "wic": [
        (
            {"word": "bank", "sentence1": "A bank.", "sentence2": "My bank.", "label": i},
            'Does the word "bank" have the same meaning in these two sentences? Yes, No?\nA bank.\nMy bank.',
            f"\n{word}",
        )
        for i, word in enumerate(("No", "Yes"))
    ],
    "multirc": [
        (
            {"paragraph": "P.", "question": "Q?", "answer": "A", "label": i},
            'P.\nQuestion: Q?\nI found this answer "A". Is that correct? Yes or No?',
            f"\n{word}",
        )
        for i, word in enumerate(("No", "Yes"))
    ],
    "copa": [
        (
            {"premise": "It rained. ", "choice1": "We ran.", "choice2": "We SAT.", "question": "effect", "label": 0},
            "It rained so",
            " we ran.",
        ),
        (
            {"premise": "I fell.", "choice1": "NASA lied.", "choice2": "I ran.", "question": "cause", "label": 1},
            "I fell because",
            " I ran.",
        ),
    ],
    "record": [
        (
            {"passage": PASSAGE, "query": QUERY, "entities": ["Bert", "Alba"], "answers": ["Alba"]},
            "Alba won.\n- Bert lost\n-",
            " Alba was happy",
        ),
    ],
    "squad": [
        (
            {"title": "T", "context": "C.", "question": " Q? ", "answers": {"text": ["a", "b"], "answer_start": [0]}},
            "Title: T\nContext: C.\nQuestion: Q?\nAnswer:",
            " a",
        ),
    ],
    "drop": [
        (
            {"passage": "C.", "question": "Q?", "answers_spans": {"spans": ["4", "four"], "types": ["number", "span"]}},
            "Passage: C.\nQuestion: Q?\nAnswer:",
            " 4",
        ),
    ],
}  # fmt: skip


def dataset(task: str, where: Path) -> tuple[tables.Dataset, str]:
    file = where / "rows.jsonl"
    records = [record for record, _, _ in TASKS[task]]
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    data = Recipe.of({"data.task": task, "data.path": str(file)}).data
    return tables.of_for_eval(data, ()), data.template


@pytest.mark.parametrize("task", catalog.tasks())
def test_prompts_are_those_of_mezo(task: str, tmp_path: Path) -> None:
    """The prompt, and behind it the right answer, letter for letter."""
    found, template = dataset(task, tmp_path)
    for row, (_, prompt, answer) in zip(found.splits["train"], TASKS[task], strict=True):
        asked, right = KINDS[found.kind].pieces(row, template)
        assert (asked.text, right.text) == (prompt, answer) and right.trained and not asked.trained
    assert catalog.task(task).metric == ("f1" if task in ("squad", "drop") else "accuracy")


def test_candidates_are_those_of_mezo(tmp_path: Path) -> None:
    """With the first word small, and each entity in its sentence; all answers of a question are references."""
    copa, record, squad = (dataset(task, tmp_path)[0].splits["train"] for task in ("copa", "record", "squad"))
    assert [row.choices for row in copa] == [("we ran.", "we SAT."), ("nasa lied.", "I ran.")]
    assert record[0].choices == ("Bert was happy", "Alba was happy") and squad[0].references == ("b",)


def test_its_settings_may_be_changed() -> None:
    """A template of one's own stays, and an unknown task is refused with the nearest."""
    assert (
        Recipe.of({"data.task": "sst2", "data.template": "{sentence}: {label}"}).data.template == "{sentence}: {label}"
    )
    with pytest.raises(UsageError, match="no task 'sst3'") as refused:
        Recipe.of({"data.task": "sst3"})
    assert refused.value.hint == "nearest: sst2"


def test_rows_of_another_task_are_refused_as_others_are(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": 3, "premise": null}\n' * 2)
    for task in catalog.tasks():
        with pytest.raises(UsageError):
            tables.of_for_eval(Recipe.of({"data.task": task, "data.path": str(file)}).data, ())


def test_commands_take_the_prompt_and_the_words_of_a_task(tmp_path: Path) -> None:
    """`data check` shows them, and `plan` counts their tokens; of both alike what is given for oneself stays."""
    file = tmp_path / "rows.jsonl"
    rows = [{"premise": f"It rained {i}.", "hypothesis": "It was wet.", "label": i % 2} for i in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def checked(*more: str) -> Any:
        return json.loads(CliRunner().invoke(app, ["data", "check", str(file), "--json", *more]).stdout)

    assert set(checked()["labels"]) == {"0", "1"}
    found = checked("--task", "rte")
    assert set(found["labels"]) == {"Yes", "No"}
    assert "".join(piece["text"] for piece in found["first"][0]["pieces"]) == (
        'It rained 0.\nDoes this mean that "It was wet." is true? Yes or No?\nYes'
    )
    assert set(checked("--task", "rte", "--verbalizer", "0=true,1=false")["labels"]) == {"true", "false"}
    long = "{premise} {hypothesis} " + "and so on " * 40 + "{label}"
    tokens = {asked: planned(file, *asked) for asked in ((), ("--task", "rte"), ("--task", "rte", "--template", long))}
    plain, task, own = tokens.values()
    assert plain < task < own


def planned(file: Path, *more: str) -> int:
    """Tokens of the longest row, as the plan of a model takes it."""
    asked = ["plan", "smollm2-135m", "--vram", "8GiB", "--data", str(file), "--json", *more]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    return int(json.loads(done.stdout)["plans"][0]["context"])
