"""Claims about which files a path means, and which of them are train, dev and test."""

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from zolite.common.errors import UsageError
from zolite.data import hub, sources
from zolite.data.sources import absolute, find, look
from zolite.data.split_names import NAMES, split_in

# Names of files, separated by spaces, and what each split is made of.
LAYOUTS = {
    "export.csv": {"train": "export.csv"},
    "train.jsonl dev.csv test.parquet notes.jsonl": {"train": "train.jsonl", "dev": "dev.csv", "test": "test.parquet"},
    "Train.csv Validation.csv": {"train": "Train.csv", "dev": "Validation.csv"},
    "train.json.gz valid.tsv.zst": {"train": "train.json.gz", "dev": "valid.tsv.zst"},
    "train.jsonl test.jsonl test_extra.jsonl": {"train": "train.jsonl", "test": "test.jsonl"},
    "sst2_train.csv sst2_test.csv": {"train": "sst2_train.csv", "test": "sst2_test.csv"},
    "data/train-00000-of-00001.parquet data/test-00000-of-00001.parquet README.md .gitattributes": {
        "train": "data/train-00000-of-00001.parquet", "test": "data/test-00000-of-00001.parquet"
    },
    "plain_text/train-00000-of-00001.parquet dataset_infos.json LICENSE": {
        "train": "plain_text/train-00000-of-00001.parquet"
    },
    "train-00001-of-00002.parquet train-00000-of-00002.parquet validation-00000-of-00001.parquet": {
        "train": "train-00000-of-00002.parquet train-00001-of-00002.parquet", "dev": "validation-00000-of-00001.parquet"
    },
    "train/data-00000-of-00001.arrow train/state.json test/data-00000-of-00001.arrow dataset_dict.json": {
        "train": "train/data-00000-of-00001.arrow", "test": "test/data-00000-of-00001.arrow"
    },
    "train/a.txt train/b.txt test/c.txt": {"train": "train/a.txt train/b.txt", "test": "test/c.txt"},
    "part-10.jsonl part-2.jsonl part-1.jsonl": {"train": "part-1.jsonl part-2.jsonl part-10.jsonl"},
    "train_1.csv train_2.csv dev.csv old.csv": {"train": "train_1.csv train_2.csv", "dev": "dev.csv"},
    "train_1.csv train_2.csv": {"train": "train_1.csv train_2.csv"},
    "january.csv february.csv": {"train": "february.csv january.csv"},
    "a.md b.md README.md": {"train": "a.md b.md"},
    "rows.csv notes.md classes.txt script.py": {"train": "rows.csv"},
    "book.txt": {"train": "book.txt"},
}  # fmt: skip


def laid_out(folder: Path, names: str) -> Path:
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def relative(found: dict[str, tuple[Path, ...]], folder: Path) -> dict[str, str]:
    return {split: " ".join(file.relative_to(folder).as_posix() for file in files) for split, files in found.items()}


