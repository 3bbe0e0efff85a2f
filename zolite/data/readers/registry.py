"""The formats of files that are read, and what is said of others."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from zolite.data.readers import columnar, delimited, document, json_values, jsonl
from zolite.data.readers.reader import Opened, Read, Record, Unreadable

READERS: dict[str, Callable[[Path], Opened]] = {
    ".jsonl": jsonl.opened,
    ".ndjson": jsonl.opened,
    ".json": json_values.opened,
    ".csv": partial(delimited.opened, usual=","),
    ".tsv": partial(delimited.opened, usual="\t"),
    ".parquet": columnar.opened,
    ".arrow": columnar.opened,
    ".feather": columnar.opened,
    ".txt": document.opened,
    ".md": document.opened,
}
"""suffix to what opens such a file: it raises Unreadable, and OSError"""

LARGE, SAMPLED = 2**22, 500  # bytes of a file whose rows are estimated, and rows by which they are

PACKED = (".gz", ".zst")  # behind any of them; what is packed is known by its first bytes (unpacked.py)

SPREADSHEET = "a spreadsheet: save the sheet as CSV (in Excel: Save As, CSV UTF-8; in LibreOffice: Save As, Text CSV)"
ARCHIVE = "an archive: unpack it and give the folder"
ADVICE = {
    ".xlsx": SPREADSHEET,
    ".xls": SPREADSHEET,
    ".xlsm": SPREADSHEET,
    ".ods": SPREADSHEET,
    ".numbers": "a spreadsheet: export it as CSV (in Numbers: File, Export To, CSV)",
    ".zip": ARCHIVE,
    ".tar": ARCHIVE,
    ".tgz": ARCHIVE,
    ".rar": ARCHIVE,
    ".7z": ARCHIVE,
    ".bz2": "packed with bzip2: unpack it with `bunzip2`",
    ".xz": "packed with xz: unpack it with `unxz`",
    ".pdf": "a PDF: save its text as .txt",
    ".docx": "a Word document: save it as plain text (.txt)",
    ".doc": "a Word document: save it as plain text (.txt)",
    ".html": "a web page: save its text as .txt",
    ".xml": "XML: convert it to .jsonl, an object a row",
    ".pkl": "a pickle, which can run code: in pandas, `pd.read_pickle(FILE).to_parquet(NEW)`",
    ".npy": "an array: rows are text",
    ".db": "a database: export its table as CSV",
    ".sqlite": "a database: export its table as CSV",
}
"""suffix to what such a file is and how its rows become readable"""


def suffix_of(file: Path) -> str:
    """Of its format, small letters: .csv of a.CSV and of a.csv.gz."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    while suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def stem_of(file: Path) -> str:
    """Its name without what suffix_of and PACKED name."""
    name = file.name
    for suffix in (*PACKED, suffix_of(file)):
        name = name[: -len(suffix)] if suffix and name.lower().endswith(suffix) else name
    return name


def unsupported(file: Path) -> str:
    """Why a file of this name is not read; empty where it is."""
    suffix = suffix_of(file)
    if suffix in READERS:
        return ""
    what = ADVICE.get(suffix)
    return f"it is {what}" if what else f"{suffix or 'a file without extension'} is not supported"


def opened(file: Path) -> Opened:
    """A file of a suffix in READERS. Its rows are never none: the last of them says why no more can be read."""
    try:
        found = READERS[suffix_of(file)](file)
    except (Unreadable, OSError) as error:
        return Opened(partial(iter, [_last(error)]))
    return replace(found, rows=partial(_to_the_last, found), about=found.about or _about(file, found))


def read(file: Path) -> Iterator[Read]:
    """Every record of a file, or what is wrong in its place."""
    return opened(file).rows()


def _about(file: Path, found: Opened) -> int:
    """Rows by the bytes of the first ones, in two digits; 0 of files that are quickly read, or packed."""
    suffix, size = suffix_of(file), file.stat().st_size
    if size < LARGE or suffix not in BYTES or file.suffix.lower() in PACKED:
        return 0
    whole = rows = 0
    with suppress(Unreadable, OSError):
        for _, record in islice(found.rows(), SAMPLED):
            whole, rows = whole + BYTES[suffix](record), rows + 1
            if whole > LARGE:
                break
    return int(float(f"{rows * size / whole:.1e}")) if whole else 0


def _of_json(record: Record | str) -> int:
    return len(json.dumps(record, ensure_ascii=False).encode()) + 1


def _of_cells(record: Record | str) -> int:
    cells = record.values() if isinstance(record, dict) else (record,)
    return sum(len(str(cell).encode()) + 1 for cell in cells)


BYTES: dict[str, Callable[[Record | str], int]] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), _of_json),
    **dict.fromkeys((".csv", ".tsv"), _of_cells),
}
"""suffix to what counts the bytes of a record, about"""


def _to_the_last(found: Opened) -> Iterator[Read]:
    empty = True
    try:
        for each in found.rows():
            empty = False
            yield each
    except (Unreadable, OSError) as error:
        yield _last(error)
    else:
        if empty:
            yield 1, "the file has no rows"


def _last(error: Unreadable | OSError) -> Read:
    if isinstance(error, Unreadable):
        return error.place, error.text
    return 1, f"the file cannot be read: {error.strerror or error}"
