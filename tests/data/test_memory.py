"""Claim: what rows cost in memory does not grow with their number as the rows do."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROWS, WORDS = 4_000, 150  # their queries alone, as Python's objects, would be some 120 MiB
MOST = 60  # MiB, 16 of them for a table that is in memory still

SCRIPT = """
    import resource, sys
    from pathlib import Path
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from zolite.data import encode, rows
    inner = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="?")
    encode.encode_all(rows.load(Path(sys.argv[1]), "{text}: {label}"), tokenizer, "", 1024)  # loads what it needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = rows.load(Path(sys.argv[2]), "{text}: {label}")
    coded = encode.encode_all(data, tokenizer, "", 1024)
    assert len(data.fingerprint) == 64
    print(sum(map(len, coded.examples.values())), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the most memory is counted in other units, or not")
def test_many_rows_and_their_tokens_take_little_memory(tmp_path: Path) -> None:
    """By the most that a process had, while rows are read, checked and tokenized."""
    few, many = (rows_in(tmp_path / f"{count}.jsonl", count) for count in (20, ROWS))
    code = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(few), str(many)]
    environment = {**os.environ, "ZOLITE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(code, capture_output=True, text=True, check=False, env=environment)
    assert not done.returncode, done.stderr
    count, mib = map(int, done.stdout.split())
    assert count == ROWS and mib < MOST


def rows_in(file: Path, count: int) -> Path:
    rows = ({"prompt": f"{i} " + "a " * WORDS, "completion": " b" * WORDS} for i in range(count))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
