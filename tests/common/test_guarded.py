"""Claims about files that may be anything: opened as what they should be, read within limits."""

import json
import os
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.common import guarded

leaf = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20)
value = st.recursive(leaf, lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(max_size=8), s, max_size=4))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may have some hundred bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("{}")
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in folders")
@pytest.mark.parametrize(
    ("make", "kind"), [(pipe, "a pipe"), (bound_socket, "a socket"), (link, "a link"), (Path.mkdir, "a folder")]
)
@pytest.mark.parametrize("read", [guarded.json_of, guarded.toml_of, guarded.read, guarded.tail])
def test_only_files_are_opened(
    read: Callable[[Path, int], Any], make: Callable[[Path], None], kind: str, tmp_path: Path
) -> None:
    """What is no file is refused by what it is, without waiting for it."""
    make(tmp_path / "x")
    with pytest.raises(ValueError, match=f"x is {kind}, not a file"):
        read(tmp_path / "x", 1000)


def test_devices_are_not_opened() -> None:
    """A device has no end, and some do something when they are opened."""
    with pytest.raises(ValueError, match="zero is a device, not a file"):
        guarded.read(Path("/dev/zero"), 1000)


def test_a_link_in_the_place_of_a_folder(tmp_path: Path) -> None:
    """Is no folder."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    guarded.ensure_folder(tmp_path / "real")
    with pytest.raises(ValueError, match="link is a link, not a folder"):
        guarded.ensure_folder(tmp_path / "link")


@pytest.mark.parametrize("size", [0, 9, 10, 11, 10_000_000])
def test_no_more_is_read_than_may_be(size: int, tmp_path: Path) -> None:
    """A file of the largest size is read, a larger one refused with both sizes; a sparse one takes no memory."""
    with (path := tmp_path / "x").open("wb") as file:
        file.truncate(size)
    if size <= 10:
        assert guarded.read(path, 10) == bytes(size)
        return
    with pytest.raises(ValueError, match="more than the 10 B that it may have"):
        guarded.read(path, 10)


@settings(max_examples=50)
@given(values=st.dictionaries(st.text(max_size=8), value, max_size=4))
def test_what_is_within_the_limits_is_read_as_ever(values: dict[str, Any], tmp_path_factory: Any) -> None:
    """Whatever strings and keys hold, brackets and dots and quotes among them."""
    folder = tmp_path_factory.mktemp("x")
    (folder / "json").write_text(json.dumps(values))
    assert guarded.json_of(folder / "json", 1 << 20) == values
    text = tomli_w.dumps(values)
    (folder / "toml").write_text(text, encoding="utf-8", newline="")
    assert guarded.toml_of(folder / "toml", 1 << 20) == tomllib.loads(text)


def test_long_texts_with_dots_and_brackets_are_texts(tmp_path: Path) -> None:
    """A label is no key and no table, whatever is in it and however it is quoted."""
    odd = [".".join("abcdefghijklmnopqrstuvwxyz"), "\n[" * 3000, '"' * 9, "#" + "[" * 99, "'''", '\\"[' * 50]
    (tmp_path / "x").write_text(tomli_w.dumps({"labels": odd}, multiline_strings=True), newline="")
    assert guarded.toml_of(tmp_path / "x", 1 << 20) == {"labels": odd}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a = " + "[" * 20_000 + "]" * 20_000, "nested more than 32 deep"),
        ("a = " + "[" * 33 + "]" * 33, "nested more than 32 deep"),
        ("a = " + "{b=" * 40 + "1" + "}" * 40, "nested more than 32 deep"),
        (".".join(["a"] * 200_000) + " = 1", "more than 16 parts"),
        ("[" + " . ".join(['"a"'] * 20_000) + "]", "more than 16 parts"),
        ("\n".join(f"[a.b{i}]" for i in range(60_000)), "60,000 tables"),
        ("a = " + "9" * 400, "too large"),
        ("a = " + "9" * 5000, "4300"),
        ('a = "' + '\\"' * 200_000, "Unterminated"),
        ("a = '''" * 50_000, "Expected newline"),
        ("\x00\xff" * 1000, "utf-8"),
    ],
    ids=range(11),
)
def test_texts_made_to_take_all_there_is(text: str, what: str, tmp_path: Path) -> None:
    """They are refused in words; without the limits some of them take minutes."""
    (tmp_path / "x").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=what):
        guarded.toml_of(tmp_path / "x", 1 << 20)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[" * 33 + "]" * 33, '{"a":' * 33 + "1" + "}" * 33, "9" * 400, "9" * 5000, ""],
    ids=range(6),
)
def test_json_made_to_take_all_there_is(text: str, tmp_path: Path) -> None:
    """The same of JSON."""
    (tmp_path / "x").write_text(text)
    with pytest.raises(ValueError, match=r"."):
        guarded.json_of(tmp_path / "x", 1 << 20)


def test_the_end_of_a_long_text(tmp_path: Path) -> None:
    """A log's last words are read, whatever its length, and bytes that are no text do no harm."""
    (tmp_path / "x").write_bytes(b"\xff" * 100_000 + b"error: no")
    assert guarded.tail(tmp_path / "x", 12) == "\ufffd" * 3 + "error: no"
