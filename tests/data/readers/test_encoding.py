"""Claims about which encoding a text file is in."""

import codecs
from pathlib import Path

import pytest

from zolite.data.readers.encoding import encoding_of, lines
from zolite.data.readers.reader import Unreadable

TEXT = "text;label\nà bientôt, “déjà vu” – 5 €;ok\r\nplain;ok\n"
PLAIN = "text;label\nà bientôt, déjà vu;ok\nplain;ok\n"


@pytest.mark.parametrize(
    ("data", "said", "text"),
    [
        (TEXT.encode(), "", TEXT),
        (codecs.BOM_UTF8 + TEXT.encode(), "UTF-8 with a byte order mark", TEXT),
        (TEXT.encode("utf-16"), "UTF-16 LE", TEXT),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "UTF-16 BE", TEXT),
        (TEXT.encode("utf-16-le"), "UTF-16 LE without a byte order mark", TEXT),
        (TEXT.encode("utf-16-be"), "UTF-16 BE without a byte order mark", TEXT),
        (TEXT.encode("utf-32"), "UTF-32 LE", TEXT),
        (TEXT.encode("cp1252"), "cp1252, since it is not UTF-8", TEXT),
        (PLAIN.encode("latin-1"), "latin-1, since it is not UTF-8", PLAIN),
        (b"plain", "", "plain"),
        (b"", "", ""),
    ],
)
def test_the_encoding_is_recognised(tmp_path: Path, data: bytes, said: str, text: str) -> None:
    """By a mark, by the zeros of UTF-16, or by what the bytes can be; its lines come without the mark."""
    (tmp_path / "a.txt").write_bytes(data)
    found = encoding_of(tmp_path / "a.txt", western=True)
    assert found.said == said
    assert "".join(lines(tmp_path / "a.txt", found)) == text


@pytest.mark.parametrize(
    ("data", "line", "what"),
    [
        ("é\né\n".encode() + b"a\xffb\n" + "é\n".encode(), 3, "byte 7 of the file is not UTF-8, while most others are"),
        ("Привет, мир\n".encode("cp1251"), 1, "no western text either"),
        ("日本語のテキスト\n".encode("shift_jis"), 1, "no western text either"),
        ("Gr\xfc\xdfe aus M\xfcnchen und K\xf6ln\n".encode("cp437"), 1, "no western text either"),
        (b"a\nb\0c\n", 2, "a NUL byte"),
        (codecs.BOM_UTF8 + b"a\nb\xff\n", 2, "byte 6 of the file is not UTF-8"),
        (codecs.BOM_UTF16_LE + "a\nb".encode("utf-16-le") + b"\x00", 2, "is not UTF-16"),
        (codecs.BOM_UTF16_LE + "a\n".encode("utf-16-le") + b"\x00\xd8b\x00", 2, "is not UTF-16"),
    ],
)
def test_what_no_encoding_explains_is_named_with_its_line(tmp_path: Path, data: bytes, line: int, what: str) -> None:
    """And with the encodings that were tried, where there were several."""
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(Unreadable) as caught:
        encoding_of(tmp_path / "a.txt", western=True)
    assert what in caught.value.text and caught.value.place == line
    assert ("tried: UTF-8, UTF-16, cp1252, latin-1" in caught.value.text) == ("either" in what or "others" in what)


def test_a_fault_is_found_wherever_reading_was_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The byte and the line are those of the file, however it is cut into pieces."""
    data = "é\n".encode() * 40 + b"\xe9\n" + "é\n".encode() * 40
    (tmp_path / "a.txt").write_bytes(data)
    for size in range(1, 12):
        monkeypatch.setattr("zolite.data.readers.unpacked.CHUNK", size)
        with pytest.raises(Unreadable, match="byte 120 of the file") as caught:
            encoding_of(tmp_path / "a.txt", western=False)
        assert caught.value.place == 41
