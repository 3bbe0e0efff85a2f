"""Claims about sizes as people write them."""

import pytest

from zolite.common.text import parsed_bytes

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * GIB),
        ("8 GB", 8 * 10**9),
        ("500M", 500 * 2**20),
        ("1.5g", 3 * GIB // 2),
        ("1024", 1024),
        ("2kb", 2000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes are read as people write them."""
    assert parsed_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "0", "8XiB", "nan", "inf", "8 G i"])
def test_no_sizes(text: str) -> None:
    """What is no size is not read as one."""
    with pytest.raises(ValueError, match=r"float|size"):
        parsed_bytes(text)
