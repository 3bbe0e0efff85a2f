"""Labels as texts: which spellings are one label for certain, which only look alike, and which are in no other split.

    joined({"1": 90, "1.0": 3}, ["1"])          {"1.0": "1"}
    alike({"Spam": 12, "spam": 950})            [("spam", "Spam")]

The same for certain: another white space, characters that are not seen (zero width, byte order mark, soft hyphen), an
accent as a character of its own (NFD), and 1.0 for 1. Alike: another case, or letters of other alphabets (а for a).
"""

import difflib
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from zolite.common.text import many
from zolite.data.kinds.kind import Kind, Row
from zolite.data.problems import some

_LETTERS = {
    "АВЕКМНОРСТУХІЈЅҺԌԚԜ": "ABEKMHOPCTYXIJShGQW",  # Cyrillic
    "аеорсухіјѕһԁԛԝ": "aeopcyxijshdqw",
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ": "ABEZHIKMNOPTYX",  # Greek
    "αινορυ": "aivopu",
    "‐‑‒–—−": "------",
    "‘’ʼ“”": "'''\"\"",
}
HOMOGLYPHS = str.maketrans("".join(_LETTERS), "".join(_LETTERS.values()))
MOST_NUMBERS = 10  # labels that are fractions: more are a scale
_FRACTION = re.compile(r"-?\d*\.\d+")
_WHOLE = re.compile(r"(-?\d+)\.0+")
NEAREST = 1000  # labels among which a misspelled one is looked for,
SHOWN = 20  # of the first so many that are not known: no more are shown


@functools.lru_cache(maxsize=1 << 16)
def key(label: str) -> str:
    """Equal for spellings that are one label for certain; "" where nothing of a label is seen."""
    seen = "".join(c for c in label if c.isspace() or not _unseen(c))
    text = " ".join(unicodedata.normalize("NFC", seen).split())
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def looks(label: str) -> str:
    """Equal for labels that a person may take for one another."""
    return unicodedata.normalize("NFKC", key(label)).translate(HOMOGLYPHS).casefold()


