"""Claim: the picture of the packages in docs/architecture.md is what their imports are."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def test_the_picture_is_what_the_imports_are(tmp_path: Path) -> None:
    """`python docs/architecture.py` draws the committed picture; run it where this fails."""
    drawn = tmp_path / "architecture.svg"
    command = [sys.executable, str(REPOSITORY / "docs" / "architecture.py"), str(drawn)]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    committed = REPOSITORY / "docs" / "pictures" / "architecture.svg"
    assert drawn.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")
