"""Which rows of one file are train and dev: a tenth of train is held out as dev."""

import hashlib

from zolite.data.kinds.kind import Row
from zolite.data.problems import refuse

HELD_OUT = 200  # most rows taken out of train as dev: enough to see a difference of a few per cent


def hold_out(rows: tuple[Row, ...], file: str) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """(train, dev), both in file order: dev is the tenth with the lowest hashes, whatever the order of the rows."""
    if len(rows) < 2:
        refuse([f"{file}: {len(rows)} row; at least 2 are needed to hold one out as dev"], "add rows or a dev file")
    count = min(HELD_OUT, max(1, len(rows) // 10))
    order = sorted(range(len(rows)), key=lambda i: hashlib.sha256(rows[i].content()).digest())
    held = set(order[:count])
    return tuple(r for i, r in enumerate(rows) if i not in held), tuple(r for i, r in enumerate(rows) if i in held)