def refusal(spec: Path | str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        look(str(spec))
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("names", LAYOUTS)
def test_layouts_of_folders(tmp_path: Path, names: str) -> None:
    """What people have: one file of any name, files of splits, the hub's shards, parts, what `datasets` saves."""
    assert relative(find(str(laid_out(tmp_path, names))), tmp_path) == LAYOUTS[names]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spelled", ["{}.csv", "{}-00000-of-00001.parquet", "my-{}.jsonl", "{}/rows.csv"])
def test_splits_have_the_names_that_tools_give_them(tmp_path: Path, name: str, spelled: str) -> None:
    laid_out(tmp_path, f"train.csv {spelled.format(name)}" if NAMES[name] != "train" else spelled.format(name))
    expected = {"train", NAMES[name]} if not spelled.startswith("my") or NAMES[name] == "train" else {"train"}
    assert find(str(tmp_path)).keys() == expected


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ("", "has no file of rows (it has nothing)"),
        ("train.csv train.jsonl", "train: 2 files (train.csv, train.jsonl)"),
        ("train.csv dev.csv validation.csv", "dev: 2 files (dev.csv, validation.csv)"),
        ("a.csv b.jsonl", "train: 2 files (a.csv, b.jsonl)"),
        ("train_en.csv train_de.csv", "train: 2 files (train_de.csv, train_en.csv)"),
        ("train-00000-of-00003.parquet train-00002-of-00003.parquet", "train: part 00001 of 00003 is missing"),
        ("train.csv test.xlsx", "test.xlsx: it is a spreadsheet: save the sheet as CSV"),
        ("Book1.xlsx", "Book1.xlsx: it is a spreadsheet: save the sheet as CSV"),
        ("rows.zip", "rows.zip: it is an archive"),
        ("train.log", "train.log: .log is not supported"),
        ("en/train.csv de/train.csv", "has 2 folders of rows"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, names: str, what: str) -> None:
    """Which of several files is meant is not guessed, and no part of a split is left out."""
    assert what in refusal(laid_out(tmp_path, names)).message


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    """Files of rows beside those that are taken, and the order in which parts are joined."""
    laid_out(tmp_path, "train.csv old.csv train.py README.md")
    assert look(str(tmp_path)).notes == ("files that are not read: old.csv",)
    laid_out(tmp_path / "parts", "p1.csv p2.csv")
    assert look(str(tmp_path / "parts")).notes == ("train: 2 files, one behind the other: p1.csv, p2.csv",)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("train.csv", {"train": "train.csv"}),
        ("test.csv", {"train": "test.csv"}),
        ("part-*.jsonl", {"train": "part-2.jsonl part-10.jsonl"}),
        ("part-10.jsonl,part-2.jsonl", {"train": "part-10.jsonl part-2.jsonl"}),
        ("part-10.jsonl, part-*.jsonl", {"train": "part-10.jsonl part-2.jsonl"}),
        ("train.csv,test.csv", {"train": "train.csv", "test": "test.csv"}),
        ("*.csv", {"train": "a,b.csv a.csv train.csv", "test": "test.csv"}),
        ("a.csv,test.csv", {"train": "a.csv", "test": "test.csv"}),
        ("a,b.csv", {"train": "a,b.csv"}),
    ],
)
def test_files_by_name_and_by_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, expected: dict[str, str]
) -> None:
    """Each by its name where they are of several splits, all of them train else; a pattern's in the order of numbers.
    What was given is the same from another folder."""
    laid_out(tmp_path, "train.csv test.csv a.csv part-10.jsonl part-2.jsonl")
    (tmp_path / "a,b.csv").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert relative(find(spec), Path()) == expected
    whole = absolute(spec)
    monkeypatch.chdir("/")
    assert relative(find(whole), tmp_path) == expected


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("nowhere.csv", "is no file and no folder"),
        ("nowhere-*.csv", "nowhere-*.csv: no such file"),
        ("a.csv,b.csv", "b.csv: no such file"),
        ("a.csv,folder", "folder: a folder among files"),
        ("a.csv,a.xlsx", "a.xlsx: it is a spreadsheet"),
        ("link.csv", "is a link that leads nowhere"),
        ("circle.csv", "is a link that leads nowhere"),
        ("hf:", "names no rows of the hub"),
        ("hf:a:b:c:d", "names no rows of the hub"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, what: str) -> None:
    laid_out(tmp_path, "a.csv a.xlsx folder/b.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    (tmp_path / "circle.csv").symlink_to(tmp_path / "circle.csv")
    monkeypatch.chdir(tmp_path)
    assert what in refusal(spec).message


def test_a_folder_with_links_in_a_circle_ends(tmp_path: Path) -> None:
    laid_out(tmp_path, "inner/rows.csv")
    (tmp_path / "inner" / "again").symlink_to(tmp_path)
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    os.mkfifo(tmp_path / "train.jsonl")
    assert relative(find(str(tmp_path)), tmp_path) == {"train": "inner/rows.csv"}


def test_words_of_names() -> None:
    """One split that a name speaks of, as a word and not as a part of one."""
    assert [split_in(name) for name in ("sst2_train", "my-Test.v2", "training set", "constraint", "train_test")] == [
        "train", "test", "train", "", ""
    ]  # fmt: skip


# ---- the hub


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`datasets` with tables in a cache, by (name, config)."""
    tables: dict[Any, list[str]] = {}

    def load(name: str, config: str | None) -> dict[str, Any]:
        if (name, config) not in tables:
            raise ConnectionError(f"Couldn't reach '{name}' on the Hub")
        return {
            split: SimpleNamespace(cache_files=[{"filename": str(tmp_path / f"{split}-{i}.arrow")} for i in range(2)])
            for split in tables[name, config]
        }

    module = ModuleType("datasets")
    module.load_dataset, module.disable_progress_bars = load, lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return tables


def test_rows_of_the_hub(tmp_path: Path, fake_hub: dict[Any, list[str]]) -> None:
    """hf:NAME, with its configuration and one split where they are given; the files are those of the cache."""
    fake_hub["a/b", None] = ["train", "validation", "unsupervised"]
    fake_hub["a/b", "en"] = ["train_sft", "test_sft"]
    both = {split: f"{name}-0.arrow {name}-1.arrow" for split, name in (("train", "train"), ("dev", "validation"))}
    found = look("hf:a/b")
    assert relative(found.files, tmp_path) == both and found.notes == ("splits that are not read: unsupervised",)
    assert relative(find("hf:a/b:en"), tmp_path)["test"] == "test_sft-0.arrow test_sft-1.arrow"
    assert relative(find("hf:a/b:validation"), tmp_path) == {"train": both["dev"]}
    assert relative(find("hf:a/b:en:test_sft"), tmp_path) == {"train": "test_sft-0.arrow test_sft-1.arrow"}
    assert "has no split dev" in refusal("hf:a/b::dev").message
    assert absolute("hf:a/b:en") == "hf:a/b:en"


def test_the_hub_out_of_reach(fake_hub: dict[Any, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline and without the library: one line each, with the command that mends it."""
    error = refusal("hf:a/b")
    assert "data hf:a/b cannot be loaded: Couldn't reach" in error.message
    assert "hf download a/b --repo-type dataset" in error.hint
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install datasets" in refusal("hf:a/b").hint
    assert hub.parts("hf:a/b:en:test") == ("a/b", "en", "test") and sources.find is find
