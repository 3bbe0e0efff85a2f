"""Claims about files as people have them (corpus.py): what each of them means, and what docs/data.md says of it."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.data.corpus import DOCUMENT, Case, cases, renewed
from zolite.common.errors import UsageError
from zolite.data.encode import encode, fingerprint
from zolite.data.preview import report
from zolite.data.rows import Dataset

CONTEXT = 2**20
CASES = {case.path: case for case in cases()}
ACCEPTED = [path for path, case in CASES.items() if case.rows]
REFUSED = [path for path, case in CASES.items() if not case.rows]


def tokens(dataset: Dataset, case: Case, tokenizer: PreTrainedTokenizerFast) -> str:
    """Of all that a model would read and learn."""
    asked = (dataset.kind, dataset.labels, tokenizer, case.template, CONTEXT)
    return fingerprint({split: encode(rows, *asked).examples for split, rows in dataset.splits.items()})


def test_there_are_many() -> None:
    """Every one under a name of its own."""
    assert len(cases()) == len(CASES) >= 60 and len(ACCEPTED) >= 60 and len(REFUSED) >= 20


@pytest.mark.parametrize("path", ACCEPTED)
def test_a_file_is_its_plain_twin(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The rows and the tokens of a file are those of plain JSONL that says the same."""
    case = CASES[path]
    case.write(tmp_path)
    case.write_twin(tmp_path / "twin")
    monkeypatch.chdir(tmp_path)
    found, twin = case.load(path), case.load("twin")
    assert (found.kind, found.labels, found.fingerprint) == (twin.kind, twin.labels, twin.fingerprint)
    assert {s: [row.content() for row in rows] for s, rows in found.splits.items()} == {
        s: [row.content() for row in rows] for s, rows in twin.splits.items()
    }
    assert tokens(found, case, tokenizer) == tokens(twin, case, tokenizer)


@pytest.mark.parametrize("path", REFUSED)
def test_a_refusal_says_what_to_do(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a line or a few, each with the name of its file, and a hint; `data check` lists the same."""
    case = CASES[path]
    case.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        case.load(path)
    assert caught.value.hint and len(caught.value.message) < 1000
    found = report(Path(path), case.template)
    assert found.problems and all(problem in caught.value.message for problem in found.problems)


def test_the_corpus_is_the_same_every_time() -> None:
    again = {case.path: case for case in cases()}
    assert {path: json.dumps(case.rows) for path, case in again.items()} == {
        path: json.dumps(case.rows) for path, case in CASES.items()
    }
    assert all(again[path].files == CASES[path].files for path in CASES)


def test_the_guide_is_up_to_date() -> None:
    """`python tests/data/corpus.py` writes the table of docs/data.md; run it where this fails."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert renewed(text) == text
