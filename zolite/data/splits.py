"""Which rows of one file are train and dev: a tenth of train is held out as dev."""

import hashlib

from zolite.data.problems import refuse
from zolite.data.table import Table

HELD_OUT = 200  # most rows taken out of train as dev: enough to see a difference of a few per cent


def hold_out(rows: Table, file: str) -> tuple[Table, Table]:
    """(train, dev), both in file order: dev is the tenth with the lowest hashes, whatever the order of the rows."""
    if len(rows) < 2:
        refuse([f"{file}: {len(rows)} row; at least 2 are needed to hold one out as dev"], "add rows or a dev file")
    count = min(HELD_OUT, max(1, len(rows) // 10))
    hashes = [hashlib.sha256(content).digest() for content in rows.contents()]
    held = set(sorted(range(len(rows)), key=hashes.__getitem__)[:count])
    return rows.take(i for i in range(len(rows)) if i not in held), rows.take(sorted(held))
