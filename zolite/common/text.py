"""Numbers and names as a person reads them."""

import json
from math import isfinite
from typing import Any
from unicodedata import category

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
UNKNOWN = "–"


def human_bytes(n: float) -> str:
    """812 MiB, 1.2 GiB: a decimal from GiB on, where it is worth money."""
    power = 0
    while round(abs(n)) >= 1024 and power < len(UNITS) - 1:
        n, power = n / 1024, power + 1
    return f"{n:.{1 if power >= 3 else 0}f} {UNITS[power]}"


def parsed_bytes(text: str) -> int:
    """8GiB, 8 GB, 500M or a number of bytes; ValueError for anything else."""
    number = text.strip().rstrip("iBbkKmMgGtT ")
    unit = text.strip()[len(number) :].strip().lower().removesuffix("b")
    powers = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
    value = float(number)
    if unit.removesuffix("i") not in powers or not 0 < value < float("inf"):
        raise ValueError(f"{text!r} is not a size")
    base = 1024 if unit.endswith("i") or "b" not in text.lower() else 1000
    return int(value * base ** powers[unit.removesuffix("i")])


def human_seconds(s: float) -> str:
    """45s, 1m18s, 2h03m, 3d04h: the two largest units."""
    if not isfinite(s):
        return UNKNOWN
    s = max(0, round(s))
    for size, unit, small, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if s >= size:
            return f"{s // size}{unit}{s % size // small:02d}{name}"
    return f"{s}s"


def human_number(x: float) -> str:
    """1.300, 0.6714, 12.50: four digits, ending zeros kept so that a column of them does not jitter."""
    return f"{x:#.4g}".rstrip(".") if isfinite(x) else UNKNOWN


def human_rate(rate: float) -> str:
    """2.31 steps/s, and for slow runs 12.4 s/step."""
    if not isfinite(rate) or rate <= 0:
        return f"{UNKNOWN} steps/s"
    number, unit = (rate, "steps/s") if rate >= 0.5 else (1 / rate, "s/step")
    return f"{number:,.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"


def many(count: int, noun: str) -> str:
    """1 row, 1,200 rows: a count of things whose plural has an s."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def one_line(text: str) -> str:
    """Text that cannot move the cursor or start a line: control characters and lone surrogates become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def visible(text: str) -> str:
    """Text from a file as a terminal may have it: lines and spaces as they are, control characters as their escapes."""
    lines = text.split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_shown, line)) for line in lines)


def unobeyed(text: str) -> str:
    """Without what `visible` shows as escapes, which takes no place on a screen: as wide as before."""
    return text if text.isprintable() else "".join(c for c in text if _shown(c) == c)


def json_text(value: Any) -> str:
    """JSON of one line for people: letters of all scripts as they are, what a terminal would obey as escapes."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if _shown(c) == c else json.dumps(c)[1:-1] for c in text)


def _shown(c: str) -> str:
    if c.isprintable() or c in "\n\t" or c in JOINERS or category(c) == "Zs":
        return c
    return c.encode("unicode_escape").decode()


JOINERS = "\u200c\u200d"  # within words of some scripts, and within emoji