def _unseen(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cf") or "\ufe00" <= c <= "\ufe0f"  # the latter choose a glyph's form


# ---- one label, spelled in several ways


def joined(
    train: Mapping[str, int], others: Iterable[str] = (), by: Callable[[str], str] = key
) -> dict[str, str]:  # fmt: skip
    """Each spelling that is another's label, with the one that is kept: that of most rows of train, then the shortest.

    `train`: rows by label. `others` are spellings of other splits. By `looks` those that look alike are joined too.
    """
    kept: dict[str, str] = {}
    for label in sorted(train, key=lambda label: (-train[label], len(label), label)):
        kept.setdefault(by(label), label)
    return {label: kept[by(label)] for label in {*train, *others} if kept.get(by(label), label) != label}


def respelled(rows: Iterable[Row], column: str, spelling: Mapping[str, str]) -> Iterator[Row]:
    """Rows with their labels as they are kept."""
    return (_with(row, column, spelling.get(row.columns[column])) for row in rows)


def _with(row: Row, column: str, label: str | None) -> Row:
    return row if label is None else replace(row, columns=row.columns | {column: label})


def told(spelling: Mapping[str, str], counts: Mapping[str, int]) -> tuple[str, ...]:
    """A note of what was joined; `counts`: rows of all splits by the label as it was found."""
    if not spelling:
        return ()
    each = (
        f"{label!r} ({many(counts[label], 'row')}{_because(label, kept)}) as {kept!r}"
        for label, kept in _most(spelling)
    )
    return (f"labels that are the same in another spelling are read as one: {some(each)}",)


def _most(spelling: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(spelling.items(), key=lambda pair: (pair[1], pair[0]))


def _because(label: str, kept: str) -> str:
    odd = differing(label, kept)
    return f", {odd}" if odd else ""


# ---- labels that look alike


def alike(counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Groups of labels that a person may take for one another, each with the label of most rows first."""
    groups: dict[str, list[str]] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        groups.setdefault(looks(label), []).append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def warned(counts: Mapping[str, int], command: str) -> tuple[str, ...]:
    """A warning of labels that look alike and are kept apart; `command` joins them."""
    groups, measured = alike(counts), _measured(counts)
    if not groups:
        return measured
    rows = {label: many(count, "row") for label, count in counts.items()}
    each = (
        f"{first!r} ({rows[first]}) and {label!r} ({rows[label]}, {differing(label, first)})"
        for first, *rest in groups
        for label in rest
    )
    told = f"labels that look alike are kept apart: {some(each)}; `{command}` writes a copy with them joined"
    return (told, *measured)


def _measured(counts: Mapping[str, int]) -> tuple[str, ...]:
    """A warning of labels that are numbers on a scale."""
    if len(counts) <= MOST_NUMBERS or not all(_FRACTION.fullmatch(label) for label in counts):
        return ()
    what = f"{len(counts)} different numbers as labels: each is a word of its own, and which are near is not learned"
    return (f"{what}; a few labels, such as low, middle and high, can be",)


def resembled(label: str, known: Mapping[str, str], near: bool = True) -> str:
    """What a label that is not known may have been meant for, in words; "" where nothing is like it.

    `known`: each known label by how it looks. `near`: look for one that is spelled nearly the same, too.
    """
    if other := known.get(looks(label)):
        return f"it looks like {other!r}, but {differing(label, other)}"
    close = difflib.get_close_matches(label, list(known.values())[:NEAREST], 1, 0.75) if near else []
    return f"the nearest of those is {close[0]!r}" if close else ""


def differing(label: str, other: str) -> str:
    """The characters that only one of two labels has, with their code points: those beyond ASCII, if there are any."""
    one, two = (list(Counter(a) - Counter(b)) for a, b in ((label, other), (other, label)))
    beyond = [[c for c in odd if not c.isascii()] for odd in (one, two)]
    odd = beyond[0] or beyond[1] or [c for c in one or two if not c.isdigit() and c not in ". "]
    return some((f"{c!r} is U+{ord(c):04X} {unicodedata.name(c, 'without a name')}" for c in odd), 3)


# ---- of splits


def counted(kind: Kind, rows: Iterable[Row]) -> Counter[str]:
    """Rows by label; none where rows of that kind have none."""
    return Counter(row.columns[kind.label_column] for row in rows) if kind.label_column else Counter()


def problems(kind: Kind, rows: Mapping[str, Sequence[Row]], files: Mapping[str, str]) -> list[str]:
    """What is wrong with the labels of train and of the splits beside it, by the splits' files."""
    known, train = counted(kind, rows["train"]), files["train"]
    unseen = [f"{train}: label {label!r} has nothing that can be seen" for label in known if not key(label)]
    few = [f"{train}: {len(known)} label ({some(known)}) in {len(rows['train'])} rows; at least 2 are needed"]
    return (few if len(known) < 2 else unseen) + [
        problem
        for split in rows
        if split != "train"
        for problem in strangers(files[split], kind, rows[split], sorted(known), f"the labels of {train}")
    ]


def strangers(file: str, kind: Kind, rows: Sequence[Row], known: Sequence[str], among: str) -> Iterator[str]:
    """A line for each row whose label is not known, with what it may have been meant for."""
    there, column = frozenset(known), kind.label_column
    by_looks = {looks(label): label for label in reversed(known)}
    why: dict[str, str] = {}
    for row in rows:
        label = row.columns[column]
        if label not in there:
            if label not in why:
                why[label] = resembled(label, by_looks, near=len(why) < SHOWN)
            reason = f": {why[label]}" if why[label] else ""
            yield f"{file}: line {row.line}: label {label!r} is not among {among}{reason}"
