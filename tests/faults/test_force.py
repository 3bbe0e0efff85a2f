"""`export --force` takes only what an export left there, as it left it; everything else is refused by its name."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zolite.common.errors import UsageError
from zolite.export import export as exports


def exported(folder: Path) -> Path:
    """A folder as an export leaves it."""
    folder.mkdir()
    for name in ("adapter_model.safetensors", "README.md"):
        (folder / name).write_text(name)
    files = {file.name: exports._noted(file) for file in folder.iterdir()}
    (folder / exports.REPORT).write_text(json.dumps({"session": "run", "files": files}))
    return folder


def another(folder: Path) -> str:
    (folder / "thesis.txt").write_text("years of work")
    return "thesis.txt"


def another_folder(folder: Path) -> str:
    (folder / "photos").mkdir()
    (folder / "photos" / "1.jpg").write_text("x")
    return "photos"


def hidden(folder: Path) -> str:
    (folder / ".git").mkdir()
    return ".git"


def edited(folder: Path) -> str:
    (folder / "README.md").write_text("README.my")
    return "README.md"


def longer(folder: Path) -> str:
    with (folder / "README.md").open("a") as file:
        file.write("and my notes")
    return "README.md"


def linked(folder: Path) -> str:
    """With the right content behind it."""
    (folder / "README.md").rename(folder.parent / "kept")
    (folder / "README.md").symlink_to(folder.parent / "kept")
    return "README.md"


def pipe(folder: Path) -> str:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    return "README.md"


def without_digests(folder: Path) -> str:
    (folder / exports.REPORT).write_text(json.dumps({"session": "run"}))
    return "export.json"


def list_of_names(folder: Path) -> str:
    (folder / exports.REPORT).write_text(json.dumps({"files": ["README.md", "adapter_model.safetensors"]}))
    return "export.json"


def brackets(folder: Path) -> str:
    (folder / exports.REPORT).write_text("[" * 100_000)
    return "export.json"


def linked_report(folder: Path) -> str:
    (folder / exports.REPORT).rename(folder.parent / "report")
    (folder / exports.REPORT).symlink_to(folder.parent / "report")
    return "export.json"


def escapes(folder: Path) -> str:
    (folder / "\x1b[2J").touch()
    return r"\\x1b\[2J"


CHANGES = (
    another, another_folder, hidden, edited, longer, linked, pipe, without_digests, list_of_names, brackets,
    linked_report, escapes,
)  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="no pipes and links there")
@pytest.mark.parametrize("change", CHANGES)
def test_what_no_export_made_is_refused_by_name(change: Callable[[Path], str], tmp_path: Path) -> None:
    """With or without --force, and nothing is changed."""
    folder = exported(tmp_path / "out")
    exports._check_free(folder, force=True)
    name = change(folder)
    with pytest.raises(UsageError, match=name) as refused:
        exports._check_free(folder, force=True)
    assert "--to" in refused.value.hint and refused.value.message.isprintable() is False  # a line for each name
    assert "\x1b" not in refused.value.message
    with pytest.raises(UsageError, match="exists and is not empty"):
        exports._check_free(folder, force=False)


def test_all_that_is_foreign_is_named_at_once(tmp_path: Path) -> None:
    """And a file that the report lists may be missing."""
    folder = exported(tmp_path / "out")
    (folder / "adapter_model.safetensors").unlink()
    exports._check_free(folder, force=True)
    another(folder), edited(folder), hidden(folder)
    with pytest.raises(UsageError) as refused:
        exports._check_free(folder, force=True)
    assert all(name in refused.value.message for name in ("thesis.txt", "README.md", ".git"))


def test_a_report_says_the_digests_of_the_files(tmp_path: Path) -> None:
    """As sha256sum computes them."""
    (tmp_path / "x").write_bytes(b"abc")
    assert exports._noted(tmp_path / "x") == {"sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3}
